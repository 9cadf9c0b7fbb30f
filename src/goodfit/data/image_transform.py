"""Preprocessing of pictures: one size and mode, centred on the mean of the training split."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from goodfit.data.images import INTERPOLATIONS, MAX_PIXELS, Geometry, Mode, opened, to_pixels
from goodfit.data.picture_files import PictureFiles
from goodfit.data.transforms import Normalization
from goodfit.errors import ConfigError

__all__ = ["ImageTransform", "fit_image_transform"]

CHUNK_BYTES = 1 << 24  # of pictures looked at in one go when a transform is fitted


@dataclass(frozen=True)
class ImageTransform:
    """Pictures of `height` x `width` pixels in `mode`; `mean` and `std` per channel, for pixels from 0 to 1.

    `resize`, `interpolation` and `plain` are those of `Geometry`.
    """

    mode: Mode
    height: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: tuple[int, ...] | None = None
    interpolation: str = "bilinear"
    plain: bool = False

    def __post_init__(self) -> None:
        if self.mode not in ("RGB", "L"):
            raise ValueError(f"mode is {self.mode!r}, not 'RGB' or 'L'")
        resize = self.resize or ()
        for name, pixels in (("height", self.height), ("width", self.width), *(("resize", pixels) for pixels in resize)):
            if type(pixels) is not int or pixels < 1:
                raise ValueError(f"{name} is {pixels!r}, not a number of pixels")
        if self.height * self.width > MAX_PIXELS:
            raise ValueError(f"{self.height} x {self.width} is too large")
        if resize and (len(resize) > 2 or resize[0] * resize[-1] > MAX_PIXELS):
            raise ValueError(f"resize is {list(resize)}, not the shorter side, or height and width, or it is too large")
        if self.interpolation not in INTERPOLATIONS or type(self.plain) is not bool:
            raise ValueError(f"interpolation is {self.interpolation!r} and plain is {self.plain!r}")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != self.input_shape[0] or not all(math.isfinite(value) for value in values):
                raise ValueError(f"{name} is {list(values)}, not a finite number per channel of {self.mode}")
        if min(self.std) <= 0:
            raise ValueError(f"std is {list(self.std)}, not positive")

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """The shape of one example, (C, H, W)."""
        return self.geometry.shape

    @property
    def notes(self) -> tuple[str, ...]:
        """Nothing that a user should be told: every picture is taken in."""
        return ()

    @property
    def geometry(self) -> Geometry:
        """The form in which pictures are stored."""
        return Geometry(self.mode, self.height, self.width, self.resize, self.interpolation, self.plain)

    def encode(self, examples: Any) -> Tensor:
        """Turn pictures into (N, C, H, W) uint8: a list of paths, PIL images, arrays or tensors, or a batch of them.

        A picture of another size is resized, by default to cover height x width, and cropped at the centre. A uint8 batch
        that has the stored form already is returned as it is. Raises DataError naming a picture that cannot be read.
        """
        if isinstance(examples, Tensor) and examples.dtype == torch.uint8 and examples.shape[1:] == self.input_shape:
            return examples
        stored = torch.empty((len(examples), *self.input_shape), dtype=torch.uint8)
        pixels = stored.numpy()
        for row, example in enumerate(examples):
            with opened(_as_array(example) if isinstance(example, Tensor) else example) as image:
                pixels[row] = to_pixels(image, self.geometry)
        return stored

    def normalize(self, stored: Tensor) -> Tensor:
        """Turn a stored batch into (N, C, H, W) float32, less the mean and over the deviation, on the batch's own device."""
        return self._normalization(stored)

    def undo(self, inputs: Tensor) -> Tensor:
        """Return normalised pictures (N, C, H, W) as they look, from 0 to 1."""
        return self._normalization.undo(inputs).clamp(0, 1)

    def to_json(self) -> dict[str, Any]:
        """Return the description as JSON values, without what is as in files of versions that knew no other way to resize."""
        size = {"mode": self.mode, "height": self.height, "width": self.width}
        given: dict[str, Any] = {} if self.resize is None else {"resize": list(self.resize)}
        given |= {} if self.interpolation == "bilinear" else {"interpolation": self.interpolation}
        given |= {"plain": True} if self.plain else {}
        return {"kind": "image", **size, "mean": list(self.mean), "std": list(self.std), **given}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "ImageTransform":
        """Rebuild the transform from `to_json` without the kind; raise KeyError, TypeError or ValueError if it is not one."""
        numbers = {name: tuple(float(value) for value in fields[name]) for name in ("mean", "std")}
        resize = {} if fields.get("resize") is None else {"resize": tuple(fields["resize"])}
        return cls(**{**fields, **numbers, **resize})

    @cached_property
    def _normalization(self) -> Normalization:
        return Normalization(self.mean, self.std, scale=255.0)


