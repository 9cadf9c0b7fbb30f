"""What the numbers a model gives mean, and how probabilities are made of them."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from goodfit.errors import ModelError

__all__ = ["OutputMeaning", "check_outputs", "log_probabilities", "probabilities"]

OutputMeaning = Literal["logits", "log-probabilities", "probabilities", "one-logit", "value"]


def probabilities(outputs: Tensor, meaning: OutputMeaning) -> Tensor:
    """Return (N, C) float32 class probabilities; one logit gives the two columns (1 - p, p).

    Raises ModelError for values, which have none.
    """
    outputs = outputs.float()
    match meaning:
        case "logits":
            return outputs.softmax(dim=1)
        case "log-probabilities":
            return outputs.exp()
        case "probabilities":
            return outputs
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
            return outputs.clamp_min(torch.finfo(torch.float32).tiny).log()
        case "one-logit":
            return F.logsigmoid(_both_logits(outputs))
        case "value":
            raise _no_probabilities()


def check_outputs(outputs: object, meaning: OutputMeaning, num_outputs: int) -> None:
    """Raise ModelError unless `outputs` are (N, num_outputs) floating point numbers, or (N, 1) for one logit or value."""
    columns = 1 if meaning in ("one-logit", "value") else num_outputs
    wanted = f"(N, {columns}) numbers, one {'per class' if columns > 1 else 'per example'}"
    if not isinstance(outputs, Tensor):
        raise ModelError(f"the model gives a {type(outputs).__name__} where a tensor of {wanted} is wanted; return that alone")
    if outputs.ndim != 2 or outputs.shape[1] != columns:
        raise ModelError(f"the model's outputs have the shape {tuple(outputs.shape)}, not {wanted}; change its last layer")
    if not outputs.is_floating_point():
        raise ModelError(f"the model's outputs are {outputs.dtype}, not floating point; return the last layer's own numbers")


def _both_logits(outputs: Tensor) -> Tensor:  # (N, 1) to (N, 2)
    return torch.cat([-outputs, outputs], dim=1)  # sigmoid(-x) is 1 - sigmoid(x), without its cancellation


def _no_probabilities() -> ModelError:
    return ModelError("outputs that mean 'value' have no class probabilities; use them as they are")
