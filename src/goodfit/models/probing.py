"""A first look at a module of the user's own: whether it can take the data's examples, and what its outputs are.

Torch's random state does not change; the module is one that is thrown away afterwards, so what it counts may move.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from goodfit.errors import ModelError
from goodfit.inputs import Inputs, call, tensors
from goodfit.models.outputs import OutputMeaning, prediction_of
from goodfit.user_code import blame, said

__all__ = ["Probe", "calling", "materialize", "probe"]

# The last operation before the outputs, as autograd names it. An exponential of a log-softmax would be the user's secret.
MEANINGS: dict[str, OutputMeaning] = {
    "LogSoftmaxBackward0": "log-probabilities",
    "SoftmaxBackward0": "probabilities",
    "SigmoidBackward0": "probabilities",
}
VIEWS = (
    "ViewBackward0",
    "SqueezeBackward0",
    "SqueezeBackward1",
    "UnsqueezeBackward0",
    "ReshapeAliasBackward0",
    "ToCopyBackward0",
)
WANTED = {  # the argument of a layer that says what it takes
    **dict.fromkeys(("Linear", "LazyLinear"), "in_features"),
    **dict.fromkeys(("Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d"), "in_channels"),
    **dict.fromkeys(("BatchNorm1d", "BatchNorm2d", "BatchNorm3d"), "num_features"),
    "LayerNorm": "normalized_shape",
}


@dataclass(frozen=True)
class Probe:
    """What a module gave for a few examples."""

    columns: int  # of the prediction (N, columns)
    meaning: OutputMeaning | None  # as the last operation says; None where it leaves plain numbers
    unused: tuple[str, ...]  # trainable parameters on which the outputs do not depend
    total: float = 1.0  # of an example's probabilities, where the last operation gives several: the one that is furthest from 1


def materialize(module: nn.Module, inputs: Inputs, name: str) -> None:
    """Give lazy layers their shapes and weights, drawn from torch's default generator, by a first batch."""
    if any(
        isinstance(tensor, UninitializedParameter | UninitializedBuffer) for tensor in (*module.parameters(), *module.buffers())
    ):
        was_training = module.training
        with torch.no_grad(), calling(module, inputs, name):
            call(module.eval(), inputs)
        module.train(was_training)


def probe(module: nn.Module, inputs: Inputs, name: str) -> Probe:
    """Send a few examples through `module`, which is in evaluation mode from then on.

    Raises ModelError where it fails, naming the layer with the shape it got and the one it wanted, or where what comes out
    is not one row of numbers for each example.
    """
    module.eval()
    with _no_strangers(module, name), torch.random.fork_rng(devices=[]), torch.enable_grad(), calling(module, inputs, name):
        outputs = call(module, inputs)
    prediction = prediction_of(outputs)
    examples = len(tensors(inputs)[0])
    if prediction.ndim != 2 or len(prediction) != examples or not prediction.is_floating_point():
        raise ModelError(
            f"{name} gives {_form(prediction)} for {examples} examples {_shapes(inputs)}, and one row of numbers for each is "
            "wanted: logits (N, classes), or (N, 1); change its last layer"
        )
    meaning = _last_operation(prediction)
    total = _total(prediction.detach(), meaning)
    trainable = [(key, parameter) for key, parameter in module.named_parameters() if parameter.requires_grad]
    if not trainable or not prediction.requires_grad:
        return Probe(prediction.shape[1], meaning, tuple(key for key, _ in trainable), total)
    everything = sum(part.float().sum() for part in _floating(outputs))
    assert isinstance(everything, Tensor)
    gradients = torch.autograd.grad(everything, [parameter for _, parameter in trainable], allow_unused=True)
    unused = tuple(key for (key, _), gradient in zip(trainable, gradients, strict=True) if gradient is None)
    return Probe(prediction.shape[1], meaning, unused, total)


