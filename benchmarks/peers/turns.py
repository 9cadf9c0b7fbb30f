"""What happens in a contestant's own process: a whole training, timed from outside the contestant.

All of torch's optimisers call a hook after each update, so that no contestant is changed in order to be measured. Nothing
heavy is imported before a turn begins, as the process that orders the turns imports this module too.
"""

import logging
import os
import resource
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.peers.contestants import CONTESTANTS
from benchmarks.peers.request import Request

if TYPE_CHECKING:
    from benchmarks.peers.works import Work

__all__ = ["Turn", "peak_of_torch", "silence", "take_turn"]


@dataclass(frozen=True)
class Turn:
    """One whole training."""

    examples: int  # trained on, each once an epoch
    updates: int
    seconds: float  # of the updates
    whole: float  # seconds of the call, with all that is done before, between and after them
    cpu: float  # seconds of the processor, over all threads, of the call
    first: float  # time.perf_counter() after the first update, which the processes of a machine share
    peak: int  # bytes that the process has held at most so far


@dataclass
class Watch:
    """The moments of the updates."""

    synchronizes: bool  # a GPU is behind what it was told to do
    expected: int  # updates of the training; a contestant may try some before it
    epochs: int
    times: list[float] = field(default_factory=list)

    def update(self, *_: object) -> None:
        """Take note of one update; of the first and the last when they are done, not only asked for."""
        if self.synchronizes and len(self.times) % self.per_epoch in (0, self.per_epoch - 1):
            import torch

            torch.cuda.synchronize()
        self.times.append(time.perf_counter())

    @property
    def per_epoch(self) -> int:
        """The updates of an epoch."""
        return self.expected // self.epochs

    @property
    def counted(self) -> list[float]:
        """The moments of the training's own updates."""
        return self.times[-self.expected :]

    @property
    def seconds(self) -> float:
        """The time of all updates; the first of an epoch, before which other things are done, as long as the others on average."""
        size, counted = self.per_epoch, self.counted
        epochs = [counted[start : start + size] for start in range(0, self.expected, size)]
        return sum((times[-1] - times[0]) * size / max(1, size - 1) for times in epochs)


def take_turn(name: str, request: Request) -> Turn:
    """Train once from the start; what a contestant prints goes nowhere."""
    with silence():
        train = CONTESTANTS[name].load()
        import torch

        work, watch = _prepare(request)
        watch.times.clear()
        torch.manual_seed(0)
        started, started_cpu = time.perf_counter(), time.process_time()
        train(work)
        whole, cpu = time.perf_counter() - started, time.process_time() - started_cpu
    if len(watch.times) < work.num_updates:
        raise RuntimeError(f"{name} made {len(watch.times)} updates in place of {work.num_updates}")
    examples = work.epochs * len(work.targets)
    return Turn(examples, work.num_updates, watch.seconds, whole, cpu, watch.counted[0], _peak_memory())


def peak_of_torch() -> int:
    """Return the bytes that a process holds which has only imported torch."""
    import torch  # noqa: F401

    return _peak_memory()


@contextmanager
def silence() -> Iterator[None]:
    """Send what is printed, logged and warned of nowhere."""
    logging.disable(logging.CRITICAL)
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@cache
def _prepare(request: Request) -> tuple["Work", Watch]:
    """Read the data, once a process, and let torch's optimisers tell of their updates."""
    from torch.optim.optimizer import register_optimizer_step_post_hook

    from benchmarks.peers.works import make_work

    work = make_work(request)
    watch = Watch(request.device == "cuda", work.num_updates, work.epochs)
    register_optimizer_step_post_hook(watch.update)
    return replace(work, updated=watch.update), watch


def _peak_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