def fit_image_transform(
    inputs: Tensor | PictureFiles,
    rows: Tensor,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
) -> ImageTransform:
    """Return the transform whose mean and deviation are those of the pixels of `inputs[rows]`, to the last bit.

    `inputs` is (M, C, H, W) uint8, `rows` (N,) int64. A `mean` or `std` that is given, one number or one per channel, is
    taken instead; raises ConfigError where it does not fit.
    """
    _, channels, height, width = inputs.shape
    means, deviations = _pixel_statistics(inputs, rows) if mean is None or std is None else ((), ())
    return ImageTransform(
        "RGB" if channels == 3 else "L",
        height,
        width,
        tuple(means) if mean is None else _per_channel("mean", mean, channels),
        tuple(deviations) if std is None else _per_channel("std", std, channels),
    )


def _pixel_statistics(inputs: Tensor | PictureFiles, rows: Tensor) -> tuple[Sequence[float], Sequence[float]]:
    """Return mean and deviation of each channel, in units of the full scale; at least one grey level of deviation."""
    sums = inputs.pixel_sums(rows) if isinstance(inputs, PictureFiles) else _pixel_sums(inputs, rows)
    total = len(rows) * math.prod(inputs.shape[2:])
    means, deviations = [], []
    for first, second in zip(*sums, strict=True):
        means.append(first / (255 * total))
        deviations.append(max(math.sqrt((second * total - first * first) / total**2), 1.0) / 255)
    return means, deviations


def _pixel_sums(inputs: Tensor, rows: Tensor) -> tuple[list[int], list[int]]:
    """Return the sum of the values and of their squares in each channel.

    Whole numbers, so that neither the order nor the number of pictures can round.
    """
    counts = torch.zeros(inputs.shape[1], 256, dtype=torch.int64)
    for some in torch.split(rows, max(1, CHUNK_BYTES // math.prod(inputs.shape[1:]))):
        pictures = inputs[some]
        for channel, count in enumerate(counts):
            count += torch.bincount(pictures[:, channel].flatten(), minlength=256)
    levels = torch.arange(256)
    return (counts * levels).sum(1).tolist(), (counts * levels**2).sum(1).tolist()


def _per_channel(name: str, value: float | Sequence[float], channels: int) -> tuple[float, ...]:
    values = tuple(float(number) for number in (value if isinstance(value, Sequence) else [value]))
    if len(values) == 1:
        values *= channels
    if len(values) != channels:
        raise ConfigError(
            f"transform.{name} has {len(values)} numbers for pictures of {channels} channels; give one, or {channels}"
        )
    if not all(math.isfinite(number) and (name == "mean" or number > 0) for number in values):
        raise ConfigError(f"transform.{name} is {list(values)}; give finite numbers{'' if name == 'mean' else ' above 0'}")
    return values


def _as_array(picture: Tensor) -> Any:
    """Return a tensor as an array of pixels, channels last where they were first."""
    picture = picture.detach().cpu()
    array = (picture.float() if picture.is_floating_point() else picture).numpy()
    channels_first = array.ndim == 3 and array.shape[0] in (1, 3, 4)
    return array.transpose(1, 2, 0) if channels_first else array
