"""Reading a user's map-style data set in batches: in this process or in torch's workers, each example at its own address.

What fails in the user's code comes back as a value, so that it can be named in one line wherever it happened.
"""

import atexit
import pickle
import random
import signal
import threading
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cache
from multiprocessing import active_children
from time import monotonic
from typing import Any

import numpy as np
import torch
from numpy.random import mtrand
from torch.utils.data import DataLoader, Dataset, Subset, default_collate, get_worker_info

from goodfit.errors import DataError, RunError
from goodfit.randomness import generator, reseed
from goodfit.signals import NAMES
from goodfit.user_code import blame, said

__all__ = ["Collate", "MapReader", "Workers", "collate_examples", "listed", "undisturbed"]

LOOK = 1.0  # seconds between looks at whether the workers live
SHOWN = 4  # indices of a batch in a message

Collate = Callable[[list[Any]], Any]


@dataclass(frozen=True)
class Workers:
    """The processes of a DataLoader: its arguments num_workers, worker_init_fn, multiprocessing_context, prefetch_factor."""

    count: int = 0
    init: Callable[[int], None] | None = None
    context: Any = None
    prefetch: int | None = None
    timeout: float = 60.0  # seconds that they may take for one batch


@dataclass(frozen=True)
class MapReader:
    """A map-style data set with its collate function and its workers."""

    name: str
    data_set: Any
    collate: Collate = default_collate
    workers: Workers = field(default_factory=Workers)
    draws: set[bool] = field(default_factory=set)  # {True} once an example was seen to draw at random

    def __len__(self) -> int:
        return len(self.data_set)

    def read(self, batches: Sequence[Sequence[int]], seed: int, epoch: int) -> Generator[Any, None, None]:
        """Give the collated examples of each index batch, in order.

        What they are depends on (seed, epoch, index) alone, and this process's generators stay as they are. Raises DataError
        where the data set fails, and RunError where a worker dies or takes too long.
        """
        addressed = _Addressed(self, seed, epoch)
        if not (self.workers.count and batches):
            for indices in batches:
                with undisturbed():
                    collated, _ = addressed[indices]
                yield _checked(collated, self.name)
            return
        with closing(_Processes(addressed, batches)) as processes:
            for indices in batches:
                collated, draws = processes.take(indices)
                if draws:  # which other processes need not find out again
                    self.draws.add(True)
                yield _checked(collated, self.name)

    def place(self, index: int) -> int:
        """Return the place of an example in the data set that subsets are taken of."""
        data_set: Any = self.data_set
        while isinstance(data_set, Subset):
            data_set, index = data_set.dataset, data_set.indices[index]
        return int(index)

    def in_order(self, rows: Sequence[int], size: int) -> list[Sequence[int]]:
        """Cut `rows` into index batches of `size`."""
        return [rows[start : start + size] for start in range(0, len(rows), size)]


@dataclass(frozen=True)
class _Failure:
    """What the user's code raised, in a form that can travel from a worker."""

    message: str
    error: Exception
    frames: str


