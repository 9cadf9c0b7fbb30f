"""Random changes of a training batch, batched on its device.

Every draw is made for the whole global batch at the address ("augment", step), so it does not depend on the ranks.
Geometry works on stored bytes; colour, cutout and mixing on normalised numbers.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from goodfit.data.transforms import Transform
from goodfit.devices import upload
from goodfit.randomness import address, generator

__all__ = ["Augmentation", "alternating_sides", "shift"]

# What one random change of `rand` does at strength 1; each example gets one of them, from -1 to 1 times this.
ROTATION = math.pi / 6  # radians
SHEAR = 0.3
ZOOM = 0.3
COLOUR = 0.9  # of brightness, contrast or saturation
NUM_CHANGES = 7


@dataclass(frozen=True)
class Augmentation:
    """What is done to training examples, at random: see the configuration's section `augment` for the units.

    mixup: Zhang et al. 2018; cutmix: Yun et al. 2019; cutout: DeVries and Taylor 2017; `rand` applies one change of
    geometry or colour per example in the spirit of RandAugment (Cubuk et al. 2020) and TrivialAugment (2021).
    """

    flip: bool | Literal["alternating"] = False
    crop: int = 0
    fill: Literal["reflect", "zero"] = "reflect"
    cutout: int = 0
    rand: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0

    @property
    def mixes(self) -> bool:
        """Whether examples of the batch are mixed, so that each rank needs all of them."""
        return bool(self.mixup or self.cutmix)

    @property
    def needs_pictures(self) -> bool:
        """Whether anything is asked for that only pictures can have done to them."""
        return bool(self.flip or self.crop or self.cutout or self.rand or self.cutmix)

    @property
    def is_nothing(self) -> bool:
        """Whether examples stay as they are."""
        return not (self.needs_pictures or self.mixes)

    def __call__(
        self,
        stored: Tensor,
        targets: Tensor,
        transform: Transform,
        *,
        num_classes: int,
        seed: int,
        step: int,
        part: slice,
        sides: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return model inputs and targets of one batch.

        `stored` (n, ...) are the examples `part` of the batch, `targets` (N,) all of them; `sides` (N,) says which are flipped
        where that alternates, see `alternating_sides`. Targets come back as (N,), or as (N, num_classes) probabilities where
        examples were mixed.
        """
        if self.is_nothing:
            return transform.normalize(stored), targets
        draws = generator(seed, "augment", step)
        count = len(targets)
        if self.crop:
            shifts = torch.randint(0, 2 * self.crop + 1, (2, count), generator=draws)[:, part]
            stored = shift(stored, self.crop, self.fill, *upload(shifts, stored.device))
        if self.flip:
            flipped = torch.rand(count, generator=draws) < 0.5 if sides is None else sides
            flipped = upload(flipped[part], stored.device)
            stored = torch.where(flipped.view(-1, 1, 1, 1), stored.flip(-1), stored)
        if self.rand:
            kinds = torch.randint(0, NUM_CHANGES, (count,), generator=draws)[part]
            strengths = (torch.rand(count, generator=draws) * 2 - 1)[part] * self.rand
            changes = F.one_hot(kinds, NUM_CHANGES) * strengths[:, None]
            if len(stored):  # a rank may have none of a small batch
                stored = _change(stored, upload(changes.float(), stored.device))
        inputs = transform.normalize(stored)
        if self.cutout:
            centres = upload(torch.rand(2, count, generator=draws)[:, part], inputs.device)
            inputs = _blank(inputs, self.cutout, *centres)
        if self.mixes:
            return self._mix(inputs, F.one_hot(targets, num_classes).float(), draws, address(seed, "augment", step))
        return inputs, targets

    def _mix(self, inputs: Tensor, targets: Tensor, draws: torch.Generator, number: int) -> tuple[Tensor, Tensor]:
        """Mix each example with another of the batch, all in the same proportion."""
        partner = upload(torch.randperm(len(targets), generator=draws), inputs.device)
        cut = bool(self.cutmix) and (not self.mixup or bool(torch.rand((), generator=draws) < 0.5))
        alpha = self.cutmix if cut else self.mixup
        kept = float(np.random.default_rng(number).beta(alpha, alpha))
        if cut:
            box, kept = _box(inputs.shape[-2], inputs.shape[-1], kept, draws)
            inputs = inputs.clone()
            inputs[..., box[0], box[1]] = inputs[partner][..., box[0], box[1]]
        else:
            inputs = torch.lerp(inputs[partner], inputs, kept)
        return inputs, torch.lerp(targets[partner], targets, kept)


