"""goodfit as its users call it: run folder, checkpoints, metrics, TensorBoard, evaluation and test are all on."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import goodfit
from benchmarks.peers.works import Work

__all__ = ["options", "train"]


def options(work: Work) -> dict[str, Any]:
    """Return the work as the data and keywords of goodfit.train."""
    return {
        "data": (work.stored, work.targets),
        "task": "classification",
        "val": 0,
        "test": work.test,
        "epochs": work.epochs,
        "batch_size": work.batch_size,
        "lr": work.lr,
        "device": work.device,
        **work.goodfit,
    }


def train(work: Work) -> float:
    """Train into a run folder; return the seconds of the updates by its own records, evaluation and test left out."""
    with TemporaryDirectory(prefix="goodfit-peers-") as folder:
        run = goodfit.train(out=Path(folder) / "run", **options(work))
        logged = [line for line in run.metrics if line["event"] == "train"]
    seconds, step = 0.0, 0
    for line in logged:
        seconds += (line["step"] - step) * work.batch_size / line["clock"]["examples_per_second"]
        step = line["step"]
    return seconds
