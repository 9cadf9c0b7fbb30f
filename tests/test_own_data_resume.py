"""Stopped runs over the user's own data sets and loaders end with the same bytes as those that were never stopped."""

import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from harness import StopAt, fingerprints, silent
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, WeightedRandomSampler
from two_inputs import Both

from goodfit.config import Layer
from goodfit.errors import Interrupted
from goodfit.models.own import own_model
from goodfit.signals import StopSignals
from goodfit.training.own import OwnCode
from goodfit.workflows import Request, resume, train, verify

SETTINGS: dict[str, Any] = {
    "data.name": "memory",
    "train.threads": 1,
    "train.device": "cpu",
    "train.epochs": 3,
    "checkpoint.every_seconds": 0.0,
    "log.every_steps": 2,
}


class Points(Dataset[Any]):
    """Noisy points: what an example is depends on all three generators that people draw from."""

    def __init__(self, count: int = 60) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        noise = torch.randn(4) * 0.1 + random.random() * 0.1 + float(np.random.rand()) * 0.1
        return torch.tensor([index % 3, index % 5, 1.0, 0.0]) + noise, index % 3


class Stream(IterableDataset[Any]):
    def __init__(self, count: int) -> None:
        self.points = Points(count)

    def __iter__(self) -> Any:
        return (self.points[index] for index in range(len(self.points)))


class Pairs(Dataset[Any]):
    def __len__(self) -> int:
        return 60

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"left": torch.randn(4) + index % 3, "right": torch.ones(2) * (index % 3), "label": index % 3}


def weighted(workers: int) -> DataLoader[Any]:
    weights = [1.0 + index % 3 for index in range(60)]
    sampler = WeightedRandomSampler(weights, 50, generator=torch.Generator())
    return DataLoader(Points(), batch_size=9, sampler=sampler, num_workers=workers)


CASES: dict[str, Any] = {
    "map-style": lambda: (Points(), {"train.batch_size": 9}),
    "loader": lambda: (DataLoader(Points(), batch_size=9, shuffle=True), {}),
    "loader that drops the last": lambda: (DataLoader(Points(), batch_size=8, shuffle=True, drop_last=True), {}),
    "loader, 1 process": lambda: (DataLoader(Points(), batch_size=9, shuffle=True, num_workers=1), {}),
    "loader, 2 processes": lambda: (DataLoader(Points(), batch_size=9, shuffle=True, num_workers=2), {}),
    "weighted": lambda: (weighted(0), {}),
    "weighted, 2 processes": lambda: (weighted(2), {}),
    "subset": lambda: (Subset(Points(), range(0, 60, 2)), {"train.batch_size": 5}),
    "several inputs": lambda: (Pairs(), {"train.batch_size": 9}),
    "iterable": lambda: (Stream(60), {"train.batch_size": 9}),
    "accumulated": lambda: (DataLoader(Points(), batch_size=9, shuffle=True), {"train.accumulate": 2}),
    "averaged": lambda: (Points(), {"train.batch_size": 9, "train.ema": 0.9}),
}


@pytest.mark.parametrize("name", CASES)
def test_a_stopped_run_ends_with_the_same_bytes(name: str, tmp_path: Path) -> None:
    train_set, settings = CASES[name]()
    kind = type(train_set[0]) if name == "several inputs" else tuple
    held_out = Pairs() if kind is dict else Points(30)
    data = {"train": train_set, "val": held_out, "test": held_out}
    own = OwnCode(own_model(Both if kind is dict else lambda: nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 3))))
    layers = [Layer("test", SETTINGS | settings)]

    def request(out: Path) -> Request:
        return Request(data, layers, recipe="auto", out=out, own=own)

    whole = train(request(tmp_path / "whole"), silent(), StopSignals())
    for stops in ([1], [4, 3], [9, 1]) if "process" not in name else ([4, 3],):
        out = tmp_path / "-".join(map(str, stops))
        with suppress(Interrupted):
            train(request(out), silent(), StopAt(stops[0]))
        for steps in stops[1:]:
            with suppress(Interrupted):
                resume(out, silent(), StopAt(steps), data=data, own=own)
        assert fingerprints(resume(out, silent(), StopSignals(), data=data, own=own)) == fingerprints(whole)
    if "process" not in name:
        assert verify(whole.path, silent(), data=data, own=own).holds


def test_the_number_of_processes_changes_nothing(tmp_path: Path) -> None:
    held_out = Points(30)
    found = []
    for workers in (0, 1, 2):
        data = {
            "train": DataLoader(Points(), batch_size=9, shuffle=True, num_workers=workers),
            "val": held_out,
            "test": held_out,
        }
        request = Request(data, [Layer("test", SETTINGS)], recipe="auto", out=tmp_path / str(workers))
        found.append(fingerprints(train(request, silent(), StopSignals())))
    assert found[0] == found[1] == found[2]
