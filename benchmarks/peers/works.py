"""What is trained: the data, network, batch, optimiser and number of updates that all contestants share."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset

from benchmarks.peers.request import Request

__all__ = ["Batches", "Pictures", "Work", "build_digits", "build_quick", "make_work"]


def _nothing() -> None:
    """Do nothing."""


@dataclass(frozen=True)
class Work:
    """One piece of training: `epochs` passes over the examples with plain SGD."""

    stored: Tensor  # (N, C, H, W) uint8 pictures, or (N, F) float32
    targets: Tensor  # (N,) int64
    test: tuple[Tensor, Tensor]  # as stored
    build: Callable[[], nn.Sequential]
    mean: float  # of pictures from 0 to 1
    std: float
    goodfit: dict[str, Any]  # the same network and preprocessing, as options of goodfit.train
    epochs: int = 1
    batch_size: int = 64
    lr: float = 0.01
    device: str = "cpu"
    loss: nn.Module = field(default_factory=nn.CrossEntropyLoss)
    updated: Callable[[], None] = _nothing  # to be called after each update by what does not use torch's optimisers

    @cached_property
    def inputs(self) -> Tensor:
        """The examples as the network sees them, float32 in memory."""
        if self.stored.dtype != torch.uint8:
            return self.stored
        return self.stored.float().div_(255).sub_(self.mean).div_(self.std)

    @property
    def num_updates(self) -> int:
        """How many optimiser steps that makes."""
        return self.epochs * math.ceil(len(self.targets) / self.batch_size)


class Pictures(Dataset[Any]):
    """Stored pictures one at a time through Pillow, as torchvision's MNIST and CIFAR10 give them."""

    def __init__(self, stored: Tensor, targets: Tensor, transform: Callable[[Image.Image], Tensor]) -> None:
        self.stored = stored.permute(0, 2, 3, 1).squeeze(-1).contiguous().numpy()
        self.targets, self.transform = targets, transform

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.stored[index])), int(self.targets[index])


class Batches:
    """Shuffled batches of tensors in memory, each made by one indexing: for what trains on any iterable."""

    def __init__(self, work: Work) -> None:
        self.inputs, self.targets = work.inputs.to(work.device), work.targets.to(work.device)
        self.batch_size = work.batch_size

    def __len__(self) -> int:
        return math.ceil(len(self.targets) / self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for rows in torch.randperm(len(self.targets), device=self.targets.device).split(self.batch_size):
            yield self.inputs[rows], self.targets[rows]


@cache
def make_work(request: Request) -> Work:
    """Read the data of what was asked for."""
    return WORKS[request.work](request)


def mnist_mlp(request: Request) -> Work:
    """The note's digits: 784-128-64-10, SGD 0.01, batches of 64."""
    folder = request.data_root / "MNIST" / "raw"
    stored, targets = _read_digits(folder, "train")
    return Work(
        stored=stored[: request.examples],
        targets=targets[: request.examples],
        test=_read_digits(folder, "t10k"),
        build=build_digits,
        mean=0.5,
        std=0.5,
        goodfit={"recipe": "mnist-mlp"},
        epochs=request.epochs,
        device=request.device,
    )


def _read_digits(folder: Path, split: str) -> tuple[Tensor, Tensor]:
    """Read a split's two files, whose headers are of 16 and of 8 bytes."""
    pixels = np.fromfile(folder / f"{split}-images-idx3-ubyte", np.uint8, offset=16)
    labels = np.fromfile(folder / f"{split}-labels-idx1-ubyte", np.uint8, offset=8)
    return torch.from_numpy(pixels).view(-1, 1, 28, 28), torch.from_numpy(labels).long()


def build_digits() -> nn.Sequential:
    """Return 784-128-64-10 with the note's first weights."""
    layers = nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10)
    model = nn.Sequential(*layers)
    nn.init.zeros_(model[1].bias)
    nn.init.normal_(model[1].weight, std=0.01)
    return model


def cifar10_quick(request: Request) -> Work:
    """The note's CIFAR-10 network: three convolutions, SGD 0.01, batches of 64."""
    stored, targets = _read_folder(request.cifar / "train", request.examples)
    test = _read_folder(request.cifar / "test", 10_000)
    return Work(
        stored=stored,
        targets=targets,
        test=test,
        build=build_quick,
        mean=0.0,
        std=1.0,
        goodfit={"recipe": "cifar10-quick"},
        epochs=request.epochs,
        device=request.device,
    )


def build_quick() -> nn.Sequential:
    """Return three convolutions with pooling and two linear layers, without activations, as in the note."""
    return nn.Sequential(
        *(nn.Conv2d(3, 32, 5, padding=2), nn.MaxPool2d(2), nn.Conv2d(32, 32, 5, padding=2), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 5, padding=2), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(1024, 64), nn.Linear(64, 10)),
    )


def _read_folder(folder: Path, count: int) -> tuple[Tensor, Tensor]:
    """Decode `count` pictures, of one size, of a class folder, the same ones each time."""
    classes = sorted(path.name for path in folder.iterdir())
    files = [(path, label) for label, name in enumerate(classes) for path in sorted((folder / name).iterdir())]
    some = [files[place] for place in torch.randperm(len(files), generator=torch.Generator().manual_seed(0))[:count]]
    pictures = np.stack([np.asarray(Image.open(path).convert("RGB")) for path, _ in some])
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous(), torch.tensor([label for _, label in some])


def tiny(request: Request) -> Work:
    """A network of one layer, on which nothing takes time but the loop."""
    draw = torch.Generator().manual_seed(0)
    inputs = torch.randn(20_000, 20, generator=draw)
    targets = (inputs[:, 0] + torch.randn(20_000, generator=draw) > 0).long()
    network = {"model.hidden": [], "model.initialization": "default", "transform.mean": 0.0, "transform.std": 1.0}
    return Work(
        stored=inputs[: request.examples],
        targets=targets[: request.examples],
        test=(inputs[:1000], targets[:1000]),
        build=lambda: nn.Sequential(nn.Linear(20, 2)),
        mean=0.0,
        std=1.0,
        goodfit={"recipe": "mnist-mlp", "settings": network},
        epochs=request.epochs,
        batch_size=32,
        device=request.device,
    )


WORKS = {"mnist-mlp": mnist_mlp, "cifar10-quick": cifar10_quick, "tiny": tiny}
