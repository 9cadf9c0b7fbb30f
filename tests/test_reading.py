"""Reading a user's map-style data set: the same examples whatever reads them, and every failure named in one line."""

import os
import random
import signal
import time
from collections.abc import Sequence
from multiprocessing import active_children
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, Subset, default_collate, get_worker_info

from goodfit.data.reading import MapReader, Workers
from goodfit.errors import DataError, RunError

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")

BATCHES = [[3, 0], [7], [3, 5, 1]]


class Drawing(Dataset[Any]):
    """Draws from all three generators."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        drawn = [torch.rand(()).item(), random.random(), np.random.rand()]
        return torch.tensor([index, *drawn], dtype=torch.float64), index % 2


class Failing(Dataset[Any]):
    """Does something else for example 5."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Any:
        if index == 5:
            return getattr(self, self.what)()
        return torch.zeros(2), 0

    def fail(self) -> None:
        raise Unkind("a bad byte\nand more", 3)

    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def hang(self) -> None:
        time.sleep(60)

    def picture(self) -> Any:
        return Image.new("L", (2, 2)), 0

    def none(self) -> Any:
        return torch.zeros(2), None

    def longer(self) -> Any:
        return torch.zeros(3), 0


class Unkind(Exception):
    """Cannot be unpickled: its arguments are not those of __init__."""

    def __init__(self, text: str, number: int) -> None:
        super().__init__(text)


def read(data_set: Any, batches: Sequence[Sequence[int]] = BATCHES, epoch: int = 0, **workers: Any) -> list[Any]:
    return list(MapReader("mine", data_set, workers=Workers(**workers)).read(batches, 0, epoch))


@pytest.mark.parametrize("count", [1, 2])
def test_processes_change_nothing(count: int) -> None:
    for alone, together in zip(read(Drawing()), read(Drawing(), count=count), strict=True):
        assert torch.equal(alone[0], together[0])
        assert torch.equal(alone[1], together[1])
    assert not active_children()


def test_an_example_depends_on_its_address_alone() -> None:
    first, _, last = read(Drawing())
    assert torch.equal(first[0][0], last[0][0])  # example 3, in two batches
    assert not torch.equal(first[0][0], read(Drawing(), epoch=1)[0][0][0])
    assert len(set(first[0][0, 1:].tolist())) == 3


class Sometimes(Drawing):
    """Draws for its last examples only."""

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return super().__getitem__(index) if index > 4 else (torch.full((4,), float(index), dtype=torch.float64), 0)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_drawing_may_begin_late(count: int) -> None:
    late = read(Sometimes(), [[1, 2], [3], [0, 7], [5]], count=count)
    for batch, expected in zip(late[2:], read(Drawing(), [[1, 7], [5]]), strict=True):
        assert torch.equal(batch[0][-1], expected[0][-1])


@pytest.mark.parametrize("draw", [lambda: torch.randn(()), lambda: random.gauss(0, 1), lambda: np.random.randn()])
def test_every_generator_is_watched(draw: Any) -> None:
    class One(Drawing):
        def __getitem__(self, index: int) -> Any:
            return float(draw()), 0

    once, again = read(One()), read(One(), BATCHES[1:])
    assert once[0][0][0] == once[2][0][0]  # example 3, in two batches
    assert torch.equal(once[1][0], again[0][0])
    assert len({value.item() for inputs, _ in once for value in inputs}) == 5


@pytest.mark.parametrize("count", [0, 1])
def test_the_generators_of_this_process_stay_as_they_were(count: int) -> None:
    def states() -> list[Any]:
        return [torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state())]

    before = states()
    read(Drawing(), count=count)
    assert states() == before


def test_examples_read_in_an_evaluation_can_be_trained_on() -> None:
    with torch.inference_mode():
        (inputs, _), *_ = read(Drawing())
    assert not inputs.is_inference()


