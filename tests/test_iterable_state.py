"""An iterable data set that can say where it is goes on from there; what came before is not read again."""

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from harness import StopAt, fingerprints, run_through, run_with_stops, silent
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from goodfit.artefacts.checkpoint import newest_checkpoint
from goodfit.config import Layer
from goodfit.data.own import read_own
from goodfit.errors import Interrupted
from goodfit.models.own import own_model
from goodfit.signals import StopSignals
from goodfit.training.own import OwnCode
from goodfit.workflows import Request, resume, train, verify

COUNT = 60
SETTINGS: dict[str, Any] = {
    "model.name": "mlp",
    "model.hidden": [8],
    "train.batch_size": 9,  # 7 steps an epoch
    "train.epochs": 3,
    "train.threads": 1,
    "train.precision": "fp32",
    "checkpoint.every_seconds": 0.0,
    "log.every_steps": 2,
}


def example(index: int) -> tuple[Tensor, int]:
    return torch.tensor([index % 3, index % 5, 1.0, 0.0]) + torch.randn(4) * 0.1, index % 3


class Stream(IterableDataset[Any]):
    """Counts what is read of it."""

    read = 0
    has_words = False

    def __init__(self) -> None:
        self.place = self.start = 0

    def __iter__(self) -> Iterator[Any]:
        start, self.start = self.start, 0
        for self.place in range(start + 1, COUNT + 1):
            Stream.read += 1
            yield example(self.place - 1)

    def state_dict(self) -> dict[str, Any]:
        return {"place": object() if self.has_words else self.place}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.start = state["place"]


class Batches(DataLoader[Any]):
    """A loader that can say where it is, after each of its 7 batches."""

    def __init__(self) -> None:
        super().__init__(Stream(), batch_size=9)
        self.place = self.start = 0

    def __iter__(self) -> Any:
        start, self.start = self.start, 0
        for self.place in range(start + 1, 8):
            examples = [example(index) for index in range(COUNT)[9 * (self.place - 1) : 9 * self.place]]
            yield torch.stack([inputs for inputs, _ in examples]), torch.tensor([target for _, target in examples])

    def state_dict(self) -> dict[str, Any]:
        return {"place": self.place}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.start = state["place"]


def hugging_face() -> Any:
    columns = {"x": np.random.default_rng(0).normal(size=(COUNT, 4)).tolist(), "label": [index % 3 for index in range(COUNT)]}
    return datasets.Dataset.from_dict(columns).with_format("torch").to_iterable_dataset()


def data(kind: Any) -> Any:
    held_out = [(torch.tensor([index % 3, index % 5, 1.0, 0.0]), index % 3) for index in range(9)]
    return {"train": kind(), "val": held_out, "test": held_out}


@pytest.mark.parametrize("kind", [Stream, Batches])
@pytest.mark.parametrize("stops", [[3], [7], [10, 2], [1, 1, 1]])
def test_a_stopped_run_ends_with_the_same_bytes(kind: Any, stops: list[int], tmp_path: Path) -> None:
    expected = fingerprints(run_through(data(kind), tmp_path / "through", SETTINGS))
    stopped = run_with_stops(data(kind), tmp_path / "stopped", SETTINGS, stops)
    assert fingerprints(stopped) == expected


@pytest.mark.parametrize("stops", [[3], [10, 2]])
def test_a_stream_of_hugging_face_goes_on(stops: list[int], tmp_path: Path) -> None:
    held_out = datasets.Dataset.from_dict({"x": [[1.0, 2.0, 3.0, 4.0]] * 3, "label": [0, 1, 2]}).with_transform(as_tensors)

    def parts() -> Any:
        return {"train": hugging_face(), "val": held_out, "test": held_out}

    own = OwnCode(model=own_model(Net))
    layers = [Layer("test", {"data.name": "memory"} | {key: value for key, value in SETTINGS.items() if key[:5] != "model"})]
    expected = train(Request(data=parts(), layers=layers, out=tmp_path / "through", own=own), silent(), StopSignals())
    for number, stop in enumerate(stops):
        with suppress(Interrupted):
            if number:
                resume(tmp_path / "run", silent(), StopAt(stop), data=parts(), own=own)
            else:
                train(Request(data=parts(), layers=layers, out=tmp_path / "run", own=own), silent(), StopAt(stop))
    (checkpoint, _) = newest_checkpoint(tmp_path / "run" / "checkpoints")
    assert checkpoint is not None
    assert json.loads((checkpoint.path / "state.json").read_text())["reader"]["step"] == checkpoint.step
    assert fingerprints(resume(tmp_path / "run", silent(), StopSignals(), data=parts(), own=own)) == fingerprints(expected)


def as_tensors(batch: dict[str, Any]) -> dict[str, Tensor]:
    return {name: torch.tensor(values) for name, values in batch.items()}


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


def test_what_came_before_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    note = "Stream can only be read in its own order, from its start"
    assert note in read_own(data(Stream)).notes
    Stream.read = 0
    through = run_through(data(Stream), tmp_path / "through", SETTINGS)
    expected, learned = fingerprints(through), Stream.read - 3 * COUNT
    Stream.read = 0
    assert fingerprints(run_with_stops(data(Stream), tmp_path / "stopped", SETTINGS, [4])) == expected
    assert Stream.read == 2 * learned + 3 * COUNT

    monkeypatch.setattr(Stream, "has_words", True)  # which no checkpoint can hold
    Stream.read = 0
    assert fingerprints(run_with_stops(data(Stream), tmp_path / "again", SETTINGS, [4])) == expected
    assert Stream.read == 2 * learned + 3 * COUNT + 4 * 9


def test_the_state_is_in_the_checkpoint_and_a_run_is_verified(tmp_path: Path) -> None:
    run = run_through(data(Stream), tmp_path / "run", SETTINGS | {"checkpoint.every_steps": 5, "checkpoint.keep": 9})
    assert verify(run.path, silent(), data=data(Stream)).holds
    (tmp_path / "run" / "checkpoints" / "step-21").rename(tmp_path / "gone")
    checkpoint, _ = newest_checkpoint(run.checkpoints)
    assert checkpoint is not None
    assert '"place": 54' in (checkpoint.path / "state.json").read_text()
