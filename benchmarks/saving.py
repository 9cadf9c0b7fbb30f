"""Measure what saving costs a run: the stall of its loop for a state of 100 MB, and its time with and without checkpoints.

    python benchmarks/saving.py [--pairs 5] [--every SECONDS]

The loop is stalled while a save is begun (the copy); the thread then writes. The second table trains the same run with and
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


def measure_stall(folder: Path, saves: int = 20) -> list[float]:
    """Return the milliseconds that the loop waits for each save to begin."""
    state = make_state(100)
    log = MetricsLog(folder / "metrics.jsonl")
    saver = Saver(folder / "checkpoints", log, keep=2)
    saver.prepare(state)
    stalls = []
    for number in range(saves):
        state.step = number
        time.sleep(0.2)  # in which a loop would compute
        saver.wait()
        started = time.perf_counter()
        saver.begin(state, 0.0)
        stalls.append(1000 * (time.perf_counter() - started))
    saver.wait()
    saver.close()
    log.close()
    return stalls


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
        stalls = measure_stall(Path(name))
        print(f"| stall of the loop, 100 MB | {statistics.median(stalls):.1f} ms (to {max(stalls):.1f}) | 10 ms |")
        ratios = []
        for pair in range(options.pairs):
            times = {every: measure_run(Path(name) / f"{pair}-{every}", every) for every in (0.0, options.every)}
            ratios.append(times[options.every] / times[0.0])
        spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
        print(f"| time with a save every {options.every:g} s | {statistics.median(ratios):.3f} ({spread}) times | 1.02 |")


if __name__ == "__main__":
    main()
