"""What the choices of `auto` give over torch's defaults: float32, the usual memory format, every core.

    python benchmarks/ways.py [--only NAME ...] [--rounds 15]

Each network trains by goodfit's steps on made-up data of its kind, in every combination of precision, memory format and number
of threads, a step of each in turn. A figure is how many times as fast as torch's defaults its steps are: the median of the
rounds' ratios. `auto` is what goodfit takes after its trial.
"""

import argparse
import itertools
import os
import statistics
import tempfile
import time
from dataclasses import dataclass
from typing import Any

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
    "convnet (auto, grey), batch 256": Case((28, 28), 60_000, {}),
    "whitened-vgg (auto, colour), batch 256": Case((3, 32, 32), 50_000, {}),
    "resnet18 (auto, 96 pixels), batch 64": Case((3, 96, 96), 2_000, {}),
    "table of 20 columns": Case((20,), 20_000, {}),
}
PRECISIONS, FORMATS = ("fp32", "bf16"), (torch.contiguous_format, torch.channels_last)
Way = tuple[str, torch.memory_format, int]
WAYS: list[Way] = list(itertools.product(PRECISIONS, FORMATS, sorted({choose_threads(0), 1}, reverse=True)))


def made_up(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Random examples, bytes for pictures and numbers for a table, of ten classes."""
    draw = np.random.default_rng(0)
    shape = (case.examples, *case.shape)
    inputs = draw.standard_normal(shape, np.float32) if len(case.shape) == 1 else draw.integers(0, 256, shape, np.uint8)
    return inputs, draw.integers(0, 10, case.examples)


def session(case: Case, data: Any, way: Way) -> Session:
    precision, memory_format, threads = way
    settings = {"train.precision": precision, "train.threads": threads}
    made = goodfit.trainer(data, settings=settings, **case.options)
    if memory_format is torch.contiguous_format:
        made.trainer.channels_last = False
        made.model.to(memory_format=memory_format)
    return made


def step(made: Session, way: Way) -> float:
    """Return the seconds of one step."""
    with computing(made.device, way[2], deterministic=True):
        started = time.perf_counter()
        float(next(made.trainer.steps()).loss)
        return time.perf_counter() - started


def measure(case: Case, rounds: int) -> tuple[dict[Way, float], str]:
    """Return how many times as fast each way is as torch's defaults, and what `auto` takes."""
    data = made_up(case)
    formats = FORMATS if len(case.shape) > 1 and case.options.get("recipe") != "mnist-mlp" else FORMATS[:1]
    ways = [way for way in WAYS if way[1] in formats]
    sessions = {way: session(case, data, way) for way in ways}
    seconds: dict[Way, list[float]] = {way: [] for way in ways}
    for number in range(rounds + 2):
        for way in ways if number % 2 else reversed(ways):
            seconds[way].append(step(sessions[way], way))
    plain = seconds[ways[0]]
    ratios = {
        way: statistics.median(a / b for a, b in zip(plain[2:], taken[2:], strict=True)) for way, taken in seconds.items()
    }
    chosen = try_out(goodfit.trainer(data, **case.options).plan, lambda _: None).config.train
    return ratios, f"{chosen.precision}, {chosen.threads} thread{'s' * (chosen.threads > 1)}"


def main() -> None:
    """Print the table, a line at a time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=CASES, default=list(CASES), metavar="NAME")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    titles = [f"{way[0]}, {str(way[1])[6:].removesuffix('_format').replace('_', ' ')}, {way[2]}" for way in WAYS]
    print(f"| network | {' | '.join(titles)} | auto takes |\n|{' --- |' * (len(WAYS) + 2)}")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GOODFIT_CACHE"] = folder
        for name in options.only:
            ratios, chosen = measure(CASES[name], options.rounds)
            cells = [f"{ratios[way]:.2f}" if way in ratios else "" for way in WAYS]
            print(f"| {name} | {' | '.join(cells)} | {chosen} |", flush=True)


if __name__ == "__main__":
    main()
