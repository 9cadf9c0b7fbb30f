"""The example programs on real data, over several seeds, beside the figures of the notes that they come from.

    python benchmarks/examples.py --data-root DIR --cifar cifar10-images

The programs run as they stand, with their own epochs; only the seed is set from outside: torch's, from which they draw their
data and first weights, and goodfit's. MNIST lies in DIR as torchvision keeps it. CIFAR-10 is a class folder,
{train,test}/<class>/*: while a program runs, torchvision's set is replaced by an ImageFolder of it, so that a copy in any
format will do. `--only` names some of the programs.
"""

import argparse
import contextlib
import io
import os
import runpy
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torchvision.datasets import ImageFolder

import goodfit

EXAMPLES = Path(__file__).parent.parent / "examples"

Names = dict[str, Any]  # that a program leaves when it has ended


def accuracy(names: Names) -> float:
    return float(100 * names["run"].test.accuracy)


def gradient(names: Names) -> float:
    return float(names["x"].grad)


# What is looked at in each program, and what the note's own gives.
FIGURES: dict[str, tuple[str, Callable[[Names], float], str]] = {
    "random_vectors": ("accuracy, %", accuracy, "-"),  # 20 rows that say nothing of their class
    "mnist_mlp": ("accuracy, %", accuracy, "90.6"),
    "cifar10_lenet": ("accuracy, %", accuracy, "54.0"),
    "cifar10_quick": ("accuracy, %", accuracy, "57.5"),
    "any_dataset": ("gradient", gradient, "7.0"),
}


def cifar10(folder: Path, _root: str, *, train: bool, transform: Any, **_: Any) -> ImageFolder:
    """What the programs get in place of torchvision's set."""
    return ImageFolder(str(folder / ("train" if train else "test")), transform=transform)


@contextlib.contextmanager
def surroundings(seed: int, data_root: Path, cifar: Path) -> Iterator[None]:
    """An empty folder, the data sets, and the seed; what is printed meanwhile is not shown."""
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.chdir(folder),
        contextlib.redirect_stdout(io.StringIO()),
        mock.patch.dict(os.environ, GOODFIT_DATA=str(data_root)),
        mock.patch("torchvision.datasets.CIFAR10", partial(cifar10, cifar)),
        mock.patch.object(goodfit, "train", partial(goodfit.train, seed=seed)),
        mock.patch.object(goodfit, "trainer", partial(goodfit.trainer, seed=seed)),
    ):
        torch.manual_seed(seed)
        yield


def measure(program: str, seed: int, data_root: Path, cifar: Path) -> tuple[float, float]:
    """Return the program's figure, and the seconds that it took."""
    with surroundings(seed, data_root, cifar):
        started = time.perf_counter()
        names = runpy.run_path(str(EXAMPLES / f"{program}.py"), run_name="__main__")
        return FIGURES[program][1](names), time.perf_counter() - started


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--data-root", type=Path, default="data")
    arguments.add_argument("--cifar", type=Path, default="cifar10-images")
    arguments.add_argument("--seeds", type=int, default=5)
    arguments.add_argument("--only", nargs="+", choices=FIGURES, default=list(FIGURES))
    given = arguments.parse_args()
    print("| program | figure | note | here | each seed | seconds |\n| --- | --- | --- | --- | --- | --- |")
    for program in given.only:
        name, _, note = FIGURES[program]
        runs = []
        for seed in range(given.seeds):
            runs.append(measure(program, seed, given.data_root.absolute(), given.cifar.absolute()))
            print(f"{program}, seed {seed}: {runs[-1][0]:.1f}, {runs[-1][1]:.0f} s", file=sys.stderr, flush=True)
        figures, seconds = zip(*runs, strict=True)
        each = ", ".join(f"{figure:.1f}" for figure in figures)
        print(
            f"| {program} | {name} | {note} | {statistics.mean(figures):.1f} | {each} | {statistics.median(seconds):.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
