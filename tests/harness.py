"""Running and stopping runs in this process, and comparing what they left, byte for byte."""

import io
import json
import random
import resource
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from command import write_pictures, write_table
from torch.utils.data import DataLoader, Dataset, WeightedRandomSampler

from goodfit.artefacts.run import Run
from goodfit.config import Layer
from goodfit.display import Display
from goodfit.errors import Interrupted
from goodfit.signals import StopSignals
from goodfit.workflows import Request, resume, train

CLOCK = "clock"

BASE: dict[str, Any] = {
    "model.name": "convnet",
    "train.epochs": 3,
    "train.batch_size": 8,
    "train.threads": 1,
    "train.precision": "fp32",
    "checkpoint.every_seconds": 0.0,
    "log.every_steps": 2,
}

# Everything that could make a resumed run differ, one at a time and then together.
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "augmented": {"augment.flip": True, "augment.crop": 1, "augment.cutout": 2, "augment.rand": 0.5},
    "mixed": {"augment.mixup": 0.4, "augment.cutmix": 1.0},
    "dropout": {"model.dropout": 0.3},
    "accumulated": {"train.accumulate": 3},
    "averaged": {"train.ema": 0.9},
    "clipped": {"train.clip": 0.1},
    "bf16": {"train.precision": "bf16"},
    "fp16": {"train.precision": "fp16"},
    "adamw": {"optim.name": "adamw", "optim.lr": 0.01},
    "rmsprop": {"optim.name": "rmsprop", "optim.momentum": 0.5},
    "asgd": {"optim.name": "asgd"},
    "cosine with warm-up": {"schedule.name": "cosine", "schedule.warmup": 0.2},
    "early stopping": {"train.early_stopping": 1, "optim.lr": 1.0},
    "weighted": {"train.class_weights": [1.0, 2.0, 0.5], "train.label_smoothing": 0.1},
    "balanced": {"train.class_weights": "balanced", "data.val": 0.25},
    "no validation": {"data.val": 0.0},
    "frozen": {"model.freeze": True},
    "one-cycle": {"schedule.name": "one-cycle"},
    "sgd": {"optim.name": "sgd", "optim.lr": 0.2},
    "nesterov with decay": {
        "optim.name": "sgd",
        "optim.lr": 0.2,
        "optim.momentum": 0.9,
        "optim.nesterov": True,
        "optim.weight_decay": 0.01,
    },
    "a save a step": {"checkpoint.every_steps": 1, "checkpoint.keep": 1},
    "the best kept": {"checkpoint.every_steps": 2, "checkpoint.keep": "best"},
    "resnet": {"model.name": "resnet18", "model.width": 4},
    "muon": {"optim.name": "muon", "optim.momentum": 0.6, "optim.weight_decay": 0.1, "train.precision": "bf16"},
    "muon, normalized": {"optim.name": "muon", "optim.normalize": True, "train.precision": "bf16"},
    "whitened": {"model.name": "whitened-vgg", "model.widths": [4, 6], "model.frozen": ["whitening.weight"]},
    "sides in turn": {"augment.flip": "alternating", "train.accumulate": 2},
    "floats": {"model.name": "mlp"},
    "table": {"data.name": "table.csv", "data.target": "kind", "model.name": "mlp", "model.dropout": 0.2},
    "regression": {"data.name": "table.csv", "data.target": "size", "model.name": "mlp", "train.ema": 0.8},
    "picture folder": {"data.name": "pictures", "data.processes": 2, "augment.flip": True},
    "own data set": {"model.name": "mlp"},
    "own loader": {"model.name": "mlp"},
    "own loader, 2 processes": {"model.name": "mlp", "train.ema": 0.9},
    "everything": {
        "augment.flip": True,
        "augment.crop": 1,
        "augment.mixup": 0.4,
        "model.dropout": 0.3,
        "train.accumulate": 2,
        "train.ema": 0.9,
        "train.precision": "bf16",
        "train.clip": 1.0,
    },
}


class StopAt(StopSignals):
    """Asks to stop after a number of steps, as a signal would."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.left = steps

    def asked(self) -> bool:
        self.left -= 1
        if self.left == 0:
            self.signum = 15
        return super().asked()


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """Let no file grow beyond `room` bytes, which to a program is a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def silent() -> Display:
    return Display(io.StringIO(), is_silent=True)


def tiny_pictures(count: int = 60, classes: int = 3, side: int = 8, channels: int = 3, seed: int = 0) -> tuple[Any, Any]:
    """Noise with a bright corner that tells the class: learnable, and small enough to train on in a moment."""
    random = np.random.default_rng(seed)
    targets = np.arange(count) % classes
    pictures = random.integers(0, 120, (count, channels, side, side)).astype(np.uint8)
    for index, target in enumerate(targets):
        pictures[index, target % channels, : side // 2, : side // 2] += 100
    return pictures, targets.astype(np.int64)


class OwnExamples(Dataset[tuple[torch.Tensor, int]]):
    """A user's data set, with randomness of three kinds in every example."""

    def __init__(self) -> None:
        self.pictures, self.targets = tiny_pictures()

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        noise = random.random() + np.random.rand()
        return torch.from_numpy(self.pictures[index]) / 255 + torch.rand(()) + noise, int(self.targets[index])


def make_data(name: str, folder: Path) -> Any:
    """Return a configuration's data, None for those that name files; these are made in `folder`."""
    if name in ("table", "regression"):
        write_table(folder / "table.csv", "x,y,kind,size", "{half},{i},{c},{i}.5")
        return None
    if name == "picture folder":
        write_pictures(folder / "pictures", count=30)
        return None
    if name == "own data set":
        return {"train": OwnExamples()}
    if name.startswith("own loader"):
        sampler = WeightedRandomSampler([1.0, 2.0, 0.5] * 20, 48)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a machine with a single processor
            loader = DataLoader(OwnExamples(), batch_size=8, sampler=sampler, num_workers=2 * name.endswith("2 processes"))
        return {"train": loader, "val": OwnExamples(), "test": OwnExamples()}
    pictures, targets = tiny_pictures()
    return {"train": (pictures / 255 if name == "floats" else pictures, targets)}


def request(data: Any, out: Path, settings: dict[str, Any]) -> Request:
    own = {} if data is None else {"data.name": "memory"}
    return Request(data=data, layers=[Layer("test", own | settings)], out=out, recipe="auto")


def run_through(data: Any, out: Path, settings: dict[str, Any]) -> Run:
    return train(request(data, out, settings), silent(), StopSignals())


def run_with_stops(data: Any, out: Path, settings: dict[str, Any], stops: list[int]) -> Run:
    """Stop after `stops[0]` steps, resume and stop after `stops[1]` more, and so on; then finish."""
    with suppress(Interrupted):
        train(request(data, out, settings), silent(), StopAt(stops[0]))
    for steps in stops[1:]:
        with suppress(Interrupted):
            resume(out, silent(), StopAt(steps), data=data)
    return resume(out, silent(), StopSignals(), data=data)


def fingerprints(run: Run) -> dict[str, str]:
    """Return what must be equal for equal runs: model files, the last checkpoint's state, and the log without clocks."""
    newest = max(run.checkpoints.iterdir(), key=lambda path: int(path.name.removeprefix("step-")))
    files = [run.model, run.last, newest / "state.safetensors"]
    digests = {path.name: sha256(path.read_bytes()).hexdigest() for path in files}
    lines = [{key: value for key, value in line.items() if key != CLOCK} for line in run.metrics]
    return digests | {"metrics": json.dumps(lines, indent=1), "step": newest.name}
