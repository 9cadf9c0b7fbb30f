"""A model at a glance: its layers, their output shapes and parameters, and the work that one example takes."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, _FlopCounterMode

from goodfit.devices import spare_the_compiler
from goodfit.errors import ConfigError, ModelError
from goodfit.inputs import Inputs, apply, call, tensors
from goodfit.models import build_model, model_arguments

__all__ = ["LayerSummary", "Summary", "summarize", "summarize_by_name"]


@dataclass(frozen=True)
class LayerSummary:
    """One call of a layer: `output_shape` is for one example, `parameters` those that no earlier row has counted."""

    name: str
    kind: str
    output_shape: tuple[int, ...]
    parameters: int


@dataclass(frozen=True)
class Summary:
    """The layers in the order in which they run, and the totals.

    `flops` counts the matrix products and convolutions of one example's forward pass, a multiplication and an addition
    as two.
    """

    layers: tuple[LayerSummary, ...]
    parameters: int
    trainable_parameters: int
    flops: int


def summarize(model: nn.Module, inputs: Inputs) -> Summary:
    """Send one example through a copy of `model`, on the CPU, or on the meta device for a model there.

    Neither the model nor the random state changes. Raises ModelError if the model cannot take the example.
    """
    spare_the_compiler(_FlopCounterMode.__torch_dispatch__)
    model = copy.deepcopy(model)
    if not any(parameter.is_meta for parameter in model.parameters()):
        model.cpu()
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    layers: list[LayerSummary] = []
    counted: set[int] = set()
    for name, module in model.named_modules():
        module.register_forward_hook(_recorder(name, layers, counted))
    # With gradients, as torch's fused attention for inference would hide its products from the counter.
    with torch.random.fork_rng(devices=[]), torch.enable_grad(), FlopCounterMode(display=False) as counter:
        try:
            call(model.eval(), apply(lambda tensor: tensor.to(device), inputs))
        except Exception as error:
            reason = str(error).strip().split("\n")[0]
            shape = tuple(tensors(inputs)[0].shape[1:])
            raise ModelError(
                f"{type(model).__name__} cannot take an example of shape {shape}: {reason}; "
                "its layers and the data have to agree"
            ) from error
    parameters = list(model.parameters())
    return Summary(
        layers=tuple(layers),
        parameters=sum(parameter.numel() for parameter in parameters),
        trainable_parameters=sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
        flops=counter.get_total_flops(),
    )


def summarize_by_name(name: str, shape: str, num_outputs: int) -> Summary:
    """Summarize a model with its default arguments for examples of a `shape` such as "3,32,32" or "13"."""
    sides = shape.replace(" ", "").split(",")
    if not all(side.isdecimal() and int(side) > 0 for side in sides):
        raise ConfigError(f"the shape {shape!r} is not a list of whole numbers; write it as 3,32,32 or 13")
    input_shape = tuple(map(int, sides))
    model = build_model(name, input_shape=input_shape, num_outputs=num_outputs, arguments=model_arguments(name))
    return summarize(model, torch.zeros(1, *input_shape))


def _recorder(name: str, layers: list[LayerSummary], counted: set[int]) -> Callable[[nn.Module, object, object], None]:
    def record(module: nn.Module, inputs: object, outputs: object) -> None:  # noqa: ARG001
        # A module that holds others has a row of its own only for what they do not hold, such as a class token.
        new = {id(parameter): parameter.numel() for parameter in module.parameters() if id(parameter) not in counted}
        counted.update(new)
        if new or not any(True for _ in module.children()):
            layers.append(LayerSummary(name or "model", type(module).__name__, _example_shape(outputs), sum(new.values())))

    return record


def _example_shape(outputs: object) -> tuple[int, ...]:
    first = outputs[0] if isinstance(outputs, tuple) and outputs else outputs  # recurrent layers also give their state
    return tuple(first.shape[1:]) if isinstance(first, Tensor) else ()
