"""A batch of model inputs: one tensor, several in a row, or several by name."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Inputs", "SelfTest", "apply", "call", "count", "drawn_batch", "split", "tensors"]

Inputs = Tensor | tuple[Tensor, ...] | dict[str, Tensor]
SelfTest = Callable[[Sequence[str], Inputs], None]  # is shown the classes (none: not known yet) and a batch; raises InputError


def drawn_batch(shape: Sequence[int]) -> Tensor:
    """Return a small batch of inputs of that shape, float32, always the same, that a model is tried on before there are data."""
    return torch.randn(4, *shape, generator=torch.Generator().manual_seed(0))


def tensors(inputs: Inputs) -> list[Tensor]:
    """Return the tensors, in their order."""
    if isinstance(inputs, Tensor):
        return [inputs]
    return list(inputs.values() if isinstance(inputs, dict) else inputs)


def apply(function: Callable[[Tensor], Tensor], inputs: Inputs) -> Inputs:
    """Return the same structure with `function` applied to each tensor."""
    if isinstance(inputs, Tensor):
        return function(inputs)
    if isinstance(inputs, dict):
        return {name: function(tensor) for name, tensor in inputs.items()}
    return tuple(map(function, inputs))


def count(inputs: Inputs) -> int:
    """Return the number of examples."""
    return len(tensors(inputs)[0])


def split(inputs: Inputs, sizes: list[int]) -> list[Inputs]:
    """Cut a batch into parts of `sizes` examples."""
    if isinstance(inputs, Tensor):
        return list(inputs.split(sizes))
    parts = [tensor.split(sizes) for tensor in tensors(inputs)]
    if isinstance(inputs, dict):
        return [dict(zip(inputs, some, strict=True)) for some in zip(*parts, strict=True)]
    return list(zip(*parts, strict=True))


def call(model: nn.Module, inputs: Inputs) -> Any:
    """Return what `model` gives for the inputs: model(x), model(*several) or model(**named)."""
    if isinstance(inputs, Tensor):
        return model(inputs)
    return model(**inputs) if isinstance(inputs, dict) else model(*inputs)