@pytest.mark.parametrize("count", [0, 2])
def test_what_the_data_set_raises_is_named(count: int) -> None:
    with pytest.raises(DataError, match=r"^mine: example 5 cannot be read: Unkind: a bad byte; correct it") as raised:
        read(Failing("fail"), count=count)
    assert "in fail" in raised.value.frames
    assert raised.value.frames.count("File ") == 2  # neither torch nor goodfit
    assert raised.value.__cause__ is not None
    assert "\n" not in str(raised.value)
    assert not active_children()


def test_a_subset_s_example_is_named_as_the_whole_set_has_it() -> None:
    with pytest.raises(DataError, match="example 5 cannot be read"):
        read(Subset(Failing("fail"), [1, 5]), [[0, 1]])


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("picture", r"example 5 is a PIL image, .*; add transforms\.ToTensor\(\)"),
        ("none", r"example 5 cannot be put into a batch: TypeError: .*NoneType"),
        ("longer", r"examples 3, 5, 1 cannot be put together into a batch: .*; give all examples one structure and shape"),
    ],
)
def test_examples_that_make_no_batch_are_named(what: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(Failing(what))


def test_a_process_that_dies_is_named() -> None:
    with pytest.raises(
        RunError, match=r"a worker process of mine died while the batch of examples (7|3, 5, 1) was waited for; .*=0"
    ):
        read(Failing("die"), count=1)
    assert not active_children()


def test_a_process_that_hangs_is_named() -> None:
    with pytest.raises(RunError, match=r"took longer than 0\.4 s for the batch of examples 3, 5, 1; .*data\.timeout"):
        read(Failing("hang"), count=1, timeout=0.4)
    assert not active_children()


def test_a_slow_batch_is_waited_for() -> None:
    class Slow(Drawing):
        def __getitem__(self, index: int) -> Any:
            time.sleep(1.3)
            return super().__getitem__(index)

    assert len(read(Slow(), [[1]], count=1)) == 1


def test_an_unpicklable_data_set_is_refused_where_processes_are_spawned() -> None:
    class Local(Drawing):
        pass

    with pytest.raises(DataError, match=r"mine cannot be sent to worker processes .*Local.*; use num_workers=0, or define it"):
        read(Local(), count=1, context="spawn")


def test_workers_know_the_user_s_data_set_and_hear_no_signals() -> None:
    class Told(Drawing):
        told: Any = None

        def __getitem__(self, index: int) -> Any:
            return torch.tensor([self.told]), int(signal.getsignal(signal.SIGTERM) is signal.SIG_IGN)

    def begin(worker_id: int) -> None:
        get_worker_info().dataset.told = 10 + worker_id  # type: ignore[union-attr]

    ((inputs, heard),) = read(Told(), [[0]], count=1, init=begin)
    assert (inputs.item(), heard.item()) == (10, 1)


def test_a_failing_worker_init_fn_is_named() -> None:
    def begin(_: int) -> None:
        raise KeyError("folder")

    with pytest.raises(DataError, match="its worker_init_fn fails: KeyError: 'folder'"):
        read(Drawing(), count=1, init=begin)


def test_a_failing_collate_function_is_named() -> None:
    def collate(examples: list[Any]) -> Any:
        return default_collate(examples) if len(examples) == 1 else examples[0]["absent"]

    with pytest.raises(DataError, match=r"examples 3, 0 cannot be put together into a batch: TypeError"):
        list(MapReader("mine", Drawing(), collate).read(BATCHES, 0, 0))


def test_processes_end_with_the_reading() -> None:
    reading = MapReader("mine", Drawing(), workers=Workers(2)).read(BATCHES, 0, 0)
    next(reading)
    assert len(active_children()) == 2
    reading.close()
    assert not active_children()


def test_a_process_that_ends_does_not_raise_in_the_midst_of_other_work() -> None:
    def handle(*_: Any) -> None:
        raise AssertionError

    handle.__module__ = "torch.utils.data._utils.signal_handling"  # as the one that torch's own loaders leave behind
    signal.signal(signal.SIGCHLD, handle)
    reading = MapReader("mine", Drawing(), workers=Workers(1)).read(BATCHES, 0, 0)
    next(reading)
    handler = signal.getsignal(signal.SIGCHLD)
    reading.close()
    assert handler is signal.SIG_DFL