def alternating_sides(seed: int, epoch: int, positions: Tensor, count: int) -> Tensor:
    """Say which of the examples at `positions` (N,) among `count` are flipped: half of them at first, and then in turn.

    In two epochs a model sees both sides of each picture, which is worth more than as many that are drawn (Jordan 2024).
    """
    return _first_sides(seed, count)[positions] ^ bool(epoch % 2)


@lru_cache(maxsize=1)
def _first_sides(seed: int, count: int) -> Tensor:
    return torch.rand(count, generator=generator(seed, "flip")) < 0.5


def shift(pictures: Tensor, reach: int, fill: str, down: Tensor, right: Tensor) -> Tensor:
    """Shift each picture (N, C, H, W) by up to `reach` pixels, filling the border by reflection or with zeros.

    `down` and `right` (N,) are from 0 to 2 * `reach`, of which `reach` is no shift.
    """
    height, width = pictures.shape[-2:]
    if fill == "zero":
        padded = F.pad(pictures, (reach, reach, reach, reach))
    else:
        rows, columns = (upload(_reflected(size, reach), pictures.device) for size in (height, width))
        padded = pictures.index_select(2, rows).index_select(3, columns)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # (N, C, 2 reach + 1, 2 reach + 1, H, W), a view
    return windows[torch.arange(len(pictures), device=pictures.device), :, down, right]


def _reflected(size: int, reach: int) -> Tensor:
    """The indices that extend 0 .. size - 1 by `reach` on both sides, reflected as often as needed."""
    places = torch.arange(-reach, size + reach)
    period = max(1, 2 * (size - 1))
    folded = places.remainder(period)
    return torch.minimum(folded, period - folded)


def _change(stored: Tensor, changes: Tensor) -> Tensor:
    """Apply one change to each picture; `changes` (N, 7) holds its signed strength in the column of its kind."""
    rotate, shear_x, shear_y, zoom, brightness, contrast, saturation = changes.unbind(1)
    cosine, sine = torch.cos(rotate * ROTATION), torch.sin(rotate * ROTATION)
    scale, zero = 1 + zoom * ZOOM, torch.zeros_like(zoom)
    first_row = torch.stack([cosine * scale, shear_x * SHEAR - sine, zero], 1)
    second_row = torch.stack([shear_y * SHEAR + sine, cosine * scale, zero], 1)
    grid = F.affine_grid(torch.stack([first_row, second_row], 1), list(stored.shape), align_corners=False)
    pictures = F.grid_sample(stored.float(), grid, padding_mode="border", align_corners=False)

    amount = changes.new_ones(()) + COLOUR * torch.stack([brightness, contrast, saturation])[..., None, None, None]
    pictures = pictures * amount[0]
    mean = pictures.mean((1, 2, 3), keepdim=True)
    pictures = torch.lerp(mean, pictures, amount[1])
    grey = pictures.mean(1, keepdim=True)
    pictures = torch.lerp(grey, pictures, amount[2])
    # Back to bytes, so that everything after sees the stored form.
    return pictures.round_().clamp_(0, 255).to(torch.uint8)


def _blank(inputs: Tensor, side: int, down: Tensor, right: Tensor) -> Tensor:
    """Set a square of each picture to the mean (zero, once normalised); it may reach over the border."""
    height, width = inputs.shape[-2:]
    rows = torch.arange(height, device=inputs.device) - (down[:, None] * height).floor()
    columns = torch.arange(width, device=inputs.device) - (right[:, None] * width).floor()
    low, high = -(side // 2), side - side // 2
    in_rows, in_columns = ((places >= low) & (places < high) for places in (rows, columns))
    return inputs.masked_fill((in_rows[:, :, None] & in_columns[:, None, :])[:, None], 0.0)


def _box(height: int, width: int, kept: float, draws: torch.Generator) -> tuple[tuple[slice, slice], float]:
    """Draw a box of 1 - `kept` of the picture; return it and the share that is really kept, for it is cut at the border."""
    half_height, half_width = (size * math.sqrt(1 - kept) / 2 for size in (height, width))
    y, x = (torch.rand(2, generator=draws) * torch.tensor([height, width])).tolist()
    rows = slice(max(0, round(y - half_height)), min(height, round(y + half_height)))
    columns = slice(max(0, round(x - half_width)), min(width, round(x + half_width)))
    area = (rows.stop - rows.start) * (columns.stop - columns.start)
    return (rows, columns), 1 - area / (height * width)