@contextmanager
def _no_strangers(module: nn.Module, name: str) -> Iterator[None]:
    """Raise ModelError for a layer that is called and is no part of the module: it would neither be trained nor saved."""
    own = set(map(id, module.modules()))
    strangers: list[str] = []

    def look(layer: nn.Module, _given: Any) -> None:
        if id(layer) not in own and any(True for _ in layer.parameters(recurse=False)):
            strangers.append(type(layer).__name__)

    handle = register_module_forward_pre_hook(look)
    try:
        yield
    finally:
        handle.remove()
    if strangers:
        raise ModelError(
            f"{name} calls a {strangers[0]} that is no part of it, so it would be neither trained nor saved; keep layers as "
            "attributes, or in an nn.ModuleList"
        )


@contextmanager
def calling(module: nn.Module, inputs: Inputs, name: str) -> Iterator[None]:
    """Turn what the user's forward raises into a ModelError that names the innermost layer, and the shapes it was given."""
    open_calls: list[tuple[str, nn.Module, Any]] = []

    def enter(key: str) -> Any:
        return lambda layer, given: open_calls.append((key, layer, given))

    def leave(*_: Any) -> None:
        open_calls.pop()

    handles = [layer.register_forward_pre_hook(enter(key)) for key, layer in module.named_modules()]
    handles += [layer.register_forward_hook(leave) for layer in module.modules()]
    try:
        yield
    except Exception as error:
        inner = _innermost(open_calls)
        said_there = f"{inner}: " if inner else ""
        message = f"{name} cannot take a batch of {_shapes(inputs)}: {said_there}{said(error)}"
        if isinstance(error, TypeError) and not inner and not isinstance(inputs, Tensor):
            message += "; it is called with each of them: let its forward take them, or leave them out of the examples"
        raise blame(ModelError(message), error) from error
    finally:
        for handle in handles:
            handle.remove()


def _innermost(open_calls: list[tuple[str, nn.Module, Any]]) -> str:
    if len(open_calls) < 2:  # the module itself: its own forward says enough
        return ""
    key, layer, given = open_calls[-1]
    kind = type(layer).__name__
    inputs = [value for value in given if isinstance(value, Tensor)]
    weight = next(layer.parameters(recurse=False), None)
    for value in inputs:
        if weight is not None and kind in WANTED and value.dtype != weight.dtype:
            way_out = (
                "make them float32: model.float()" if weight.dtype != torch.float32 else "give it float32, such as x.float()"
            )
            return f"the layer {key} ({kind}) has weights of {weight.dtype} and got {value.dtype}; {way_out}"
    got = ", ".join(str(tuple(value.shape)) for value in inputs)
    wanted = WANTED.get(kind)
    wish = f" and wants {wanted}={getattr(layer, wanted)}" if wanted else ""
    return f"the layer {key} ({kind}) got {got}{wish}"


def _last_operation(prediction: Tensor) -> OutputMeaning | None:
    node = prediction.grad_fn
    while node is not None and node.name() in VIEWS:
        node = node.next_functions[0][0]
    return MEANINGS.get(node.name()) if node is not None else None


def _total(prediction: Tensor, meaning: OutputMeaning | None) -> float:
    if meaning is None or prediction.shape[1] == 1:
        return 1.0
    totals = (prediction.exp() if meaning == "log-probabilities" else prediction).sum(dim=1)
    return float(totals[(totals - 1).abs().argmax()])


def _floating(outputs: Any) -> list[Tensor]:
    if isinstance(outputs, Tensor):
        return [outputs] if outputs.requires_grad else []
    values = outputs.values() if isinstance(outputs, dict) else outputs if isinstance(outputs, list | tuple) else []
    return [part for value in values for part in _floating(value)]


def _form(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _shapes(inputs: Inputs) -> str:
    if isinstance(inputs, dict):
        return ", ".join(f"{key} {_form(tensor)}" for key, tensor in inputs.items())
    return ", ".join(_form(tensor) for tensor in tensors(inputs))
