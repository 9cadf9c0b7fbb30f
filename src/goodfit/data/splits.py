"""Choosing which examples train, validate and test: stratified, by address, the same for the same seed."""

from dataclasses import replace

import torch
from torch import Tensor

from goodfit.data.dataset import Dataset, Part, RawData, Split, SplitName
from goodfit.data.transforms import Transform
from goodfit.errors import DataError
from goodfit.randomness import generator

__all__ = ["Rows", "build_dataset", "choose_rows", "encode_parts", "make_splits", "take_share"]

Rows = dict[SplitName, tuple[SplitName, Tensor]]  # split -> the part it is taken from, and its rows there


def build_dataset(raw: RawData, *, val: float, test: float, max_train: int, seed: int) -> Dataset:
    """Split the parts, fit the transform on the training examples, and encode every part with it.

    Raises DataError where a split would be left without examples.
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
    if max_train:
        kept = rows["train"][1]
        strata = _strata(raw, raw.parts["train"].targets[kept])
        rows["train"] = ("train", kept[take_share(strata, min(1.0, max_train / len(kept)), seed, "max_train")])
    return rows


def encode_parts(raw: RawData, transform: Transform) -> dict[SplitName, Part]:
    """Return the parts with their inputs encoded."""
    return {name: replace(part, inputs=transform.encode(part.inputs)) for name, part in raw.parts.items()}


def make_splits(parts: dict[SplitName, Part], rows: Rows) -> dict[SplitName, Split]:
    """Return the splits as rows of the encoded parts."""
    return {
        name: Split(parts[part].inputs, parts[part].targets[kept], kept, parts[part].names)
        for name, (part, kept) in rows.items()
    }


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
    """Return the positions, ascending, of a random `share` of the examples, in equal shares of every stratum.

    The total is rounded; what rounding leaves over goes to the strata with the largest remainders (Hamilton's method),
    and every stratum of two or more examples keeps at least one on either side.
    """
    counts = torch.bincount(strata)
    exact = counts.double() * share
    take = exact.floor().long()
    left = int(round(len(strata) * share) - take.sum())
    take[torch.argsort(exact - take, descending=True, stable=True)[:left]] += 1
    if share < 1:
        take = take.clamp(min=1).minimum(counts - 1).clamp(min=0)
    order = torch.randperm(len(strata), generator=generator(seed, "split", purpose))
    by_stratum = order[torch.argsort(strata[order], stable=True)]
    place = torch.arange(len(strata)) - torch.repeat_interleave(counts.cumsum(0) - counts, counts)
    return by_stratum[place < torch.repeat_interleave(take, counts)].sort().values
