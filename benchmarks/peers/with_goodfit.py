"""goodfit as its users call it: run folder, checkpoints, metrics, TensorBoard, evaluation and test are all on."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import goodfit
from benchmarks.peers.works import Work

__all__ = ["options", "train", "train_in_any_precision"]


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


def train(work: Work) -> None:
    """Train into a run folder."""
    with TemporaryDirectory(prefix="goodfit-peers-") as folder:
        goodfit.train(out=Path(folder) / "run", **options(work))


def train_in_any_precision(work: Work) -> None:
    """Train with the precision that goodfit takes by itself, in place of the tutorials' float32."""
    settings = {**work.goodfit.get("settings", {}), "train.precision": "auto"}
    train(replace(work, goodfit={**work.goodfit, "settings": settings}))
