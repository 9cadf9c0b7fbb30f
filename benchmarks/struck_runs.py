"""The runs that benchmarks/kill.py strikes: their configurations and data, one session of them, and what they leave."""

import json
from dataclasses import dataclass
from hashlib import sha256
from io import StringIO
from pathlib import Path
from typing import Any

__all__ = ["CASES", "Case", "command", "look", "session", "write_data"]

Settings = dict[str, Any]
COMMON: Settings = {"train.threads": 1, "train.device": "cpu", "data.processes": 2}
SMALL = {"model.width": 4, "model.depth": 1}


@dataclass(frozen=True)
class Case:
    """One configuration; `data` is one of "folder" and "table", through the command line, and "memory", through Python."""

    data: str
    model: str
    more: Settings

    @property
    def settings(self) -> Settings:
        """All that is not left to the recipe."""
        return COMMON | {"model.name": self.model} | self.more


CASES = (
    Case("folder", "convnet", SMALL | {"augment.flip": True, "augment.crop": 1, "train.ema": 0.9, "checkpoint.every_steps": 3}),
    Case("folder", "mlp", {"model.dropout": 0.2, "train.precision": "bf16", "checkpoint.every_steps": 7, "checkpoint.keep": 1}),
    Case("table", "mlp", {"model.dropout": 0.3, "train.ema": 0.8, "checkpoint.every_steps": 4}),
    Case(
        "table", "mlp", {"train.accumulate": 2, "optim.name": "adamw", "checkpoint.every_steps": 5, "checkpoint.keep": "best"}
    ),
    Case("table", "mlp", {"schedule.name": "one-cycle", "checkpoint.every_steps": 1, "checkpoint.keep": 1}),
    Case("memory", "convnet", SMALL | {"augment.mixup": 0.4, "train.precision": "bf16", "checkpoint.every_steps": 2}),
    Case("memory", "mlp", {"augment.cutout": 3, "train.ema": 0.9, "checkpoint.every_steps": 6, "checkpoint.keep": "all"}),
    Case(
        "memory", "mlp", {"augment.cutmix": 1.0, "train.early_stopping": 2, "data.val": 0.3, "checkpoint.every_seconds": 0.02}
    ),
)


def session(case: Case, work: Path, run: Path) -> int:
    """Train, or resume if there is a run folder; return the exit code."""
    if case.data == "memory":
        return _in_memory(case.settings, run)
    from goodfit.cli.main import run_command

    return run_command(command(case, work, run))


def command(case: Case, work: Path, run: Path) -> list[str]:
    """Return the arguments of goodfit."""
    if run.exists():
        return ["resume", str(run)]
    data = [str(work / "pictures")] if case.data == "folder" else [str(work / "table.csv"), "--target", "label"]
    sizes = ["--epochs", "4", "--batch-size", "24", "--out", str(run)]
    sets = [word for key, value in case.settings.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    return ["train", *data, *sizes, *sets]


def _in_memory(settings: Settings, run: Path) -> int:
    """Train or resume as a Python program with its data in memory does."""
    import numpy as np

    from goodfit.config import Layer
    from goodfit.display import Display
    from goodfit.errors import Interrupted
    from goodfit.signals import StopSignals
    from goodfit.workflows import Request, resume, train

    draws = np.random.default_rng(1)
    targets = np.arange(120) % 3
    pictures = draws.integers(0, 200, (120, 3, 8, 8)).astype(np.uint8)
    pictures[np.arange(120), targets, :4, :4] += 50
    data, screen = {"train": (pictures, targets)}, Display(StringIO(), is_silent=True)
    own = {"data.name": "memory", "train.epochs": 4, "train.batch_size": 16}
    with StopSignals().listening() as signals:
        try:
            if run.exists():
                resume(run, screen, signals, data=data)
            else:
                train(Request(data=data, layers=[Layer("trial", settings | own)], out=run, recipe="auto"), screen, signals)
        except Interrupted as stop:
            return 128 + stop.signum
    return 0


def look(run: Path) -> dict[str, Any]:
    """Return what lies in a run folder, each file read as goodfit reads it."""
    from goodfit.artefacts.checkpoint import newest_checkpoint
    from goodfit.artefacts.model_file import ModelFile
    from goodfit.artefacts.run import Run

    found = Run(run)
    models = {path.name: path for path in (found.model, found.last) if path.exists()}
    for path in models.values():
        ModelFile.load(path)
    checkpoint, _ = newest_checkpoint(found.checkpoints)
    if checkpoint:
        models["state"] = checkpoint.path / "state.safetensors"
    return {
        "step": checkpoint.step if checkpoint else None,
        "ended": found.end is not None,
        "files": {name: sha256(path.read_bytes()).hexdigest() for name, path in models.items()},
        "log": [{key: value for key, value in line.items() if key != "clock"} for line in found.metrics],
    }


def write_data(work: Path) -> None:
    """Make the picture folder, with enough pictures for decoding by processes, and the table."""
    import numpy as np
    from PIL import Image

    draws = np.random.default_rng(0)
    for number in range(240):
        path = work / "pictures" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draws.integers(0, 150 + 100 * (number % 2), (8, 8, 3)).astype(np.uint8)).save(path)
    rows = [
        f"{x:.4f},{y:.4f},{'uvw'[n % 3]},{'yes' if x + y > 0 else 'no'}" for n, (x, y) in enumerate(draws.normal(size=(180, 2)))
    ]
    (work / "table.csv").write_text("\n".join(["x,y,kind,label", *rows]) + "\n")
