"""A user's sampler as a function of seed and epoch."""

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler, RandomSampler, Sampler, WeightedRandomSampler

from goodfit.data.samplers import list_batches
from goodfit.errors import DataError


class Drawing(Sampler[int]):
    """Draws from a generator of its own."""

    def __init__(self, own: Any) -> None:
        self.own = own

    def __iter__(self) -> Iterator[int]:
        draw = (
            self.own.integers if isinstance(self.own, np.random.Generator) else lambda low, high: self.own.randrange(low, high)
        )
        return iter([int(draw(0, 20)) for _ in range(20)])


class ByEpoch(Sampler[int]):
    def __init__(self) -> None:
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        return iter([self.epoch] * 4)


def listed(sampler: Any, epoch: int = 0, seed: int = 0) -> list[list[int]]:
    return [batch.tolist() for batch in list_batches(BatchSampler(sampler, 8, False), 20, "mine", seed=seed, epoch=epoch)]


@pytest.mark.parametrize(
    "sampler",
    [
        WeightedRandomSampler([1.0] * 20, 20),
        WeightedRandomSampler([1.0] * 20, 20, generator=torch.Generator()),
        RandomSampler(range(20)),
        Drawing(random.Random(3)),
        Drawing(np.random.default_rng(3)),
    ],
)
def test_batches_depend_on_seed_and_epoch_alone(sampler: Any) -> None:
    state = torch.get_rng_state()
    first = listed(sampler)
    assert [len(batch) for batch in first] == [8, 8, 4]
    assert listed(sampler, epoch=1) != first
    assert listed(sampler, seed=1) != first
    assert listed(sampler) == first
    assert torch.equal(torch.get_rng_state(), state)


def test_the_epoch_is_told() -> None:
    assert listed(ByEpoch(), epoch=7) == [[7, 7, 7, 7]]


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([[0, 1], [20]], "its sampler names example 20, and there are 20; name them from 0 to 19"),
        ([[-1]], "its sampler names example -1"),
        ([[0], []], r"batch 1 of its sampler is \[\]"),
        ([[0.5]], r"batch 0 of its sampler is \[0\.5\]"),
        ([["cat"]], "its sampler cannot be read: .*; let it give batches of indices"),
        ([0, 1], "its sampler cannot be read: TypeError"),
    ],
)
def test_what_names_no_examples_is_refused(batches: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        list_batches(batches, 20, "mine", seed=0, epoch=0)
