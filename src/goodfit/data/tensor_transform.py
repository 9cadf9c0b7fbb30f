"""The transform of tensors of one fixed shape: float32 as given, standardised per feature or channel."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from goodfit.data.transforms import Normalization
from goodfit.errors import ConfigError, DataError

__all__ = ["TensorTransform", "as_float32", "fit_tensor_transform"]

CHUNK = 1 << 18  # numbers in float64 at a time: 2 MB, which stay in the cache


@dataclass(frozen=True)
class TensorTransform:
    """Examples of `shape`, less `mean` and over `std`: one of each per feature of (F,), per channel of (C, ...)."""

    shape: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if not self.shape or len(values) != self.shape[0] or not all(map(math.isfinite, values)):
                raise ValueError(f"{name} is {list(values)}, not a finite number for each of the first of {self.shape}")
        if min(self.std) <= 0:
            raise ValueError(f"std is {list(self.std)}, not positive")

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one example."""
        return self.shape

    @property
    def notes(self) -> tuple[str, ...]:
        """Nothing that a user should be told: every number is taken in."""
        return ()

    def encode(self, examples: Any) -> Tensor:
        """Return (N, *shape) float32 from an array, tensor or list of examples, or of a single one.

        Raises DataError for another shape, or for a number that is not finite.
        """
        tensor = as_float32(examples, "the input")
        if tuple(tensor.shape) == self.shape:
            tensor = tensor.unsqueeze(0)
        if tuple(tensor.shape[1:]) != self.shape:
            many = ", ".join(map(str, ("N", *self.shape)))
            raise DataError(f"the input has shape {tuple(tensor.shape)}; this model takes ({many}), or one {self.shape}")
        return tensor

    def normalize(self, stored: Tensor) -> Tensor:
        """Return (N, *shape) float32 on the batch's device."""
        return self._normalization(stored)

    def to_json(self) -> dict[str, Any]:
        """Return the description as JSON values."""
        return {"kind": "tensor"} | {name: list(values) for name, values in asdict(self).items()}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "TensorTransform":
        """Rebuild the transform from `to_json` without its kind; raise KeyError, TypeError or ValueError for others."""
        kinds = (("shape", int), ("mean", float), ("std", float))
        return cls(**fields | {name: tuple(map(kind, fields[name])) for name, kind in kinds})

    @property
    def is_identity(self) -> bool:
        """Whether nothing is done to the examples."""
        return self._normalization.is_identity

    @cached_property
    def _normalization(self) -> Normalization:
        return Normalization(self.mean, self.std)


def fit_tensor_transform(
    inputs: Tensor,
    rows: Tensor,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
) -> TensorTransform:
    """Fit on the examples `rows` (N,) int64 of `inputs` (M, ...) float32.

    The deviation is the population's; a feature or channel that does not vary gets 1, and so becomes zeros. A `mean` or
    `std` that is given, one number or one per feature or channel, is taken instead; raises ConfigError where it does not fit.
    """
    shape = tuple(inputs.shape[1:])
    fitted = _mean_and_deviation(inputs, rows) if mean is None or std is None else ((), ())
    mean, std = (
        own if given is None else tuple(given) if isinstance(given, Sequence) else (given,) * shape[0]
        for own, given in zip(fitted, (mean, std), strict=True)
    )
    try:
        return TensorTransform(shape, mean, std)
    except ValueError as error:
        raise ConfigError(f"transform.{error}; give one, or {shape[0]}") from error


def _mean_and_deviation(inputs: Tensor, rows: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and deviation of dimension 1, in two passes over chunks in float64.

    In numpy, whose sums do not depend on the number of threads.
    """
    examples, features, numbers = inputs.numpy(), inputs.shape[1], inputs[0].numel()
    chunks = [chunk.numpy() for chunk in torch.split(rows, max(1, CHUNK // numbers))]
    count = len(rows) * numbers // features

    def mean_power(power: int, center: NDArray[np.float64]) -> NDArray[np.float64]:
        total = np.zeros(features)
        for chunk in chunks:
            values = examples[chunk].astype(np.float64).reshape(len(chunk), features, -1)
            total += ((values - center[:, None]) ** power).sum(axis=(0, 2))
        return total / count

    mean = mean_power(1, np.zeros(features))
    std = np.sqrt(mean_power(2, mean))
    tiny = np.finfo(np.float32).tiny  # one over less than this is infinite in float32
    return tuple(mean.tolist()), tuple(np.where(std > tiny, std, 1.0).tolist())


def as_float32(values: Any, what: str) -> Tensor:
    """Return `values`, an array, tensor or list of numbers or booleans, as a contiguous float32 tensor on the CPU.

    float32 memory is shared, not copied. Raises DataError for text, objects and ragged lists, and for NaN, infinity and
    numbers past float32, with the place.
    """
    array = as_array(values, what)
    if not array.ndim:
        raise DataError(f"{what} is {array.item()!r:.60}; an array of examples is needed")
    if array.dtype.kind not in "fiub":
        raise DataError(f"{what} holds {array.dtype} values; numbers are needed: encode text first, or pass a table file")
    with np.errstate(over="ignore"):  # becomes infinity, reported below with the number itself
        numbers = np.require(array, np.float32, ["C", "W"])
    tensor = torch.from_numpy(numbers)
    if not tensor.isfinite().all():
        row, *index = place = tuple(torch.argwhere(~tensor.isfinite())[0].tolist())
        where = f"row {row}" + (f", column {index[0]}" if len(index) == 1 else f", index {tuple(index)}" if index else "")
        raise DataError(f"{what} has {array[place]} in {where}; remove or replace what is not a finite 32-bit number")
    return tensor


def as_array(values: Any, what: str) -> NDArray[Any]:
    """Return an array, a tensor on any device or a nested list as a numpy array; raise DataError where it is not one."""
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        values = values.float() if values.dtype == torch.bfloat16 else values
    try:
        return np.asarray(values)
    except (RuntimeError, TypeError, ValueError) as error:
        raise DataError(f"{what} is not one array of numbers: {error}; give every example the same shape") from error
