"""Augmentation does exactly what it says, on pictures made by hand, and its draws do not depend on the ranks."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from goodfit.data.augment import Augmentation, alternating_sides

COUNT, SIDE = 24, 6


class AsNumbers:
    """A transform that leaves the numbers as they are."""

    def normalize(self, stored: Tensor) -> Tensor:
        return stored.float()


def augmented(
    stored: Tensor, targets: Tensor, step: int = 0, part: slice | None = None, sides: Tensor | None = None, **changes: Any
) -> tuple[Tensor, Tensor]:
    augmentation = Augmentation(**changes)
    part = slice(0, len(targets)) if part is None else part
    classes = int(targets.max()) + 1
    shown = {"num_classes": classes, "seed": 0, "step": step, "part": part, "sides": sides}
    return augmentation(stored[part], targets, AsNumbers(), **shown)  # type: ignore[arg-type]


def pictures(count: int = COUNT, height: int = SIDE, width: int = SIDE) -> Tensor:
    """No two pixels of a picture are alike; none is zero."""
    draws = torch.Generator().manual_seed(0)
    pixels = [torch.randperm(255, generator=draws)[: 3 * height * width] + 1 for _ in range(count)]
    return torch.stack(pixels).view(count, 3, height, width).to(torch.uint8)


def targets(count: int = COUNT, classes: int = 3) -> Tensor:
    return torch.arange(count) % classes


def test_nothing_asked_for_nothing_done() -> None:
    inputs, same = augmented(pictures(), targets())
    assert torch.equal(inputs, pictures().float())
    assert torch.equal(same, targets())
    assert not Augmentation().mixes
    assert not Augmentation().needs_pictures


def test_sides_alternate_from_epoch_to_epoch() -> None:
    positions = torch.randperm(100, generator=torch.Generator().manual_seed(2))
    first, second, third = (alternating_sides(0, epoch, positions, 100) for epoch in range(3))
    assert torch.equal(first, ~second)
    assert torch.equal(first, third)
    assert 30 < int(first.sum()) < 70
    assert torch.equal(first[positions.argsort()], alternating_sides(0, 0, torch.arange(100), 100))  # wherever it is in a batch
    assert not torch.equal(first, alternating_sides(1, 0, positions, 100))


def test_the_sides_that_are_given_are_shown() -> None:
    stored, sides = pictures(), torch.arange(COUNT) % 3 == 0
    inputs, _ = augmented(stored, targets(), flip="alternating", sides=sides)
    assert torch.equal(inputs, torch.where(sides.view(-1, 1, 1, 1), stored.flip(-1), stored).float())


def test_a_flip_mirrors_about_half_of_the_pictures() -> None:
    stored = pictures(200)
    inputs, _ = augmented(stored, targets(200), flip=True)
    same = (inputs == stored).flatten(1).all(1)
    mirrored = (inputs == stored.flip(-1)).flatten(1).all(1)
    assert bool((same ^ mirrored).all())
    assert 70 < int(same.sum()) < 130


@pytest.mark.parametrize("reach", [1, 2, 15])
@pytest.mark.parametrize(("fill", "mode"), [("reflect", "reflect"), ("zero", "constant")])
def test_a_crop_is_a_window_of_the_filled_picture(reach: int, fill: str, mode: Any) -> None:
    stored = pictures(60)
    inputs, _ = augmented(stored, targets(60), crop=reach, fill=fill)
    border = ((0, 0), (0, 0), (reach, reach), (reach, reach))
    padded = torch.from_numpy(np.pad(stored.numpy(), border, mode=mode))
    windows = padded.unfold(2, SIDE, 1).unfold(3, SIDE, 1).permute(0, 2, 3, 1, 4, 5)  # (N, down, right, C, H, W)
    found = (windows == inputs[:, None, None]).flatten(3).all(3)
    assert bool(found.flatten(1).any(1).all())
    if reach < SIDE:  # no window comes twice
        places = {tuple(place) for place in found.nonzero()[:, 1:].tolist()}
        assert {row for row, _ in places} == {column for _, column in places} == set(range(2 * reach + 1))


@pytest.mark.parametrize("side", [1, 2, 3])
def test_cutout_blanks_one_square(side: int) -> None:
    stored = pictures(800, 9, 9)
    inputs, _ = augmented(stored, targets(800), cutout=side)
    blank = inputs == 0
    assert torch.equal(blank[:, 0], blank[:, 1])
    assert torch.equal(blank[:, 0], blank[:, 2])
    assert torch.equal(inputs[~blank], stored[~blank].float())
    for square in blank[:, 0]:
        places = square.nonzero()
        height, width = (places.max(0).values - places.min(0).values + 1).tolist()
        assert height * width == len(places)  # one rectangle without holes
        assert max(height, width) <= side  # less where it reaches over the border
    assert bool(blank[:, 0].any(0).all())  # anywhere
    assert int((blank[:, 0].sum((1, 2)) == side * side).sum()) > 400


def test_the_largest_cutout_leaves_nothing() -> None:
    assert not augmented(pictures(), targets(), cutout=2 * SIDE)[0].any()


def test_a_random_change_is_of_one_kind() -> None:
    grey = torch.full((350, 3, SIDE, SIDE), 100, dtype=torch.uint8)
    inputs, _ = augmented(grey, targets(350), rand=1.0)
    changed = (inputs != 100).flatten(1).any(1)
    assert 25 < int(changed.sum()) < 75  # brightness, one kind in seven: nothing else changes a plain grey picture
    assert float(inputs.min()) >= 10 - 0.5  # times 0.1
    assert float(inputs.max()) <= 190 + 0.5  # times 1.9
    assert bool((inputs == inputs[:, :1, :1, :1]).all())


def test_random_changes_keep_the_form_and_grow_with_the_strength() -> None:
    stored = pictures(100, 9, 9)
    moved = []
    for strength in (0.001, 0.3, 1.0):
        inputs, same = augmented(stored, targets(100), rand=strength)
        assert inputs.shape == stored.shape
        assert bool((inputs == inputs.round()).all())
        assert 0 <= float(inputs.min()) <= float(inputs.max()) <= 255
        assert torch.equal(same, targets(100))
        moved.append(float((inputs - stored.float()).abs().mean()))
    assert moved[0] < 1 < moved[1] < moved[2]


def test_geometry_of_a_random_change_keeps_the_middle() -> None:
    stored = torch.zeros(200, 1, 9, 9, dtype=torch.uint8)
    stored[:, :, 4, 4] = 200
    inputs, _ = augmented(stored, targets(200), rand=1.0)
    assert bool((inputs[:, 0].flatten(1).argmax(1) == 4 * 9 + 4).all())


def told_by_channel(classes: Tensor, height: int = 8, width: int = 10) -> Tensor:
    """Pictures whose channel of their class is 1 and whose others are 0, so that a mean over pixels is a target."""
    return F.one_hot(classes)[:, :, None, None].expand(-1, -1, height, width).to(torch.uint8)


@given(st.floats(0.05, 5), st.sampled_from(["mixup", "cutmix"]), st.integers(0, 50))
@settings(deadline=None, max_examples=60)
def test_targets_are_mixed_as_the_pictures_are(alpha: float, kind: str, step: int) -> None:
    stored, classes = told_by_channel(targets()), targets()
    inputs, mixed = augmented(stored, classes, step, **{kind: alpha})
    assert mixed.shape == (COUNT, 3)
    torch.testing.assert_close(mixed.sum(1), torch.ones(COUNT))
    assert bool((mixed >= 0).all())
    torch.testing.assert_close(inputs.mean((2, 3)), mixed)
    if kind == "cutmix":
        assert bool(((inputs == 0) | (inputs == 1)).all())  # cut, not blended
    else:
        assert bool((inputs == inputs[:, :, :1, :1]).all())


def test_mixing_takes_one_partner_and_one_proportion_for_the_batch() -> None:
    classes = torch.arange(COUNT)
    _, mixed = augmented(told_by_channel(classes), classes, mixup=1.0)
    own = mixed.diagonal()
    assert bool((own >= own.min()).all())
    both = [row[row > 0] for row in mixed]
    assert {len(row) for row in both} <= {1, 2}  # itself, or itself and one other
    kept = {round(float(value), 5) for row, value in zip(both, own, strict=True) if len(row) == 2}
    assert len(kept) == 1
    partners = mixed.clone().fill_diagonal_(0).argmax(1)[torch.tensor([len(row) == 2 for row in both])]
    assert len(set(partners.tolist())) == len(partners)


def test_mixup_and_cutmix_together_take_turns() -> None:
    stored, classes = told_by_channel(targets()), targets()
    cut = [bool((augmented(stored, classes, step, mixup=1.0, cutmix=1.0)[0] % 1 == 0).all()) for step in range(60)]
    assert 15 < sum(cut) < 45


CHANGES = {"flip": True, "crop": 2, "cutout": 2, "rand": 1.0}


@given(st.integers(0, COUNT), st.sets(st.sampled_from(sorted(CHANGES)), min_size=1), st.integers(0, 20))
@settings(deadline=None, max_examples=30)
def test_draws_do_not_depend_on_the_rank(cut: int, kinds: set[str], step: int) -> None:
    chosen = {kind: CHANGES[kind] for kind in kinds}
    whole, _ = augmented(pictures(), targets(), step, **chosen)
    parts = [augmented(pictures(), targets(), step, part, **chosen)[0] for part in (slice(0, cut), slice(cut, COUNT))]
    torch.testing.assert_close(torch.cat(parts), whole)


@pytest.mark.parametrize("kind", [*CHANGES, "mixup", "cutmix"])
def test_draws_follow_the_step_alone(kind: str) -> None:
    change = {kind: CHANGES.get(kind, 1.0)}
    first, again, next_step = (augmented(pictures(), targets(), step, **change)[0] for step in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, next_step)


@pytest.mark.parametrize(
    ("change", "mixes", "needs_pictures"),
    [
        ("flip", False, True),
        ("crop", False, True),
        ("cutout", False, True),
        ("rand", False, True),
        ("mixup", True, False),
        ("cutmix", True, True),
    ],
)
def test_what_an_augmentation_needs(change: str, mixes: bool, needs_pictures: bool) -> None:
    augmentation = Augmentation(**{change: 1})
    assert (augmentation.mixes, augmentation.needs_pictures) == (mixes, needs_pictures)
