"""Choosing which examples train, validate and test: stratified, by address, the same for the same seed."""

from dataclasses import replace

import torch
from torch import Tensor

from goodfit.data.dataset import Dataset, Part, RawData, Split, SplitName
from goodfit.data.examples import Examples
from goodfit.data.picture_files import PictureFiles
from goodfit.data.transforms import Transform
from goodfit.errors import ConfigError, DataError
from goodfit.randomness import generator

__all__ = ["Rows", "build_dataset", "choose_rows", "encode_parts", "make_splits", "take_number", "take_share"]

Rows = dict[SplitName, tuple[SplitName, Tensor]]  # split -> the part it is taken from, and its rows there


def build_dataset(raw: RawData, *, val: float, test: float, max_train: int, seed: int) -> Dataset:
    """Split the parts, fit the transform on the training examples, and encode every part with it.

    Raises DataError where a split would be left without examples, and ConfigError where `max_train` is less than the classes.
    """
    rows = choose_rows(raw, val=val, test=test, max_train=max_train, seed=seed)
    transform = raw.fit(raw.parts["train"].inputs, rows["train"][1])
    parts = encode_parts(raw, transform)
    notes = (*raw.notes, *transform.notes)
    return Dataset(raw.name, raw.task, raw.classes, transform, parts, make_splits(parts, rows), notes)


def choose_rows(raw: RawData, *, val: float, test: float, max_train: int, seed: int) -> Rows:
    """Say for each split which rows of which part are in it.

    A part that the data bring for themselves is kept whole. `val` is a share of what trains, `test` a share of all.
    """
    rows: Rows = {name: (name, torch.arange(len(part.targets))) for name, part in raw.parts.items() if len(part.targets)}
    if "train" not in rows:
        raise DataError(f"{raw.name} has no training examples; add some, or name other data")
    if "test" not in rows:
        _set_aside(raw, rows, "test", test, seed)
    if "val" not in rows and val > 0:
        _set_aside(raw, rows, "val", val, seed)
    kept = rows["train"][1]
    if len(kept) < len(raw.parts["train"].targets) or 0 < max_train < len(kept):
        _check_can_be_split(raw)
    if 0 < max_train < len(kept):
        if max_train < len(raw.classes):
            raise ConfigError(f"data.max_train = {max_train} is fewer than the {len(raw.classes)} classes; raise it")
        strata = _strata(raw, raw.parts["train"].targets[kept])
        rows["train"] = ("train", kept[take_number(strata, max_train, seed, "max_train")])
    return rows


def encode_parts(raw: RawData, transform: Transform) -> dict[SplitName, Part]:
    """Return the parts with their inputs encoded, if they are not: what the user's own code reads is ready for the model."""
    return {
        name: part if isinstance(part.inputs, Examples | PictureFiles) else replace(part, inputs=transform.encode(part.inputs))
        for name, part in raw.parts.items()
    }


def make_splits(parts: dict[SplitName, Part], rows: Rows) -> dict[SplitName, Split]:
    """Return the splits as rows of the encoded parts."""
    return {
        name: Split(parts[part].inputs, parts[part].targets[kept], kept, parts[part].names)
        for name, (part, kept) in rows.items()
    }


def _check_can_be_split(raw: RawData) -> None:
    inputs = raw.parts["train"].inputs
    if isinstance(inputs, Examples) and not inputs.can_be_split:
        raise DataError(
            f"{raw.name} has an order of its own, so no examples are taken out of it; give val= and test= data of their own, "
            "or --val 0, and leave out data.max_train"
        )


def _set_aside(raw: RawData, rows: Rows, name: SplitName, share: float, seed: int) -> None:
    """Move a share of the training rows to the split `name`."""
    _, train = rows["train"]
    taken = take_share(_strata(raw, raw.parts["train"].targets[train]), share, seed, name)
    stays = torch.ones(len(train), dtype=torch.bool)
    stays[taken] = False
    if not stays.any() or not len(taken):
        raise DataError(f"{raw.name} has {len(train)} examples, too few to set {share:.0%} aside for {name}; add examples")
    rows[name] = ("train", train[taken])
    rows["train"] = ("train", train[stays])


def _strata(raw: RawData, targets: Tensor) -> Tensor:
    """The groups whose shares are kept: the classes, or ten ranges of a number."""
    if raw.task == "classification":
        return targets
    return torch.argsort(torch.argsort(targets, stable=True), stable=True) * 10 // max(1, len(targets))


def take_share(strata: Tensor, share: float, seed: int, purpose: str) -> Tensor:
    """Return the positions, ascending, of a random `share` < 1 of the examples, in equal shares of every stratum.

    Every stratum of two or more examples keeps at least one on either side.
    """
    counts = torch.bincount(strata)
    take = _apportion(counts, share).clamp(min=1).minimum(counts - 1).clamp(min=0)
    return _draw(strata, counts, take, seed, purpose)


def take_number(strata: Tensor, number: int, seed: int, purpose: str) -> Tensor:
    """Return the positions, ascending, of `number` random examples, as `take_share` does, but some of every stratum.

    Where there are more strata than that, the largest have one each.
    """
    counts = torch.bincount(strata)
    take = _apportion(counts, number / len(strata)).maximum(counts.clamp(max=1))
    while take.sum() > number:
        take[take.argmax()] -= 1
    return _draw(strata, counts, take, seed, purpose)


def _apportion(counts: Tensor, share: float) -> Tensor:
    """Say how many of each stratum make up a share of all; what rounding leaves goes to the largest remainders (Hamilton)."""
    exact = counts.double() * share
    take = exact.floor().long()
    left = int(round(int(counts.sum()) * share) - take.sum())
    take[torch.argsort(exact - take, descending=True, stable=True)[:left]] += 1
    return take


def _draw(strata: Tensor, counts: Tensor, take: Tensor, seed: int, purpose: str) -> Tensor:
    order = torch.randperm(len(strata), generator=generator(seed, "split", purpose))
    by_stratum = order[torch.argsort(strata[order], stable=True)]
    place = torch.arange(len(strata)) - torch.repeat_interleave(counts.cumsum(0) - counts, counts)
    return by_stratum[place < torch.repeat_interleave(take, counts)].sort().values
