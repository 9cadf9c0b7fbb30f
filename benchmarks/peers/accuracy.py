"""The table `accuracy`: the CIFAR-10 tutorial's program as it stands, and how soon goodfit's recipes reach what it reaches."""

import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from benchmarks.peers.measuring import in_process
from benchmarks.peers.request import Request
from benchmarks.peers.turns import silence

__all__ = ["AT_ONCE", "Curve", "Trained", "table_of_accuracy"]

Curve = list[tuple[float, float]]  # seconds of training so far with its tests, accuracy on the test split

AT_ONCE = "at-once"  # `fast` with a network half as wide, and 20,000 pictures once: the tutorial's accuracy as soon as can be
SETTINGS = {"model.widths": [16, 64, 64], "data.max_train": 20_000}
TUTORIALS = 1  # runs of the tutorial's program, in the first rounds: its time and accuracy hardly vary


class Trained(NamedTuple):
    """One run: its curve, and what the model reaches with test-time augmentation, which is no part of the seconds."""

    curve: Curve
    augmented: float | None = None

    def __str__(self) -> str:
        seconds, accuracy = self.curve[-1]
        return f"{accuracy:.2%}{'' if self.augmented is None else f', augmented {self.augmented:.2%}'} in {seconds:.1f} s"


def table_of_accuracy(recipes: Sequence[str], request: Request, rounds: int) -> list[str]:
    """Return accuracy and time of each, and the time to the tutorial's last accuracy, as lines of Markdown.

    A round trains every recipe once, with a seed of its own; the first rounds also the tutorial's program.
    """
    tutorial: list[Trained] = []
    ours: dict[str, list[Trained]] = {recipe: [] for recipe in recipes}
    for seed in range(rounds):
        if seed < TUTORIALS:
            tutorial.append(in_process(train_tutorial, request, seed))
            print(f"seed {seed}, the tutorial's: {tutorial[-1]}", file=sys.stderr)
        for recipe in recipes:
            ours[recipe].append(in_process(train_recipe, recipe, request, seed))
            print(f"seed {seed}, {recipe}: {ours[recipe][-1]}", file=sys.stderr)
    goal = statistics.mean(run.curve[-1][1] for run in tutorial)
    lines = ["| program | accuracy on test | augmented | seconds | seconds to the tutorial's accuracy |"]
    lines.append("| --- | --- | --- | --- | --- |")
    for name, runs in {"the tutorial's": tutorial, **{f"recipe `{name}`": runs for name, runs in ours.items()}}.items():
        plain = _percentages([run.curve[-1][1] for run in runs])
        augmented = _percentages([run.augmented for run in runs if run.augmented is not None])
        seconds = [run.curve[-1][0] for run in runs]
        reached = [next((moment for moment, accuracy in run.curve if accuracy >= goal), None) for run in runs]
        soon = [moment for moment in reached if moment is not None]
        shown = f"{statistics.median(soon):.1f} ({len(soon)} of {len(runs)} reached it)" if soon else "not reached"
        time = f"{statistics.median(seconds):.1f} ({min(seconds):.1f} to {max(seconds):.1f})"
        lines.append(f"| {name} | {plain} | {augmented} | {time} | {shown} |")
    return lines


def _percentages(accuracies: Sequence[float]) -> str:
    if not accuracies:
        return ""
    deviation = statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0
    return f"{100 * statistics.mean(accuracies):.2f}% ± {100 * deviation:.2f}"


def train_tutorial(request: Request, seed: int) -> Trained:
    """Train the note's program, with its test after each epoch."""
    import torch

    from benchmarks.peers.notes import curve_of_pictures
    from benchmarks.peers.works import make_work

    work = make_work(request)
    torch.manual_seed(seed)
    with silence():
        return Trained(curve_of_pictures(work))


def train_recipe(recipe: str, request: Request, seed: int) -> Trained:
    """Train by a recipe with all of the training split, tested after each epoch for the curve alone."""
    import goodfit

    asked: dict[str, Any] = {"recipe": "fast", "epochs": 1, "settings": SETTINGS} if recipe == AT_ONCE else {"recipe": recipe}
    with TemporaryDirectory(prefix="goodfit-peers-") as folder, silence():
        run = goodfit.train(request.cifar, val=0, seed=seed, out=Path(folder) / "run", device=request.device, **asked)
        curve = [(line["clock"]["seconds"], line["accuracy"]) for line in run.metrics if line["event"] == "evaluation"]
        augmented = goodfit.evaluate(run, tta=True).tta
        assert augmented is not None
        return Trained(curve, augmented.accuracy)
