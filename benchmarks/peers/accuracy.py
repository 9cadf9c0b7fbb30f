"""The table `accuracy`: the CIFAR-10 tutorial's program as it stands, and how soon goodfit's recipes reach what it reaches."""

import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.peers.measuring import in_process
from benchmarks.peers.request import Request
from benchmarks.peers.turns import silence

__all__ = ["AT_ONCE", "Curve", "table_of_accuracy"]

Curve = list[tuple[float, float]]  # seconds of training so far with its tests, accuracy on the test split

AT_ONCE = "at-once"  # `fast` with a network half as wide, and 20,000 pictures once: the tutorial's accuracy as soon as can be
SETTINGS = {"model.widths": [16, 64, 64], "data.max_train": 20_000}
TUTORIALS = 1  # runs of the tutorial's program, in the first rounds: its time and accuracy hardly vary


def table_of_accuracy(recipes: Sequence[str], request: Request, rounds: int) -> list[str]:
    """Return accuracy and time of each, and the time to the tutorial's last accuracy, as lines of Markdown.

    A round trains every recipe once, with a seed of its own; the first rounds also the tutorial's program.
    """
    tutorial: list[Curve] = []
    ours: dict[str, list[Curve]] = {recipe: [] for recipe in recipes}
    for seed in range(rounds):
        if seed < TUTORIALS:
            tutorial.append(in_process(train_tutorial, request, seed))
            print(f"seed {seed}, the tutorial's: {_last(tutorial[-1])}", file=sys.stderr)
        for recipe in recipes:
            ours[recipe].append(in_process(train_recipe, recipe, request, seed))
            print(f"seed {seed}, {recipe}: {_last(ours[recipe][-1])}", file=sys.stderr)
    goal = statistics.mean(curve[-1][1] for curve in tutorial)
    lines = ["| program | accuracy on test | seconds | seconds to the tutorial's accuracy |", "| --- | --- | --- | --- |"]
    for name, curves in {"the tutorial's": tutorial, **{f"recipe `{name}`": curves for name, curves in ours.items()}}.items():
        accuracies, seconds = [100 * curve[-1][1] for curve in curves], statistics.median(curve[-1][0] for curve in curves)
        deviation = statistics.stdev(accuracies) if len(curves) > 1 else 0.0
        reached = [next((moment for moment, accuracy in curve if accuracy >= goal), None) for curve in curves]
        soon = [moment for moment in reached if moment is not None]
        shown = f"{statistics.median(soon):.1f} ({len(soon)} of {len(curves)} reached it)" if soon else "not reached"
        lines.append(f"| {name} | {statistics.mean(accuracies):.2f}% ± {deviation:.2f} | {seconds:.1f} | {shown} |")
    return lines


def _last(curve: Curve) -> str:
    return f"{curve[-1][1]:.2%} in {curve[-1][0]:.1f} s"


def train_tutorial(request: Request, seed: int) -> Curve:
    """Train the note's program, with its test after each epoch."""
    import torch

    from benchmarks.peers.notes import curve_of_pictures
    from benchmarks.peers.works import make_work

    work = make_work(request)
    torch.manual_seed(seed)
    with silence():
        return curve_of_pictures(work)


def train_recipe(recipe: str, request: Request, seed: int) -> Curve:
    """Train by a recipe with all of the training split, tested after each epoch for the curve alone."""
    import goodfit

    asked: dict[str, Any] = {"recipe": "fast", "epochs": 1, "settings": SETTINGS} if recipe == AT_ONCE else {"recipe": recipe}
    with TemporaryDirectory(prefix="goodfit-peers-") as folder, silence():
        run = goodfit.train(request.cifar, val=0, seed=seed, out=Path(folder) / "run", device=request.device, **asked)
        return [(line["clock"]["seconds"], line["accuracy"]) for line in run.metrics if line["event"] == "evaluation"]
