"""Who measures when: one process at work at a time, in pairs, and what the pairs say.

This side imports no torch: a child's peak memory would begin where its parent's is.
"""

import statistics
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any, TypeVar

from benchmarks.peers.request import Request
from benchmarks.peers.turns import Turn, take_turn

__all__ = ["Pair", "Spread", "alternate", "in_process", "megabytes", "spread"]

T = TypeVar("T")


@dataclass(frozen=True)
class Pair:
    """Two turns, one right after the other."""

    reference: Turn
    other: Turn


@dataclass(frozen=True)
class Spread:
    """A median and its quartiles."""

    low: float
    middle: float
    high: float

    def shown(self, form: str) -> str:
        """Return them as the tables show them."""
        return f"{self.middle:{form}} ({self.low:{form}} to {self.high:{form}})"


def spread(values: Sequence[float]) -> Spread:
    """Return the median and the quartiles of two values or more."""
    return Spread(*statistics.quantiles(values, n=4, method="inclusive"))


def alternate(reference: str, others: Sequence[str], request: Request, rounds: int) -> dict[str, list[Pair]]:
    """Return `rounds` pairs of turns of the reference with each other; who goes first changes from round to round.

    Every contestant has a process that lives to the end, and a round to warm up.
    """
    pairs: dict[str, list[Pair]] = {name: [] for name in others}
    with ExitStack() as stack:
        processes = {name: stack.enter_context(_process()) for name in (reference, *others)}
        for number in range(rounds + 1):
            for name in others:
                order = (reference, name) if number % 2 else (name, reference)
                turns = {who: processes[who].submit(take_turn, who, request).result() for who in order}
                if number:
                    pairs[name].append(Pair(turns[reference], turns[name]))
            print(f"round {number} of {rounds}", file=sys.stderr, flush=True)
    return pairs


def in_process(function: Callable[..., T], *arguments: Any) -> T:
    """Call a function in a fresh process, and return what it gives."""
    with _process() as process:
        return process.submit(function, *arguments).result()


def megabytes(count: int) -> str:
    """Return a number of bytes as the tables show it."""
    return f"{count / (1 << 20):.0f} MB"


def _process() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"))
