"""The runs that benchmarks/kill.py strikes: their configurations and data, one session of them, and what they leave."""

import json
import random
from dataclasses import dataclass
from hashlib import sha256
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, WeightedRandomSampler

__all__ = ["CASES", "Case", "command", "look", "session", "write_data"]

Settings = dict[str, Any]
COMMON: Settings = {"train.threads": 1, "train.device": "cpu", "data.processes": 2}
SMALL = {"model.width": 4, "model.depth": 1}


@dataclass(frozen=True)
class Case:
    """One configuration: `data` is one of "folder" and "table", through the command line, and "memory", "dataset" and "loader",
    through Python; the last two are objects of the user's own. A model with a colon is the class of a file."""

    data: str
    model: str
    more: Settings

    @property
    def settings(self) -> Settings:
        """All that is not left to the recipe."""
        return COMMON | ({} if self.has_own_model else {"model.name": self.model}) | self.more

    @property
    def is_command(self) -> bool:
        """Whether it is a command line, and not a Python program."""
        return self.data in ("folder", "table")

    @property
    def has_own_model(self) -> bool:
        """Whether the model is code of the user's own."""
        return ":" in self.model


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
    Case("table", "net.py:Net", {"model.hidden": 8, "model.classes": 2, "train.ema": 0.9, "checkpoint.every_steps": 3}),
    Case("folder", "net.py:Net", {"model.classes": 2, "augment.crop": 1, "train.accumulate": 2, "checkpoint.every_steps": 4}),
    Case("dataset", "net.py:Net", {"train.batch_size": 16, "checkpoint.every_steps": 2, "checkpoint.keep": "best"}),
    Case("loader", "net.py:Net", {"train.clip": 1.0, "checkpoint.every_steps": 5, "checkpoint.keep": "all"}),
    Case("loader", "mlp", {"model.dropout": 0.2, "train.ema": 0.8, "checkpoint.every_steps": 1, "checkpoint.keep": 1}),
)

# A module whose first weights and whose forward draw from every generator that there is.
NET = """
import random
import numpy
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, hidden=12, classes=3):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0 + random.random() + numpy.random.rand()))
        self.body = nn.Sequential(nn.Flatten(), nn.LazyLinear(hidden), nn.BatchNorm1d(hidden), nn.Dropout(0.2))
        self.head = nn.Linear(hidden, classes)

    def forward(self, inputs):
        noise = 0.01 * (random.random() + numpy.random.rand()) if self.training else 0.0
        return {"logits": self.head(torch.relu(self.body(inputs))) * self.scale + noise}
"""


class OwnPictures(Dataset[tuple[Tensor, int]]):
    """A map-style data set of the user's own: every reading draws."""

    def __init__(self, seed: int = 1) -> None:
        self.pixels, self.targets = _pictures(seed)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        picture = torch.from_numpy(self.pixels[index] / np.float32(255))
        if random.random() < 0.5:
            picture = picture.flip(-1)
        return picture + 0.05 * torch.rand(()) + float(0.05 * np.random.rand()), int(self.targets[index])


def own_loader() -> DataLoader[Any]:
    """Return a loader with a sampler that draws, and processes of its own."""
    data_set = OwnPictures()
    weights = [1.0 + (index % 4) for index in range(len(data_set))]
    return DataLoader(data_set, batch_size=16, sampler=WeightedRandomSampler(weights, len(data_set)), num_workers=2)


def session(case: Case, work: Path, run: Path) -> int:
    """Train, or resume if there is a run folder; return the exit code."""
    if not case.is_command:
        return _in_python(case, work, run)
    from goodfit.cli.main import run_command

    return run_command(command(case, work, run))


def command(case: Case, work: Path, run: Path) -> list[str]:
    """Return the arguments of goodfit."""
    own = ["--model", str(work / case.model)] if case.has_own_model else []
    if run.exists():
        return ["resume", str(run), *own]
    data = [str(work / "pictures")] if case.data == "folder" else [str(work / "table.csv"), "--target", "label"]
    sizes = ["--epochs", "4", "--batch-size", "24", "--out", str(run)]
    sets = [word for key, value in case.settings.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    return ["train", *data, *sizes, *own, *sets]


def _in_python(case: Case, work: Path, run: Path) -> int:
    """Train or resume as a Python program does with objects of its own."""
    from goodfit.config import Layer
    from goodfit.display import Display
    from goodfit.errors import Interrupted
    from goodfit.models.own import own_model
    from goodfit.signals import StopSignals
    from goodfit.training.own import OwnCode
    from goodfit.workflows import Request, resume, train

    make = {"memory": _pictures, "dataset": OwnPictures, "loader": own_loader}[case.data]
    screen = Display(StringIO(), is_silent=True)
    data = {"train": make()} | ({"val": OwnPictures(2), "test": OwnPictures(3)} if case.data == "loader" else {})
    own = OwnCode(own_model(str(work / case.model)) if case.has_own_model else None)
    settings = {"data.name": "memory", "train.epochs": 4} | ({"train.batch_size": 16} if case.data == "memory" else {})
    with StopSignals().listening() as signals:
        try:
            if run.exists():
                resume(run, screen, signals, data=data, own=own)
            else:
                layers = [Layer("trial", case.settings | settings)]
                train(Request(data=data, layers=layers, out=run, recipe="auto", own=own), screen, signals)
        except Interrupted as stop:
            return 128 + stop.signum
    return 0


def _pictures(seed: int = 1) -> tuple[Any, Any]:
    """Return uint8 pictures (120, 3, 8, 8) and their classes."""
    draws = np.random.default_rng(seed)
    targets = np.arange(120) % 3
    pictures = draws.integers(0, 200, (120, 3, 8, 8)).astype(np.uint8)
    pictures[np.arange(120), targets, :4, :4] += 50
    return pictures, targets


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
    """Make the picture folder, with enough pictures for decoding by processes, the table, and the file of the model."""
    from PIL import Image

    (work / "net.py").write_text(NET)
    draws = np.random.default_rng(0)
    for number in range(240):
        path = work / "pictures" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draws.integers(0, 150 + 100 * (number % 2), (8, 8, 3)).astype(np.uint8)).save(path)
    rows = [
        f"{x:.4f},{y:.4f},{'uvw'[n % 3]},{'yes' if x + y > 0 else 'no'}" for n, (x, y) in enumerate(draws.normal(size=(180, 2)))
    ]
    (work / "table.csv").write_text("\n".join(["x,y,kind,label", *rows]) + "\n")
