"""The stream loader: step -> batch, from a data set that only the user's code can read."""

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, DistributedSampler, Sampler, WeightedRandomSampler

from goodfit.data.dataset import Split
from goodfit.data.examples import Examples, Labels, Sampling
from goodfit.data.iterables import IterableReader
from goodfit.data.loader import Batch, Loader
from goodfit.data.reading import MapReader, Workers
from goodfit.data.stream import StreamLoader, batches_per_epoch, first_examples, make_loader, read_in_order
from goodfit.distributed import Ranks
from goodfit.errors import ConfigError, DataError

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")

CPU = torch.device("cpu")
COUNT = 20


class Drawing(Dataset[Any]):
    """Its number first, then what it draws; counts how often it is read in this process."""

    def __init__(self, count: int = COUNT) -> None:
        self.count, self.reads = count, 0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        self.reads += 1
        return torch.tensor([index, torch.rand(()), random.random(), np.random.rand()]), index


def split(count: int = COUNT, workers: int = 0, rows: Tensor | None = None, **sampling: Any) -> Split:
    labels = Labels(torch.arange(count), torch.arange(count))
    examples = Examples(MapReader("mine", Drawing(count), workers=Workers(workers)), Sampling(**sampling), labels)
    rows = torch.arange(count) if rows is None else rows
    return Split(examples, rows.clone(), rows)


def make(some: Split, batch_size: int = 4, **options: Any) -> StreamLoader:
    loader = make_loader(some, batch_size, seed=0, device=CPU, **options)
    assert isinstance(loader, StreamLoader)
    return loader


def numbers(batch: Batch) -> list[int]:
    assert isinstance(batch.inputs, Tensor)
    return batch.inputs[:, 0].long().tolist()


def same(one: Batch, other: Batch) -> bool:
    assert isinstance(one.inputs, Tensor)
    assert isinstance(other.inputs, Tensor)
    return torch.equal(one.inputs, other.inputs) and torch.equal(one.targets, other.targets) and one.part == other.part


def test_the_order_is_that_of_the_loader_of_stores() -> None:
    rows = torch.arange(1, COUNT, 2)
    streamed = make(split(rows=rows), 3)
    stored = Loader(Split(torch.arange(COUNT * 1.0).view(-1, 1), rows.clone(), rows), 3, seed=0, device=CPU)
    assert streamed.steps_per_epoch == stored.steps_per_epoch == 3
    for step in range(6):
        batch = streamed(step)
        assert batch.is_ready
        assert numbers(batch) == batch.targets.tolist() == stored(step).targets.tolist()
        assert torch.equal(streamed.positions(step), stored.positions(step))


@pytest.mark.parametrize("workers", [1, 2])
def test_processes_change_nothing(workers: int) -> None:
    alone, together = make(split()), make(split(workers=workers))
    assert all(same(together(step), alone(step)) for step in range(2 * alone.steps_per_epoch))


SAMPLERS = {
    "own order": {},
    "no shuffling": {"shuffles": False},
    "drop_last": {"drop_last": True},
    "weighted": {"batch_sampler": BatchSampler(WeightedRandomSampler([1.0, 3.0] * 9, 15), 4, drop_last=False)},
}


@pytest.mark.parametrize("sampling", SAMPLERS.values(), ids=SAMPLERS)
def test_beginning_anywhere_gives_what_reading_through_gives(sampling: dict[str, Any]) -> None:
    whole = make(split(18, **sampling))
    batches = [whole(step) for step in range(2 * whole.steps_per_epoch)]
    for first in range(len(batches)):
        late = make(split(18, **sampling))
        assert all(same(late(step), batches[step]) for step in range(first, len(batches)))
    assert same(whole(3), batches[3])
    assert same(whole(1), batches[1])


def test_what_is_skipped_is_not_read() -> None:
    some = split()
    data_set = some.inputs.reader.data_set  # type: ignore[union-attr]
    make(some)(4)
    assert data_set.reads == 8  # twice, as it is the first batch that is seen to draw
    make(some)(3)
    assert data_set.reads == 12