class _Addressed(Dataset[Any]):
    """The batches of a reader by their indices, collated, or a _Failure in their place."""

    def __init__(self, reader: MapReader, seed: int, epoch: int) -> None:
        self.reader, self.seed, self.epoch = reader, seed, epoch
        self.failure: _Failure | None = None

    def __getitem__(self, indices: Sequence[int]) -> tuple[Any, bool]:
        """Return the batch, and whether the data set is known to draw at random.

        Seeding for each example takes longer than reading it from memory, so it begins with the first batch that draws.
        """
        draws = self.reader.draws
        if self.failure:
            return self.failure, False
        if not draws:
            reseed(0, "untouched", libraries=True)
            batch = self._read(indices, addressed=False)
            if _next_numbers() == _untouched_numbers():
                return batch, False
            draws.add(True)
        return self._read(indices, addressed=True), True

    def _read(self, indices: Sequence[int], *, addressed: bool) -> Any:
        examples = []
        for index in indices:
            if addressed:
                reseed(self.seed, "example", self.epoch, index, libraries=True)
            try:
                examples.append(self.reader.data_set[index])
            except Exception as error:  # noqa: BLE001  the user's code can raise anything
                place = self.reader.place(index)
                return _failure(f"example {place} cannot be read: {said(error)}; correct it, or leave it out", error)
        try:
            return self.reader.collate(examples)
        except Exception as error:  # noqa: BLE001
            places = [self.reader.place(index) for index in indices]
            return _failure(_uncollated(self.reader.collate, places, examples, error), error)

    def begin(self, worker_id: int) -> None:
        """Make this worker ready: stopping is its parent's business, and its data set is the user's."""
        for name in NAMES:
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), signal.SIG_IGN)
        object.__setattr__(get_worker_info(), "dataset", self.reader.data_set)
        try:
            if self.reader.workers.init:
                self.reader.workers.init(worker_id)
        except Exception as error:  # noqa: BLE001
            self.failure = _failure(f"its worker_init_fn fails: {said(error)}; correct it", error)


class _Processes:
    """torch's workers over addressed batches. They are ended when this is closed, and at the latest with the interpreter."""

    def __init__(self, addressed: _Addressed, batches: Sequence[Sequence[int]]) -> None:
        reader, workers = addressed.reader, addressed.reader.workers
        self._name, self._timeout = reader.name, workers.timeout
        before = active_children()
        try:
            with undisturbed(), _torch_alone():
                self._iterator: Iterator[tuple[Any, bool]] = iter(
                    DataLoader(
                        addressed,
                        batch_size=None,
                        sampler=batches,
                        collate_fn=_same,
                        num_workers=workers.count,
                        worker_init_fn=_begin,
                        multiprocessing_context=workers.context,
                        prefetch_factor=workers.prefetch,
                        timeout=min(LOOK, workers.timeout),
                        generator=generator(addressed.seed, "workers", addressed.epoch),
                    )
                )
        except (AttributeError, TypeError, pickle.PicklingError) as error:
            raise DataError(
                f"{reader.name} cannot be sent to worker processes ({said(error)}); use num_workers=0, or define it, its "
                "transforms and its collate function at the top of a module"
            ) from error
        self._children = [child for child in active_children() if child not in before]
        # The interpreter ends its children with TERM, which these do not hear, and would wait for them for ever.
        atexit.register(self.close)

    def take(self, indices: Sequence[int]) -> tuple[Any, bool]:
        """Return the next batch, which is that of `indices`."""
        patience = monotonic() + self._timeout
        while True:
            try:
                return next(self._iterator)
            except (EOFError, OSError, RuntimeError) as error:  # torch's own: what the data set raises comes as a value
                too_long = "timed out" in str(error) and all(child.is_alive() for child in self._children)
                if too_long and monotonic() < patience:
                    continue
                self._kill()
                batch = f"the batch of {listed(indices)}"
                if too_long:
                    raise RunError(
                        f"the worker processes of {self._name} took longer than {self._timeout:g} s for {batch}; look at these, "
                        "or wait longer with --set data.timeout=SECONDS"
                    ) from error
                raise RunError(
                    f"a worker process of {self._name} died while {batch} was waited for; read with num_workers=0 to see why"
                ) from error

    def close(self) -> None:
        """End the workers."""
        atexit.unregister(self.close)
        self._iterator._shutdown_workers()  # type: ignore[attr-defined]  # waits a little for each to end by itself
        self._kill()

    def _kill(self) -> None:
        for child in self._children:
            child.kill()
            child.join()


def _begin(worker_id: int) -> None:
    info: Any = get_worker_info()
    info.dataset.begin(worker_id)


def _same(batch: Any) -> Any:
    return batch


