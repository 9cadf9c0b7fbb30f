"""The loader: step -> batch, every example once an epoch, whatever the order of asking, blocks or ranks."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from goodfit.data.dataset import Split
from goodfit.data.loader import Loader, steps_per_epoch
from goodfit.data.transforms import Normalization
from goodfit.distributed import Ranks
from goodfit.errors import ConfigError

CPU = torch.device("cpu")


def split(count: int) -> Split:
    """Examples whose input is their target, taken from the odd rows of a larger store."""
    store = torch.arange(2 * count + 1, dtype=torch.float32).view(-1, 1)
    rows = torch.arange(count) * 2 + 1
    return Split(store, store[rows, 0].long(), rows)


def make(count: int, batch_size: int, rank: int = 0, world: int = 1, seed: int = 0, whole: bool = False) -> Loader:
    ranks = Ranks(rank, world, rank)
    return Loader(split(count), batch_size, seed=seed, device=CPU, ranks=ranks, whole=whole)


@st.composite
def sizes(draw: st.DrawFn) -> tuple[int, int]:
    count = draw(st.integers(1, 120))
    return count, draw(st.integers(1, count))


@given(sizes(), st.integers(0, 3))
@settings(deadline=None)
def test_every_example_comes_once_an_epoch(size: tuple[int, int], epoch: int) -> None:
    count, batch_size = size
    loader = make(count, batch_size)
    steps = range(epoch * loader.steps_per_epoch, (epoch + 1) * loader.steps_per_epoch)
    batches = [loader(step) for step in steps]
    assert sorted(torch.cat([batch.targets for batch in batches]).tolist()) == [2 * index + 1 for index in range(count)]
    for step, batch in zip(steps, batches, strict=True):
        assert batch.inputs[:, 0].long().tolist() == batch.targets.tolist()
        assert batch.part == slice(0, len(batch.targets))
        assert torch.equal(2 * loader.positions(step) + 1, batch.targets)
    assert all(len(batch.targets) == batch_size for batch in batches[:-1])
    assert 1 <= len(batches[-1].targets) <= batch_size + 1


@pytest.mark.parametrize(
    ("count", "batch_size", "lengths"),
    [(9, 4, [4, 5]), (10, 4, [4, 4, 2]), (8, 4, [4, 4]), (3, 1, [1, 1, 1]), (1, 1, [1]), (5, 5, [5]), (3, 2, [3])],
)
def test_a_last_batch_of_one_joins_the_one_before(count: int, batch_size: int, lengths: list[int]) -> None:
    loader = make(count, batch_size)
    assert steps_per_epoch(count, batch_size) == loader.steps_per_epoch == len(lengths)
    assert [len(loader(step).targets) for step in range(len(lengths))] == lengths


@given(sizes(), st.integers(1, 9), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=50)
def test_blocks_and_the_order_of_asking_do_not_matter(size: tuple[int, int], block: int, random: object) -> None:
    expected, loader = make(*size), make(*size)
    loader.block = block
    steps = list(range(3 * loader.steps_per_epoch))
    in_order = {step: expected(step) for step in steps}
    random.shuffle(steps)  # type: ignore[attr-defined]
    for step in steps[:40]:
        assert torch.equal(loader(step).inputs, in_order[step].inputs)
        assert torch.equal(loader(step).targets, in_order[step].targets)


@given(sizes(), st.integers(2, 4))
@settings(deadline=None, max_examples=50)
def test_the_ranks_slices_make_up_the_batch_of_one_rank(size: tuple[int, int], world: int) -> None:
    alone, together = make(*size), [make(*size, rank=rank, world=world) for rank in range(world)]
    for step in range(alone.steps_per_epoch):
        batches = [loader(step) for loader in together]
        assert torch.equal(torch.cat([batch.inputs for batch in batches]), alone(step).inputs)
        for batch in batches:
            assert torch.equal(batch.targets, alone(step).targets)  # of all ranks, on each
            assert torch.equal(batch.inputs[:, 0].long(), batch.targets[batch.part])


def test_a_rank_gets_the_whole_batch_where_examples_are_mixed() -> None:
    batch = make(20, 8, rank=1, world=2, whole=True)(0)
    assert (len(batch.inputs), batch.part) == (8, slice(0, 8))


def test_a_module_that_writes_on_its_inputs_does_not_change_the_batch_that_is_asked_for_again() -> None:
    loader, expected = make(20, 4), make(20, 4)
    for step in (0, 1, 1, 0, 2, 1):
        inputs = loader(step).inputs
        assert torch.equal(inputs, expected(step).inputs)  # type: ignore[arg-type]
        inputs.zero_()  # type: ignore[union-attr]


def test_the_order_is_another_each_epoch_and_for_each_seed() -> None:
    loader, other = make(50, 50), make(50, 50, seed=1)
    assert loader(0).targets.tolist() != loader(1).targets.tolist()
    assert loader(0).targets.tolist() != other(0).targets.tolist()
    assert loader(0).targets.tolist() == make(50, 50)(0).targets.tolist()


def test_a_batch_of_more_than_the_data_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"train\.batch_size = 21 is more than the 20 training examples; .* up to 20"):
        make(20, 21)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_prepared_batches_have_the_bits_of_batches_that_are_prepared_alone(dtype: torch.dtype) -> None:
    """Whatever the block they came in, and where in it they were."""
    draws = torch.Generator().manual_seed(0)
    store = torch.randint(0, 256, (900, 3, 7, 5), generator=draws).to(dtype)
    normalization = Normalization((0.1, 0.45, 0.3), (0.2, 0.31, 0.7), 255.0)
    made = Split(store, torch.zeros(900, dtype=torch.int64), torch.arange(900))
    plain, prepared = (Loader(made, 13, seed=0, device=CPU, prepare=each) for each in (None, normalization))
    for step in [*range(70), 3, 68, 11, 12, 140]:
        batch = prepared(step)
        assert batch.is_ready
        assert torch.equal(batch.inputs, normalization(plain(step).inputs))  # type: ignore[arg-type]


@pytest.mark.parametrize(("features", "batch_size"), [(3, 8), (3, 16), (20, 32), (784, 5), (1, 1)])
@pytest.mark.parametrize("world", [1, 3])
def test_every_batch_begins_where_torch_would_begin_it(features: int, batch_size: int, world: int) -> None:
    """Products of matrices round otherwise in memory that begins elsewhere."""
    store = torch.randn(100, features)
    made = Split(store, torch.zeros(100, dtype=torch.int64), torch.arange(100))
    loader = Loader(made, batch_size, seed=0, device=CPU, ranks=Ranks(1 if world > 1 else 0, world, 0))
    for step in [*range(loader.steps_per_epoch), 1, 2, 3]:
        inputs = loader(step).inputs
        assert isinstance(inputs, torch.Tensor)
        assert inputs.data_ptr() % 64 == 0
