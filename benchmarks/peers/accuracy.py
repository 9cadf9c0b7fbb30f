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

TUTORIAL = "the tutorial's"
AT_ONCE = "at-once"  # `fast` with a network half as wide, and 20,000 pictures once: the tutorial's accuracy as soon as can be
SETTINGS = {"model.widths": [16, 64, 64], "data.max_train": 20_000}


class Trained(NamedTuple):
    """One run: its curve, and what the model reaches with test-time augmentation, which is no part of the seconds."""

    curve: Curve
    tests: float | None = None  # seconds that the tests of its curve took
    augmented: float | None = None

    def __str__(self) -> str:
        seconds, accuracy = self.curve[-1]
        return f"{accuracy:.2%}{'' if self.augmented is None else f', augmented {self.augmented:.2%}'} in {seconds:.1f} s"


def table_of_accuracy(recipes: Sequence[str], request: Request, rounds: int, *, tutorial: bool = True) -> list[str]:
    """Return accuracy and time of each, and the time to the tutorial's last accuracy, as lines of Markdown.

    A round trains every recipe once, with a seed of its own; the first also the `tutorial`'s program, whose time and
    accuracy hardly vary.
    """
    trained: dict[str, list[Trained]] = {name: [] for name in [TUTORIAL] * tutorial + list(recipes)}
    for seed in range(rounds):
        for name, runs in trained.items():
            if name == TUTORIAL and runs:
                continue
            runs.append(
                in_process(train_tutorial, request, seed) if name == TUTORIAL else in_process(train_recipe, name, request, seed)
            )
            print(f"seed {seed}, {name}: {runs[-1]}", file=sys.stderr)
    goal = trained[TUTORIAL][0].curve[-1][1] if tutorial else 1.0
    lines = ["| program | accuracy on test | augmented | seconds | of which tests | seconds to the tutorial's accuracy |"]
    lines.append("| --- | --- | --- | --- | --- | --- |")
    for name, runs in trained.items():
        plain = _percentages([run.curve[-1][1] for run in runs])
        augmented = _percentages([run.augmented for run in runs if run.augmented is not None])
        seconds = [run.curve[-1][0] for run in runs]
        reached = [next((moment for moment, accuracy in run.curve if accuracy >= goal), None) for run in runs]
        soon = [moment for moment in reached if moment is not None]
        shown = f"{statistics.median(soon):.1f} ({len(soon)} of {len(runs)} reached it)" if soon else "not reached" * tutorial
        time = f"{statistics.median(seconds):.1f} ({min(seconds):.1f} to {max(seconds):.1f})"
        tests = "" if runs[0].tests is None else f"{statistics.median(run.tests or 0.0 for run in runs):.1f}"
        lines.append(f"| {name} | {plain} | {augmented} | {time} | {tests} | {shown} |")
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
        seconds = {(line["step"], line["event"]): line["clock"]["seconds"] for line in run.metrics if "clock" in line}
        curve = [(line["clock"]["seconds"], line["accuracy"]) for line in run.metrics if line["event"] == "evaluation"]
        tests = sum(moment - seconds[step, "train"] for (step, event), moment in seconds.items() if event == "evaluation")
        augmented = goodfit.evaluate(run, tta=True).tta
        assert augmented is not None
        return Trained(curve, tests, augmented.accuracy)
