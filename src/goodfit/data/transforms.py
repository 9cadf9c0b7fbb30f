"""Preprocessing as data: fitted on the training split, stored in the model file, and the only way in.

A transform has two halves. `encode` turns raw examples into the stored form, once (uint8 pictures, float32 numbers);
`normalize` turns a stored batch into what the model sees, on any device. Every verb uses these two and nothing else.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from goodfit.errors import FileError

__all__ = ["Normalization", "Transform", "transform_from_json"]


class Transform(Protocol):
    """A frozen description of preprocessing that can be written as JSON and read back."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one example as the model sees it: (C, H, W), (F,) or any other fixed shape."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should be told once, such as a column that is left out."""

    def encode(self, examples: Any) -> Any:
        """Turn raw examples into the stored form; raise DataError naming what does not fit."""

    def normalize(self, stored: Any) -> Any:
        """Turn a stored batch into float32 model input on the batch's own device."""

    def to_json(self) -> dict[str, Any]:
        """Return the description as JSON values, with its kind under "kind"."""


@dataclass(frozen=True)
class Normalization:
    """Subtract a mean and divide by a deviation, per channel or feature, in units of the stored value over `scale`."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float = 1.0  # 255 for pictures, so that mean and std are in torchvision's units
    _constants: dict[tuple[torch.device, int], tuple[Tensor, Tensor]] = field(default_factory=dict, repr=False, compare=False)

    def __call__(self, stored: Tensor) -> Tensor:
        """Return (N, len(mean), ...) float32: the stored numbers themselves where nothing is done to them."""
        if self.is_identity and stored.dtype == torch.float32:
            return stored
        factor, shift = self._remembered(stored.device, stored.ndim)
        # In two steps, which round alike wherever an example lies in a batch; in one, parts of it may be computed as another.
        scaled = stored * factor if stored.dtype == torch.float32 else stored.to(torch.float32).mul_(factor)
        return scaled.add_(shift)

    @cached_property
    def is_identity(self) -> bool:
        """Whether every number stays as it is."""
        return self.scale == 1.0 and not any(self.mean) and all(std == 1.0 for std in self.std)

    def _remembered(self, device: torch.device, ndim: int) -> tuple[Tensor, Tensor]:
        key = (device, ndim)
        if key not in self._constants:
            self._constants[key] = self._factor_and_shift(device, ndim)
        return self._constants[key]

    def undo(self, inputs: Tensor) -> Tensor:
        """Return inputs (N, len(mean), ...) in units of the stored value over `scale`: pictures from 0 to 1."""
        shape = (1, -1) + (1,) * (inputs.ndim - 2)
        mean, std = (torch.tensor(values, device=inputs.device).view(shape) for values in (self.mean, self.std))
        return inputs * std + mean

    def _factor_and_shift(self, device: torch.device, ndim: int) -> tuple[Tensor, Tensor]:
        shape = (1, -1) + (1,) * (ndim - 2)
        mean, std = (torch.tensor(values, dtype=torch.float64).view(shape) for values in (self.mean, self.std))
        return (1 / (std * self.scale)).to(device, torch.float32), (-mean / std).to(device, torch.float32)


def transform_from_json(document: dict[str, Any]) -> Transform:
    """Rebuild a transform from its JSON description; raise FileError for a kind or a field this version does not know."""
    from goodfit.data.given_transform import GivenTransform
    from goodfit.data.image_transform import ImageTransform
    from goodfit.data.table_transform import TableTransform
    from goodfit.data.tensor_transform import TensorTransform

    kinds: dict[str, Any] = {
        "given": GivenTransform,
        "image": ImageTransform,
        "table": TableTransform,
        "tensor": TensorTransform,
    }
    fields = dict(document)
    kind = fields.pop("kind", None)
    if not isinstance(kind, str) or kind not in kinds:
        raise FileError(f"unknown transform kind {kind!r}; this file needs a newer goodfit")
    try:
        transform: Transform = kinds[kind].from_json(fields)
    except (KeyError, OverflowError, TypeError, ValueError) as error:
        raise FileError(
            f"the {kind} transform cannot be read: {error}; the file is damaged or needs a newer goodfit"
        ) from error
    return transform
