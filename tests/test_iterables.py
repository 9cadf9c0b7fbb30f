"""Reading what begins at its start: in its own order, the same in every pass."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

from goodfit.data.examples import Examples
from goodfit.data.iterables import IterableReader
from goodfit.errors import DataError


class Counting(IterableDataset[Any]):
    """Counts, and draws."""

    def __init__(self, count: int = 10) -> None:
        self.count, self.epoch = count, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[Any]:
        for index in range(self.count):
            yield torch.tensor([index, self.epoch, torch.rand(()).item()]), index % 2


def measured(source: Any, gives_batches: bool = False) -> Examples:
    return Examples(IterableReader("mine", source, gives_batches)).measured()[0]


def test_examples_are_counted_and_their_targets_learned_in_one_pass() -> None:
    examples, targets = Examples(IterableReader("mine", Counting(), False)).measured()
    assert len(examples) == 10
    assert targets.tolist() == [0, 1] * 5


@pytest.mark.parametrize("gives_batches", [False, True])
def test_reading_from_the_middle_gives_what_a_whole_pass_gives(gives_batches: bool) -> None:
    examples = measured(DataLoader(Counting(), batch_size=4) if gives_batches else Counting(), gives_batches)
    batches = examples.reader.in_order(range(10), 4)
    assert [len(batch) for batch in batches] == [4, 4, 2]
    whole = [inputs for inputs, _ in examples.stream(batches, 0, 3)]
    assert torch.cat(whole)[:, 0].tolist() == list(range(10))  # type: ignore[arg-type]
    assert torch.cat(whole)[:, 1].unique().tolist() == [3]  # type: ignore[arg-type]
    for place in range(3):
        late = [inputs for inputs, _ in examples.stream(batches[place:], 0, 3)]
        assert all(map(torch.equal, late, whole[place:]))


@pytest.mark.parametrize("gives_batches", [False, True])
@pytest.mark.parametrize("now", [8, 14])
def test_another_number_in_a_later_pass_is_named(now: int, gives_batches: bool) -> None:
    data_set = Counting(10)
    examples = measured(DataLoader(data_set, batch_size=2) if gives_batches else data_set, gives_batches)
    data_set.count = now
    found, before = (now // 2, 5) if gives_batches else (now, 10)
    with pytest.raises(DataError, match=rf"mine gives {found} \w+ in this pass and gave {before} in the first; give the same"):
        list(examples.stream(examples.reader.in_order(range(10), 2)))


def test_what_the_source_raises_is_named() -> None:
    class Broken(Counting):
        def __iter__(self) -> Iterator[Any]:
            yield from super().__iter__()
            raise OSError("no more")

    with pytest.raises(DataError, match=r"mine: example 10 cannot be read: OSError: no more; correct it"):
        measured(Broken())


def test_nothing_to_read_is_refused() -> None:
    with pytest.raises(DataError, match="mine has no examples"):
        measured(Counting(0))
