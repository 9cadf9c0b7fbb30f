"""A torchvision transform read as data: what it does to a picture, without calling it.

Only exact types of torchvision are read, and only where goodfit repeats them: the model input is the same to the rounding
of float32. Everything else is named, so that the data set can be used through its own code.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from goodfit.data.image_transform import ImageTransform
from goodfit.data.images import INTERPOLATIONS, Mode
from goodfit.errors import DataError

__all__ = ["Composed", "read_compose"]

# What a step is given: a PIL image, a uint8 tensor, a float32 tensor from 0 to 1, or that normalised.
PICTURE, BYTES, FRACTIONS, NORMALIZED = range(4)
DRAWING = {  # and all whose name begins with Random
    "AugMix",
    "AutoAugment",
    "ColorJitter",
    "ElasticTransform",
    "GaussianBlur",
    "GaussianNoise",
    "RandAugment",
    "ScaleJitter",
    "TrivialAugmentWide",
}
OWN = "code of your own"


@dataclass(frozen=True)
class Composed:
    """What a transform does, in its order: `mode`, `resize`, centre `crop`, random changes, `mean` and `std`.

    `unread` names the steps that are not read, each with the reason; the rest means nothing if there are any. `own` are the
    names of those that are the user's code.
    """

    mode: Mode | None = None  # None: as the pictures are
    repeats_grey: bool = False  # "RGB", but of grey: the same as "RGB" only for pictures that are grey
    resize: tuple[int, ...] | None = None  # (s,): the shorter side to s; (h, w): to that
    interpolation: str = "bilinear"
    crop: tuple[int, int] | None = None  # (h, w)
    flip: bool = False
    shift: int = 0  # the padding of a random crop
    shift_size: tuple[int, int] | None = None  # what a random crop leaves, (h, w)
    fill: str = "reflect"  # of what a random crop finds beyond the border
    mean: tuple[float, ...] | None = None  # None: there is no transform at all
    std: tuple[float, ...] | None = None
    unread: tuple[str, ...] = ()
    own: tuple[str, ...] = ()
    random: bool = False  # whether a step is known to draw, read or not

    @property
    def settings(self) -> dict[str, Any]:
        """The configuration values that mean the same as the random steps."""
        crop = {"augment.crop": self.shift, "augment.fill": self.fill} if self.shift else {}
        return ({"augment.flip": True} if self.flip else {}) | crop

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width that a picture of `height` x `width` comes out with."""
        if self.crop:
            return self.crop
        if self.resize and len(self.resize) == 2:
            return self.resize
        if self.resize:
            (side,) = self.resize
            return (side * height // width, side) if width <= height else (side, side * width // height)
        return height, width

    def repeats(self, mode: Mode, height: int, width: int) -> bool:
        """Whether goodfit does the same to pictures of this mode and size; their size does not matter where there is a crop."""
        size = self.output_size(height, width)
        return not self.unread and self.shift_size in (None, size) and not (self.repeats_grey and mode == "RGB")

    def image_transform(self, mode: Mode, height: int, width: int, *, plain: bool = False) -> ImageTransform:
        """Return the fixed part as the transform of pictures that are in `mode` and of `height` x `width`.

        Pictures of other sizes get the same size. Raises DataError where mean and deviation do not fit the channels.
        """
        mode = self.mode or mode
        channels = 3 if mode == "RGB" else 1
        mean, std = (self._per_channel(values or (), channels) for values in (self.mean, self.std))
        resize = self.resize or (() if self.crop else None)
        try:
            size = self.output_size(height, width)
            return ImageTransform(mode, *size, mean, std, resize, self.interpolation, plain)
        except ValueError as error:
            raise DataError(f"the transform of the data set cannot be used: {error}; correct it") from error

    def _per_channel(self, values: tuple[float, ...], channels: int) -> tuple[float, ...]:
        if len(values) not in (1, channels):
            raise DataError(
                f"Normalize(mean={list(self.mean or ())}, std={list(self.std or ())}) is for {len(values)} channels, and the "
                f"pictures have {channels}; give one number for each, such as Normalize({[0.5] * channels}, {[0.5] * channels})"
            )
        return values * (channels // len(values))


def read_compose(transform: Any) -> Composed:
    """Read a torchvision `Compose`, of either version, or a single transform; None is no transform at all.

    Nothing is called. Raises DataError for a Normalize whose mean and deviation differ in number, or that comes too early.
    """
    if transform is None:
        return Composed()
    state = _State()
    for step in _steps(transform):
        _read_step(state, step)
    if not state.unread and state.stage < FRACTIONS:
        state.unread.append("no step to float32, such as ToTensor()")
    return replace(state.read, unread=tuple(state.unread), own=tuple(state.own), random=state.random)


@dataclass
class _State:
    """What is known after some of the steps."""

    read: Composed = field(default_factory=lambda: Composed(mean=(0.0,), std=(1.0,)))
    stage: int = PICTURE
    drawn: bool = False  # a random step that is read came before
    random: bool = False
    early: bool = False  # a Normalize came before there was a tensor that it can take
    unread: list[str] = field(default_factory=list)
    own: list[str] = field(default_factory=list)


def _steps(transform: Any) -> list[Any]:
    """Return the steps in their order, those of nested sequences too."""
    if _torchvision_name(transform) == "Compose":
        return [step for part in transform.transforms for step in _steps(part)]
    if type(transform) is torch.nn.Sequential:
        return [step for part in transform for step in _steps(part)]
    return [transform]


def _torchvision_name(step: Any) -> str | None:
    """Return the name of a torchvision class that is the exact type of `step`, None for everything else."""
    kind = type(step)
    ours = kind.__module__.startswith("torchvision.transforms.")
    return kind.__name__ if ours and getattr(sys.modules.get(kind.__module__), kind.__name__, None) is kind else None


def _read_step(state: _State, step: Any) -> None:
    name = _torchvision_name(step)
    if name is None or name == "Lambda":
        own = _own_name(step if name is None else step.lambd)
        state.own.append(own)
        state.unread.append(f"{own} ({OWN})")
        return
    reader = STEPS.get(name)
    reason = reader(state, step) if reader else "goodfit has nothing that does the same"
    state.random |= state.drawn or name in DRAWING or name.startswith("Random")
    if reason:
        state.unread.append(f"{name} ({reason})")


def _own_name(code: Any) -> str:
    """Return the name of a function, or of the class of an object."""
    return str(getattr(code, "__name__", type(code).__name__))


# Each reader takes the state and a step, and changes the state or returns why it cannot be read.


def _read_resize(state: _State, step: Any) -> str:
    if state.stage != PICTURE:
        return "after the pictures became tensors; put it first"
    if state.drawn:
        return "after a random step; put it first"
    if state.read.resize or state.read.crop:
        return "after another change of size"
    size = (step.size,) if isinstance(step.size, int) else tuple(map(int, step.size or ()))
    interpolation = _interpolation(step.interpolation)
    if step.max_size is not None or interpolation not in INTERPOLATIONS or len(size) not in (1, 2):
        return "with max_size or an interpolation that is not read"
    # Without antialias too: on a PIL image torchvision's Resize always does it.
    state.read = replace(state.read, resize=size, interpolation=interpolation)
    return ""


def _interpolation(given: Any) -> str:
    """Return the name of torchvision's enumeration, of Pillow's number, or of text."""
    if isinstance(given, int):
        from PIL import Image

        return Image.Resampling(given).name.lower()
    return str(getattr(given, "value", given)).replace("nearest-exact", "nearest")  # Pillow's nearest is exact


def _read_center_crop(state: _State, step: Any) -> str:
    if state.drawn:
        return "after a random step; put it first"
    if state.stage == NORMALIZED or state.read.crop:
        return "after Normalize or another crop"
    state.read = replace(state.read, crop=_pair(step.size))
    return ""


def _pair(size: Any) -> tuple[int, int]:
    height, *width = (size,) if isinstance(size, int) else map(int, size)
    return height, width[0] if width else height


def _read_grayscale(state: _State, step: Any) -> str:
    if state.stage != PICTURE or state.read.resize or state.read.mode:
        return "after Resize or after the pictures became tensors; put it first"
    grey = step.num_output_channels == 1
    state.read = replace(state.read, mode="L" if grey else "RGB", repeats_grey=not grey)
    return ""


def _read_rgb(state: _State, _step: Any) -> str:
    if state.stage != PICTURE:
        return "after the pictures became tensors; put it first"
    state.read = replace(state.read, mode="RGB", repeats_grey=state.read.mode == "L" or state.read.repeats_grey)
    return ""


def _read_flip(state: _State, step: Any) -> str:
    if step.p != 0.5:
        return f"p={step.p}, and goodfit's own is p=0.5"
    state.read = replace(state.read, flip=True)
    state.drawn = True
    return ""


def _read_random_crop(state: _State, step: Any) -> str:
    padding = step.padding or 0
    sides = set(padding) if isinstance(padding, list | tuple) else {padding}
    black = step.padding_mode == "constant" and step.fill == 0 and state.stage != NORMALIZED
    if len(sides) != 1 or min(sides) < 0 or (sides != {0} and step.padding_mode != "reflect" and not black):
        return f"padding={step.padding}, padding_mode={step.padding_mode!r}: goodfit's own is the same all round, 'reflect' or black"
    if state.read.shift_size:
        return "after another random crop"
    fill = "zero" if black else "reflect"
    state.read = replace(state.read, shift=int(sides.pop()), shift_size=_pair(step.size), fill=fill)
    state.drawn = True
    return ""


def _read_to_tensor(state: _State, _step: Any) -> str:
    return _become(state, FRACTIONS, {PICTURE})


def _read_to_image(state: _State, _step: Any) -> str:
    return _become(state, BYTES, {PICTURE})


def _read_to_dtype(state: _State, step: Any) -> str:
    if step.dtype != torch.float32 or not getattr(step, "scale", True):
        return "to another type than float32, or without scale=True"
    return _become(state, max(state.stage, FRACTIONS), {BYTES, FRACTIONS, NORMALIZED})


def _become(state: _State, stage: int, allowed: set[int]) -> str:
    if state.stage not in allowed:
        return "before ToTensor, or twice"
    if state.early:
        raise DataError(
            "the transform of the data set has Normalize before the step that makes a float tensor, such as ToTensor(), and it "
            "takes nothing else: put Normalize after it"
        )
    state.stage = stage
    return ""


def _read_normalize(state: _State, step: Any) -> str:
    mean, std = (tuple(np.ravel(values).astype(np.float64).tolist()) for values in (step.mean, step.std))
    if len(mean) != len(std):
        raise DataError(f"Normalize has {len(mean)} means and {len(std)} deviations; give as many of each")
    state.read = replace(state.read, mean=mean, std=std)
    state.early = state.stage < FRACTIONS and not state.own
    return _become(state, NORMALIZED, {FRACTIONS})


def _read_nothing(_state: _State, _step: Any) -> str:
    return ""


def _read_classification(state: _State, step: Any) -> str:
    """Read what torchvision's weights bring along: `weights.transforms()`."""
    if state.stage != PICTURE or state.drawn or state.read.resize or state.read.crop:
        return "after another step; use it alone"
    size, interpolation = tuple(step.resize_size), _interpolation(step.interpolation)
    state.read = replace(state.read, resize=size, interpolation=interpolation, crop=_pair(step.crop_size))
    state.stage = FRACTIONS
    return _read_normalize(state, step)


STEPS: dict[str, Callable[[_State, Any], str]] = {
    "CenterCrop": _read_center_crop,
    "ConvertImageDtype": _read_to_dtype,
    "Grayscale": _read_grayscale,
    "Identity": _read_nothing,
    "ImageClassification": _read_classification,
    "Normalize": _read_normalize,
    "PILToTensor": _read_to_image,
    "RGB": _read_rgb,
    "RandomCrop": _read_random_crop,
    "RandomHorizontalFlip": _read_flip,
    "Resize": _read_resize,
    "ToDtype": _read_to_dtype,
    "ToImage": _read_to_image,
    "ToPureTensor": _read_nothing,
    "ToTensor": _read_to_tensor,
}
