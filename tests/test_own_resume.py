"""Stopped runs of the user's own code end with the same bytes as those that were never stopped."""

import functools
import io
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from harness import StopAt, fingerprints
from torch import Tensor, nn
from torch.optim.lr_scheduler import CyclicLR, MultiStepLR, ReduceLROnPlateau

from goodfit.artefacts.run import Run
from goodfit.config import Layer
from goodfit.display import Display
from goodfit.errors import ConfigError, Interrupted
from goodfit.models.own import own_model
from goodfit.signals import StopSignals
from goodfit.training.own import OwnCode
from goodfit.workflows import Request, resume, train, verify

X = np.random.default_rng(0).normal(size=(75, 6)).astype(np.float32)
Y = (X[:, 0] + X[:, 1] > 0).astype(int) + (X[:, 2] > 0)
SETTINGS: dict[str, Any] = {
    "data.name": "memory",
    "train.threads": 1,
    "train.device": "cpu",
    "train.batch_size": 9,  # 6 steps an epoch
    "train.epochs": 3,
    "optim.lr": 0.05,
    "checkpoint.every_seconds": 0.0,
    "log.every_steps": 2,
}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.norm, self.fc2 = nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        noise = float(np.random.rand()) if self.training else 0.5
        return self.fc2(F.dropout(torch.relu(self.norm(self.fc1(x))), 0.3, self.training) * (1 + noise))


def with_groups(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.AdamW([{"params": parameters[:2], "lr": 0.003}, {"params": parameters[2:]}], lr=0.01, amsgrad=True)


def built() -> OwnCode:
    torch.manual_seed(3)
    net = Net()
    optimizer = torch.optim.RMSprop(net.parameters(), lr=0.01, momentum=0.5)
    return OwnCode(own_model(net), optimizer=optimizer, schedule=MultiStepLR(optimizer, [1, 2], gamma=0.3))


class Adaptive(torch.optim.Optimizer):
    """An optimiser of the user's own, with a number and a tensor for state."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, {"lr": 0.05})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                kept = self.state[parameter]
                kept["count"] = kept.get("count", 0) + 1
                kept["mean"] = kept.get("mean", torch.zeros_like(parameter)).lerp(parameter.grad, 0.3)
                parameter.sub_(kept["mean"] * (group["lr"] / kept["count"] ** 0.5))


def plateau() -> OwnCode:
    schedule = functools.partial(ReduceLROnPlateau, patience=0, factor=0.5, threshold=1e9, threshold_mode="abs")
    return OwnCode(own_model(Net), optimizer=torch.optim.SGD, schedule=schedule)


CASES: dict[str, Any] = {
    "class": lambda: OwnCode(own_model(Net)),
    "instance with optimiser and scheduler": built,
    "sequential": lambda: OwnCode(own_model(nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.2), nn.ReLU(), nn.Linear(8, 3)))),
    "groups": lambda: OwnCode(own_model(Net), optimizer=with_groups),
    "plateau": plateau,
    "optimiser of one's own": lambda: OwnCode(own_model(Net), optimizer=Adaptive),
    "cyclic": lambda: OwnCode(
        own_model(Net),
        optimizer=torch.optim.SGD,
        schedule=functools.partial(CyclicLR, base_lr=0.01, max_lr=0.1, step_size_up=4),
    ),
    "own loss": lambda: OwnCode(
        loss=lambda outputs, targets: F.cross_entropy(outputs, targets) + outputs.square().mean() / 100
    ),
    "function of the step": lambda: OwnCode(own_model(Net), schedule=lambda step: 1 / (1 + step)),
}


def silent() -> Display:
    return Display(io.StringIO(), is_silent=True)


def request(own: OwnCode, out: Path) -> Request:
    settings = {key: value for key, value in SETTINGS.items() if key != "optim.lr" or own.optimizer in (None, torch.optim.SGD)}
    return Request({"train": (X, Y)}, [Layer("test", settings)], recipe="auto", out=out, own=own)


@pytest.mark.parametrize("name", CASES)
def test_a_stopped_run_ends_with_the_same_bytes(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    own = CASES[name]()
    whole = train(request(own, tmp_path / "whole"), silent(), StopSignals())
    for stops in ([1], [4, 3], [6], [11, 1, 1]):
        out = tmp_path / "-".join(map(str, stops))
        with suppress(Interrupted):
            train(request(own, out), silent(), StopAt(stops[0]))
        for steps in stops[1:]:
            with suppress(Interrupted):
                resume(out, silent(), StopAt(steps), data={"train": (X, Y)}, own=own)
        stopped = resume(out, silent(), StopSignals(), data={"train": (X, Y)}, own=own)
        assert fingerprints(stopped) == fingerprints(whole)
    assert verify(whole.path, silent(), data={"train": (X, Y)}, own=own).holds


def test_a_run_that_had_no_checkpoint_starts_from_the_weights_it_was_given(tmp_path: Path) -> None:
    whole = train(request(OwnCode(own_model(Net())), tmp_path / "whole"), silent(), StopSignals())
    torch.manual_seed(77)
    for path in whole.checkpoints.iterdir():
        for file in path.iterdir():
            file.unlink()
        path.rmdir()
    before = fingerprints_of_models(whole)
    with (whole.path / "metrics.jsonl").open("rb+") as log:
        log.truncate(0)
    again = resume(whole.path, silent(), StopSignals(), data={"train": (X, Y)}, own=OwnCode(own_model(Net)))
    assert fingerprints_of_models(again) == before


def fingerprints_of_models(run: Run) -> list[bytes]:
    return [run.model.read_bytes(), run.last.read_bytes()]


def test_what_was_given_is_asked_for_again(tmp_path: Path) -> None:
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets)

    own = OwnCode(own_model(Net), loss=loss, optimizer=with_groups)
    run = train(request(own, tmp_path / "run"), silent(), StopSignals())
    for missing, said in (
        (OwnCode(own_model(Net), optimizer=with_groups), r"train.loss = .* is code of your own.*; give it in Python: loss="),
        (OwnCode(own_model(Net), loss=loss), r"optim.name = .*with_groups' is code of your own.* optimizer="),
    ):
        with pytest.raises(ConfigError, match=said):
            resume(run.path, silent(), StopSignals(), data={"train": (X, Y)}, own=missing, epochs=9)