def test_without_shuffling_the_order_is_the_data_set_s() -> None:
    loader = make(split(10, shuffles=False))
    assert [numbers(loader(step)) for step in range(3)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert not same(loader(3), loader(0))  # for what is drawn is another in each epoch


def test_a_rest_is_dropped_where_the_loader_does() -> None:
    some = split(10, drop_last=True)
    loader = make(some)
    assert loader.steps_per_epoch == batches_per_epoch(some, 4) == 2
    assert [len(numbers(loader(step))) for step in range(4)] == [4, 4, 4, 4]
    assert numbers(loader(0)) != numbers(loader(2))


def test_a_weighted_sampler_keeps_its_weights() -> None:
    weighted = WeightedRandomSampler([0.0] * 10 + [1.0] * 10, 40)
    some = split(batch_sampler=BatchSampler(weighted, 8, drop_last=False))
    loader = make(some, 8)
    assert loader.steps_per_epoch == batches_per_epoch(some, 8) == 5
    drawn = [number for step in range(5) for number in numbers(loader(step))]
    assert min(drawn) == 10
    assert len(set(drawn)) < len(drawn)
    assert loader.positions(2).tolist() == numbers(loader(2))


class OfManySizes(Sampler[list[int]]):
    """Batches of 1, 2 and 3, others in each epoch."""

    def __init__(self) -> None:
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        return iter([[self.epoch], [1, 2], [3, 4, 5]])


def test_a_batch_sampler_of_the_user_s_is_used_as_it_is() -> None:
    loader = make(split(batch_sampler=OfManySizes()), 3)
    assert [numbers(loader(step)) for step in range(6)] == [[0], [1, 2], [3, 4, 5], [1], [1, 2], [3, 4, 5]]


def test_a_sampler_whose_number_of_batches_changes_is_named() -> None:
    class Growing(OfManySizes):
        def __iter__(self) -> Iterator[list[int]]:
            return iter([[0]] * (self.epoch + 2))

    loader = make(split(batch_sampler=Growing()), 1)
    with pytest.raises(DataError, match="its sampler gives 3 batches in epoch 2 and gave 2 before; give the same number"):
        loader(2)


def test_a_sampler_with_a_memory_is_refused() -> None:
    class Remembering(OfManySizes):
        def __iter__(self) -> Iterator[list[int]]:
            self.epoch += 1
            return super().__iter__()

        def set_epoch(self, epoch: int) -> None:
            pass

    with pytest.raises(DataError, match="its sampler gives other batches each time though it is seeded the same"):
        make(split(batch_sampler=Remembering()), 3)


@pytest.mark.parametrize("sampling", SAMPLERS.values(), ids=SAMPLERS)
def test_the_ranks_slices_make_up_the_batch_of_one_rank(sampling: dict[str, Any]) -> None:
    alone = make(split(18, **sampling))
    together = [make(split(18, **sampling), ranks=Ranks(rank, 3, rank)) for rank in range(3)]
    for step in range(2 * alone.steps_per_epoch):
        batches, expected = [loader(step) for loader in together], alone(step)
        assert torch.equal(torch.cat([batch.inputs for batch in batches]), expected.inputs)  # type: ignore[arg-type]
        for batch in batches:
            assert torch.equal(batch.targets, expected.targets)
            assert numbers(batch) == batch.targets[batch.part].tolist()


def test_targets_that_change_are_named_where_there_are_ranks() -> None:
    some = split()
    some.targets[:] = 0
    with pytest.raises(DataError, match="has another target than when the targets were learned"):
        make(some, ranks=Ranks(1, 2, 1))(0)
    assert make(some)(0).targets.any()  # with one rank they are those that came with the examples


def test_what_ranks_cannot_share_is_refused() -> None:
    iterable = Examples(IterableReader("mine", range(10), False, sizes=(10,)))
    with pytest.raises(ConfigError, match="mine can only be read from its start, by one process"):
        make(Split(iterable, torch.arange(10), torch.arange(10)), ranks=Ranks(0, 2, 0))
    sampler = BatchSampler(DistributedSampler(range(COUNT), 2, 0), 4, drop_last=False)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"mine has a DistributedSampler, .*; leave it out"):
        make(split(batch_sampler=sampler), ranks=Ranks(0, 2, 0))


def test_a_batch_of_more_than_the_data_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"train\.batch_size = 21 is more than the 20 training examples"):
        make(split(), 21)


def test_a_split_is_read_in_order_once_and_the_same_each_time() -> None:
    rows = torch.tensor([2, 5, 11, 12, 19])
    for part in (slice(0, 5), slice(1, 3)):
        ((inputs, targets, is_ready),) = read_in_order(split(rows=rows), part)
        assert isinstance(inputs, Tensor)
        assert inputs[:, 0].tolist() == targets.tolist() == rows[part].tolist()
        assert is_ready
        ((again, _, _),) = read_in_order(split(rows=rows, workers=1), part)
        assert torch.equal(again, inputs)  # type: ignore[arg-type]
    store = Split(torch.arange(20.0).view(-1, 1), rows, rows)
    ((inputs, targets, is_ready),) = read_in_order(store, slice(1, 3))
    assert (inputs[:, 0].tolist(), targets.tolist(), is_ready) == ([5.0, 11.0], [5, 11], False)  # type: ignore[call-overload]


@pytest.mark.parametrize("gives_batches", [False, True])
def test_an_iterable_is_read_from_its_start_in_its_own_order(gives_batches: bool) -> None:
    source: Any = [(torch.tensor([float(number)]), number) for number in range(10)]
    if gives_batches:
        source = DataLoader(source, batch_size=3)
    examples, targets = Examples(IterableReader("mine", source, gives_batches), Sampling(shuffles=False)).measured()
    some = Split(examples, targets.float(), torch.arange(10))
    loader = make(some, 3)
    sizes = [3, 3, 3, 1] if gives_batches else [3, 3, 4]
    assert loader.steps_per_epoch == len(sizes)
    assert [len(numbers(loader(step))) for step in range(len(sizes))] == sizes
    assert numbers(loader(1)) == [3, 4, 5]
    read = torch.cat([inputs for inputs, _, _ in read_in_order(some, slice(0, 10))])  # type: ignore[arg-type]
    assert read[:, 0].tolist() == list(range(10))
    with pytest.raises(DataError, match="only be read from its start"):
        list(read_in_order(some, slice(0, 5)))


def test_the_first_examples_are_those_of_the_training_split() -> None:
    from goodfit.data.dataset import Dataset as Data
    from goodfit.data.tensor_transform import TensorTransform

    some = split(rows=torch.tensor([3, 8, 9]))
    transform = TensorTransform((4,), (0.0,) * 4, (1.0,) * 4)
    inputs, targets = first_examples(Data("mine", "classification", ("a",), transform, {}, {"train": some}), 2, 0)
    assert isinstance(inputs, Tensor)
    assert inputs[:, 0].tolist() == targets.tolist() == [3, 8]
