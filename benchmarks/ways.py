"""What the choices of `auto` give over torch's defaults: float32, the usual memory format, every core.

    python benchmarks/ways.py [--only NAME ...] [--rounds 15] [--compiled]

Each network trains by goodfit's steps on made-up data of its kind, in every combination of precision, memory format and number
of threads, a step of each in turn; with `--compiled` also compiled by torch.compile, on every core. A figure is how many times
as fast as torch's defaults its steps are: the median of the rounds' ratios, and their range. `auto` is what goodfit takes after
its trial.
"""

import argparse
import itertools
import os
import statistics
import tempfile
import time
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

import goodfit
from goodfit.devices import choose_threads, computing
from goodfit.session import Session
from goodfit.trial import try_out


@dataclass(frozen=True)
class Case:
    """A network and the shape of its examples; `options` are for `goodfit.trainer`."""

    shape: tuple[int, ...]
    examples: int
    options: dict[str, Any]


CASES = {
    "mlp, batch 64": Case((28, 28), 60_000, {"recipe": "mnist-mlp"}),
    "lenet, batch 4": Case((3, 32, 32), 50_000, {"recipe": "cifar10-lenet"}),
    "cifar10-quick, batch 64": Case((3, 32, 32), 50_000, {"recipe": "cifar10-quick"}),
    "convnet (auto, grey)": Case((28, 28), 60_000, {}),
    "whitened-vgg (auto, colour)": Case((3, 32, 32), 50_000, {}),
    "resnet18 (auto, 96 pixels)": Case((3, 96, 96), 2_000, {}),
    "table of 20 columns": Case((20,), 20_000, {}),
}
PRECISIONS, FORMATS = ("fp32", "bf16"), (torch.contiguous_format, torch.channels_last)


class Way(NamedTuple):
    """A way of computing a step."""

    precision: str
    memory_format: torch.memory_format
    threads: int
    compiled: bool = False

    def __str__(self) -> str:
        memory_format = str(self.memory_format)[6:].removesuffix("_format").replace("_", " ")
        return f"{self.precision}, {memory_format}, {self.threads}{', compiled' * self.compiled}"


CORES = choose_threads(0)
EAGER = [Way(*parts) for parts in itertools.product(PRECISIONS, FORMATS, sorted({CORES, 1}, reverse=True))]
COMPILED = [
    Way(precision, memory_format, CORES, compiled=True) for precision, memory_format in itertools.product(PRECISIONS, FORMATS)
]


def made_up(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Random examples, bytes for pictures and numbers for a table, of ten classes."""
    draw = np.random.default_rng(0)
    shape = (case.examples, *case.shape)
    inputs = draw.standard_normal(shape, np.float32) if len(case.shape) == 1 else draw.integers(0, 256, shape, np.uint8)
    return inputs, draw.integers(0, 10, case.examples)


def session(case: Case, data: Any, way: Way) -> Session:
    settings = {"train.precision": way.precision, "train.threads": way.threads}
    made = goodfit.trainer(data, settings=settings, **case.options)
    if way.memory_format is torch.contiguous_format:
        made.trainer.channels_last = False
        made.model.to(memory_format=way.memory_format)
    if way.compiled:
        made.model.compile()
    return made


def step(made: Session, way: Way) -> float:
    """Return the seconds of one step."""
    with computing(made.device, way.threads, deterministic=True):
        started = time.perf_counter()
        float(next(made.trainer.steps()).loss)
        return time.perf_counter() - started


def measure(case: Case, ways: list[Way], rounds: int) -> tuple[dict[Way, list[float]], dict[Way, float], str]:
    """Return how many times as fast each way is as the first in every round, the seconds of its first step, and `auto`'s way."""
    torch.compiler.reset()  # it compiles no more than so many networks
    data = made_up(case)
    formats = FORMATS if len(case.shape) > 1 and case.options.get("recipe") != "mnist-mlp" else FORMATS[:1]
    ways = [way for way in ways if way.memory_format in formats and not (way.compiled and way.memory_format is not formats[-1])]
    sessions = {way: session(case, data, way) for way in ways}
    first = {way: step(sessions[way], way) for way in ways}
    seconds: dict[Way, list[float]] = {way: [] for way in ways}
    for number in range(rounds + 1):
        for way in ways if number % 2 else reversed(ways):
            seconds[way].append(step(sessions[way], way))
    plain = seconds[ways[0]]
    ratios = {way: [a / b for a, b in zip(plain[1:], taken[1:], strict=True)] for way, taken in seconds.items()}
    chosen = try_out(goodfit.trainer(data, **case.options).plan, lambda _: None).config.train
    return ratios, first, f"{chosen.precision}, {chosen.threads} thread{'s' * (chosen.threads > 1)}"


def main() -> None:
    """Print the table, a line at a time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=CASES, default=list(CASES), metavar="NAME")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--compiled", action="store_true", help="compile each network too, and say how long that takes")
    options = parser.parse_args()
    ways = EAGER + COMPILED * options.compiled
    print(f"| network | {' | '.join(map(str, ways))} | auto takes |\n|{' --- |' * (len(ways) + 2)}")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GOODFIT_CACHE"] = folder
        for name in options.only:
            ratios, first, chosen = measure(CASES[name], ways, options.rounds)
            cells = [_cell(ratios[way], first[way] if way.compiled else None) if way in ratios else "" for way in ways]
            print(f"| {name} | {' | '.join(cells)} | {chosen} |", flush=True)


def _cell(ratios: list[float], compiling: float | None) -> str:
    after = "" if compiling is None else f" after {compiling:.0f} s"
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}){after}"


if __name__ == "__main__":
    main()