@contextmanager
def _torch_alone() -> Iterator[None]:
    """Start workers without torch's advice, and without its handler of SIGCHLD, which would raise in the midst of a step."""
    is_main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGCHLD) if hasattr(signal, "SIGCHLD") else None
    if getattr(handler, "__module__", "").startswith("torch."):
        handler = signal.SIG_DFL
    with warnings.catch_warnings():
        for advice in ("Got pickle error", "This DataLoader will create", "This process .* is multi-threaded"):
            warnings.filterwarnings("ignore", advice)
        try:
            yield
        finally:
            if handler is not None and is_main:
                signal.signal(signal.SIGCHLD, handler)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Run the user's code as its own script would, and put torch's, Python's and numpy's generators back as they were.

    What is read during an evaluation may be kept by the data set, and be trained on later.
    """
    kept = torch.default_generator.get_state(), random.getstate(), mtrand.get_bit_generator()
    mtrand.set_bit_generator(_spare_generator())  # copying the state of numpy's own takes 100 times as long
    try:
        with torch.inference_mode(mode=False):
            yield
    finally:
        torch.default_generator.set_state(kept[0])
        random.setstate(kept[1])
        mtrand.set_bit_generator(kept[2])


def _next_numbers() -> tuple[int, int, list[int]]:
    """Draw from the three generators: 62 or 64 bits of each."""
    number = int(torch.empty((), dtype=torch.int64).random_())
    return number, random.getrandbits(64), mtrand.get_bit_generator().random_raw(2).tolist()


@cache
def _untouched_numbers() -> tuple[int, int, list[int]]:
    reseed(0, "untouched", libraries=True)
    return _next_numbers()


@cache
def _spare_generator() -> np.random.MT19937:
    return np.random.MT19937(0)


def collate_examples(collate: Collate, indices: Sequence[int], examples: list[Any], name: str) -> Any:
    """Return the examples as one batch; raise DataError where the collate function fails."""
    try:
        return collate(examples)
    except Exception as error:
        failed = DataError(f"{name}: {_uncollated(collate, indices, examples, error)}")
        raise blame(failed, error) from error


def listed(indices: Sequence[int]) -> str:
    """Name the first examples of a batch."""
    shown = ", ".join(map(str, indices[:SHOWN]))
    return f"examples {shown}" + (", ..." if len(indices) > SHOWN else "")


def _failure(message: str, error: Exception) -> _Failure:
    frames = blame(DataError(message), error).frames
    if get_worker_info() is None:
        return _Failure(message, error, frames)
    try:
        travels = pickle.loads(pickle.dumps(error))  # noqa: S301  our own bytes
    except Exception:  # noqa: BLE001  an exception that does not survive it is said in words
        travels = RuntimeError(said(error))
    travels.add_note(f"in a worker process:\n{frames}")
    return _Failure(message, travels, frames)


def _checked(collated: Any, name: str) -> Any:
    if isinstance(collated, _Failure):
        failed = DataError(f"{name}: {collated.message}")
        failed.frames = collated.frames
        raise failed from collated.error
    return collated


def _uncollated(collate: Collate, places: Sequence[int], examples: list[Any], error: Exception) -> str:
    """Say what is wrong with examples that make no batch: with one of them, if it alone makes none either."""
    for place, example in zip(places, examples, strict=True):
        if _holds_picture(example):
            return f"example {place} is a PIL image, and a model takes tensors; add transforms.ToTensor() to the transform"
        try:
            collate([example])
        except Exception as alone:  # noqa: BLE001  the user's code can raise anything
            return f"example {place} cannot be put into a batch: {said(alone)}; give numbers or tensors"
    return (
        f"{listed(places)} cannot be put together into a batch: {said(error)}; "
        "give all examples one structure and shape, or a collate function of your own"
    )


def _holds_picture(example: Any) -> bool:
    parts = example.values() if isinstance(example, dict) else example if isinstance(example, tuple | list) else [example]
    return any(type(part).__module__.partition(".")[0] == "PIL" for part in parts)
