"""Measure what saving costs a run: the stall of its loop for a state of 100 MB, and its time with and without checkpoints.

    python benchmarks/saving.py [--pairs 5] [--every SECONDS]

The loop is stalled while a save is begun, and while its next update waits for the copy; the thread then writes. The second table trains the same run with and
without checkpoints by the clock, in turn, in one process, and compares each pair.
"""

import argparse
import io
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from goodfit.artefacts.metrics_log import MetricsLog
from goodfit.artefacts.saver import Saver
from goodfit.config import Layer
from goodfit.display import Display
from goodfit.signals import StopSignals
from goodfit.training.optimizers import build_optimizer
from goodfit.training.state import RunState
from goodfit.workflows import Request, train


def make_state(megabytes: int) -> RunState:
    """Return the state of a network whose weights and momentum take that much, after a step."""
    width = round((megabytes * 1e6 / 8 / 4) ** 0.5)
    model = nn.Sequential(*(nn.Linear(width, width) for _ in range(4)))
    optimizer = build_optimizer("sgd", model, lr=0.001, momentum=0.9)
    model(torch.randn(8, width)).square().mean().backward()
    optimizer.step()
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    return RunState(model, optimizer, None, scaler, torch.zeros(()).double(), torch.zeros(()).double())


def measure_stall(folder: Path, saves: int = 20) -> tuple[list[float], list[float]]:
    """Return, in milliseconds, what the loop waits for each save, and how much longer than others the step is in which it does."""
    state = make_state(100)
    log = MetricsLog(folder / "metrics.jsonl")
    saver = Saver(folder / "checkpoints", log, 2, state, at_once=False)
    saver.prepare()
    stalls, steps, plain = [], [], []
    for number in range(saves):
        state.step = number
        plain += [sum(step(state)) for _ in range(5)]
        saver.wait()
        started = time.perf_counter()
        saver.begin(0.0)
        begun = time.perf_counter() - started
        computing, waiting = step(state)
        stalls.append(1000 * (begun + waiting))
        steps.append(1000 * (begun + computing + waiting))
    saver.wait()
    saver.close()
    log.close()
    usual = 1000 * statistics.median(plain)
    return stalls, [taken - usual for taken in steps]


def step(state: RunState) -> tuple[float, float]:
    """Take one step and return its seconds of computing, and of waiting for the copy."""
    started = time.perf_counter()
    width = next(state.model.parameters()).shape[1]
    state.optimizer.zero_grad()
    state.model(torch.ones(64, width)).square().mean().backward()
    computed = time.perf_counter()
    state.wait_for_copy()
    waited = time.perf_counter()
    state.optimizer.step()
    return computed - started + time.perf_counter() - waited, waited - computed


def measure_run(folder: Path, every: float) -> float:
    """Return the seconds that a run takes; `every` seconds it saves, 0 for only at its end."""
    draws = np.random.default_rng(0)
    data = {"train": (draws.integers(0, 256, (6000, 1, 28, 28)).astype(np.uint8), np.arange(6000) % 10)}
    settings = {"data.name": "memory", "model.name": "convnet", "train.epochs": 4, "checkpoint.every_seconds": every}
    request = Request(data=data, layers=[Layer("benchmark", settings)], out=folder, recipe="auto")
    run = train(request, Display(io.StringIO(), is_silent=True), StopSignals())
    return float(run.summary()["seconds"])


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--every", type=float, default=1.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="goodfit-saving-") as name:
        stalls, longer = measure_stall(Path(name))
        print(f"| the loop waits, 100 MB | {statistics.median(stalls):.1f} ms (to {max(stalls):.1f}) | 10 ms |")
        print(f"| that step takes longer by | {statistics.median(longer):.1f} ms (to {max(longer):.1f}) | |")
        ratios = []
        for pair in range(options.pairs):
            times = {every: measure_run(Path(name) / f"{pair}-{every}", every) for every in (0.0, options.every)}
            ratios.append(times[options.every] / times[0.0])
        spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
        print(f"| time with a save every {options.every:g} s | {statistics.median(ratios):.3f} ({spread}) times | 1.02 |")


if __name__ == "__main__":
    main()
