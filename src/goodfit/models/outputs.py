"""What the numbers a model gives mean, and how probabilities are made of them."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from goodfit.errors import ModelError, kind_of

__all__ = ["OutputMeaning", "check_outputs", "in_float32", "log_probabilities", "num_columns", "prediction_of", "probabilities"]

OutputMeaning = Literal["logits", "log-probabilities", "probabilities", "one-logit", "value"]


def prediction_of(outputs: Any) -> Tensor:
    """Return the prediction among what a module gives: a tensor, the first of several, or "logits" of a dict.

    One number per example, (N,), becomes (N, 1). Raises ModelError where there is no tensor to be found.
    """
    found = outputs
    if isinstance(outputs, Tensor):  # first: this is asked twice a step, and whether something is a Mapping takes longer
        pass
    elif isinstance(outputs, Mapping):
        if "logits" not in outputs:
            raise ModelError(f"the model gives a dict of {', '.join(map(repr, outputs))}; put its prediction under 'logits'")
        found = outputs["logits"]
    elif isinstance(outputs, Sequence) and outputs:
        found = outputs[0]
    if not isinstance(found, Tensor):
        raise ModelError(f"the model gives {kind_of(found)} where a tensor of numbers is wanted; return its prediction")
    return found.unsqueeze(1) if found.ndim == 1 else found


def in_float32(outputs: Any) -> Any:
    """Return what a module gives with its floating point tensors in float32, in whatever tuples, lists and dicts they are."""
    if isinstance(outputs, Tensor):
        return outputs.float() if outputs.is_floating_point() else outputs
    if isinstance(outputs, dict):
        return {name: in_float32(part) for name, part in outputs.items()}
    return type(outputs)(map(in_float32, outputs)) if type(outputs) in (list, tuple) else outputs


def num_columns(meaning: OutputMeaning, num_classes: int) -> int:
    """Return how many numbers a model gives for an example."""
    return 1 if meaning in ("one-logit", "value") else num_classes


def probabilities(outputs: Tensor, meaning: OutputMeaning) -> Tensor:
    """Return (N, C) float32 class probabilities; one logit, or one probability p, gives the two columns (1 - p, p).

    Raises ModelError for values, which have none.
    """
    outputs = outputs.float()
    match meaning:
        case "logits":
            return outputs.softmax(dim=1)
        case "log-probabilities":
            return outputs.exp()
        case "probabilities":
            return _both_probabilities(outputs)
        case "one-logit":
            return _both_logits(outputs).sigmoid()
        case "value":
            raise _no_probabilities()


def log_probabilities(outputs: Tensor, meaning: OutputMeaning) -> Tensor:
    """Return (N, C) float32 logarithms of class probabilities, finite wherever the outputs are finite.

    Raises ModelError for values, which have none.
    """
    outputs = outputs.float()
    match meaning:
        case "logits":
            return outputs.log_softmax(dim=1)
        case "log-probabilities":
            return outputs
        case "probabilities":
            return _both_probabilities(outputs).clamp_min(torch.finfo(torch.float32).tiny).log()
        case "one-logit":
            return F.logsigmoid(_both_logits(outputs))
        case "value":
            raise _no_probabilities()


def check_outputs(outputs: object, meaning: OutputMeaning, num_outputs: int) -> None:
    """Raise ModelError unless `outputs` are (N, num_outputs) floating point numbers, or (N, 1) for one logit or value."""
    columns = num_columns(meaning, num_outputs)
    wanted = f"(N, {columns}) numbers, one {'per class' if columns > 1 else 'per example'}"
    if not isinstance(outputs, Tensor):
        raise ModelError(f"the model gives {kind_of(outputs)} where a tensor of {wanted} is wanted; return that alone")
    one_is_enough = meaning == "probabilities" and num_outputs == 2  # that of the second class
    if outputs.ndim != 2 or outputs.shape[1] not in ((1, 2) if one_is_enough else (columns,)):
        raise ModelError(f"the model's outputs have the shape {tuple(outputs.shape)}, not {wanted}; change its last layer")
    if not outputs.is_floating_point():
        raise ModelError(f"the model's outputs are {outputs.dtype}, not floating point; return the last layer's own numbers")


def _both_logits(outputs: Tensor) -> Tensor:  # (N, 1) to (N, 2)
    return torch.cat([-outputs, outputs], dim=1)  # sigmoid(-x) is 1 - sigmoid(x), without its cancellation


def _both_probabilities(outputs: Tensor) -> Tensor:  # (N, 1) to (N, 2)
    return torch.cat([1 - outputs, outputs], dim=1) if outputs.shape[1] == 1 else outputs


def _no_probabilities() -> ModelError:
    return ModelError("outputs that mean 'value' have no class probabilities; use them as they are")
