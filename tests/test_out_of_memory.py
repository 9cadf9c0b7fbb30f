"""A device with too little memory for some step, played by a forward pass that raises torch's own error at its end."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from command import torchrun
from harness import StopAt, fingerprints, request, run_through, run_with_stops, silent, tiny_pictures

from goodfit.artefacts.records import BackRecord, Record
from goodfit.artefacts.run import Run
from goodfit.display import Display
from goodfit.distributed import Ranks
from goodfit.errors import DeviceError, FileError, Interrupted, OutOfMemoryError, RunError
from goodfit.inputs import Inputs
from goodfit.session import make_session
from goodfit.signals import StopSignals
from goodfit.training.trainer import Trainer
from goodfit.workflows import plan, resume, train, verify

DATA = {"train": tiny_pictures()}
SETTINGS: dict[str, Any] = {
    "model.name": "convnet",  # keeps statistics of batches, which a step that breaks off has already changed
    "model.width": 4,
    "train.epochs": 2,
    "train.batch_size": 8,  # 6 steps an epoch, the last of 3 examples
    "train.threads": 1,
    "train.precision": "fp32",
    "checkpoint.every_seconds": 0.0,
    "log.every_steps": 2,
}


class Device:
    """Holds no more than `room[step]` examples at that step, the first `times` times that it is asked to."""

    def __init__(self) -> None:
        self.room: dict[int, int] = {}
        self.times = 1
        self.seen: list[tuple[int, int]] = []  # the step, and how many examples there were at a time

    def hold(self, step: int, count: int) -> None:
        self.seen.append((step, count))
        if count > self.room.get(step, count) and self.times:
            self.times -= 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    device, forward = Device(), Trainer._forward

    def forward_on_device(trainer: Trainer, inputs: Inputs) -> Any:
        outputs = forward(trainer, inputs)
        device.hold(trainer.state.step, len(outputs))
        return outputs

    monkeypatch.setattr(Trainer, "_forward", forward_on_device)
    return device


def halvings(run: Run) -> list[tuple[int, int]]:
    return [(line["step"], line["accumulate"]) for line in run.metrics if line["event"] == "halving"]


def words(stream: io.StringIO) -> str:
    return " ".join(stream.getvalue().split())


def test_batches_are_cut_from_the_step_on_that_was_too_large(tmp_path: Path, device: Device) -> None:
    device.room = {6: 4}
    stream = io.StringIO()
    run = train(request(DATA, tmp_path / "run", SETTINGS), Display(stream), StopSignals())
    assert halvings(run) == [(7, 2)]
    assert json.loads((run.path / "halvings.json").read_text()) == [{"step": 6, "accumulate": 2}]
    repeated = device.seen[7:]
    assert [count for step, count in repeated if step < 6] == [8, 8, 8, 8, 8, 3]
    assert [count for step, count in repeated if step in (6, 7)] == [4, 4, 4, 4]
    assert run.end is not None
    said = "memory ran out at step 7 with 8 examples at a time: 4 from that step on; going on from step 0"
    assert said in words(stream)


def test_nothing_stays_of_the_step_that_broke_off(tmp_path: Path, device: Device) -> None:
    device.room = {6: 4}
    run = run_through(DATA, tmp_path / "run", SETTINGS)
    other = tmp_path / "other"  # to which the same is said in a way that needs no error
    with pytest.raises(Interrupted):
        train(request(DATA, other, SETTINGS), silent(), StopAt(3))
    (other / "halvings.json").write_text('[{"step": 6, "accumulate": 2}]')
    assert fingerprints(run) == fingerprints(resume(other, silent(), StopSignals(), data=DATA))
    assert fingerprints(run) != fingerprints(run_through(DATA, tmp_path / "whole", SETTINGS))


def test_the_micro_batch_is_halved_until_it_fits(tmp_path: Path, device: Device) -> None:
    device.room, device.times = {2: 3}, 2
    run = run_through(DATA, tmp_path / "run", SETTINGS)
    assert halvings(run) == [(3, 2), (3, 4)]
    assert device.seen[-1][1] <= 3


@pytest.mark.parametrize("step", [0, 3, 8])
@pytest.mark.parametrize("stops", [[2], [7], [3, 4, 1]])
def test_a_run_that_is_stopped_ends_with_the_same_bytes(tmp_path: Path, device: Device, step: int, stops: list[int]) -> None:
    device.room = {step: 4}
    expected = fingerprints(run_through(DATA, tmp_path / "through", SETTINGS))
    device.times = 1
    assert fingerprints(run_with_stops(DATA, tmp_path / "stopped", SETTINGS, stops)) == expected


class Copier(Display):
    """Copies the run folder when the run goes back: what a process that is killed then leaves."""

    def __init__(self, run: Path, copy: Path) -> None:
        super().__init__(io.StringIO(), is_silent=True)
        self.run, self.copy = run, copy

    def observe(self, record: Record) -> None:
        if isinstance(record, BackRecord):
            shutil.copytree(self.run, self.copy)
        super().observe(record)


def test_the_journal_is_on_disk_before_the_step_is_repeated(tmp_path: Path, device: Device) -> None:
    device.room = {6: 4}
    screen = Copier(tmp_path / "run", tmp_path / "killed")
    often = SETTINGS | {"checkpoint.every_steps": 4}
    expected = fingerprints(train(request(DATA, tmp_path / "run", often), screen, StopSignals()))
    assert device.times == 0, "memory suffices for all that follows"
    stream = io.StringIO()
    run = resume(tmp_path / "killed", Display(stream), StopSignals(), data=DATA)
    assert fingerprints(run) == expected
    assert "from step 7 on batches are computed in 2 parts: memory ran out there" in words(stream)


def test_a_run_that_was_short_of_memory_is_verified(tmp_path: Path, device: Device) -> None:
    device.room = {5: 4}
    run = run_through(DATA, tmp_path / "run", SETTINGS | {"checkpoint.every_steps": 3, "checkpoint.keep": 9})
    assert verify(run.path, silent(), data=DATA).holds
    (run.path / "halvings.json").write_text('[{"step": 4, "accumulate": 2}]')
    assert not verify(run.path, silent(), data=DATA).holds


def test_one_example_that_does_not_fit_ends_the_run(tmp_path: Path, device: Device) -> None:
    device.room, device.times = {1: 0}, 100
    with pytest.raises(RunError, match="memory ran out at step 2 with 1 examples at a time; no less is possible: choose"):
        run_through(DATA, tmp_path / "run", SETTINGS)
    assert (tmp_path / "run" / "halvings.json").exists()


def test_memory_that_runs_out_elsewhere_is_said_with_the_way_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def evaluate(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("goodfit.fitting.evaluate", evaluate)
    with pytest.raises(
        RunError, match=r"memory ran out beside the batch of step 6, .* free some on cpu, then: goodfit resume "
    ):
        run_through(DATA, tmp_path / "run", SETTINGS)


def test_a_model_that_does_not_fit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def move(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.nn.Module, "to", move)
    with pytest.raises(DeviceError, match="the model convnet does not fit into the memory of cpu; choose another"):
        run_through(DATA, tmp_path / "run", SETTINGS)
    assert not (tmp_path / "run").exists()


def test_a_loop_of_the_users_own_is_told(tmp_path: Path, device: Device) -> None:
    session = make_session(plan(request(DATA, tmp_path / "run", SETTINGS), silent()), Ranks(), lambda: False)
    device.room = {0: 4}
    with pytest.raises(OutOfMemoryError, match="memory ran out at step 1 with 8 examples at a time"):
        next(session.steps())


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.raises(Interrupted):
        train(request(DATA, out, SETTINGS), silent(), StopAt(3))
    return out


@pytest.mark.parametrize("text", ["[", '[{"step": 1}]', '[{"step": "a", "accumulate": 2}]', "[1]", "7", "[" * 5000])
def test_a_journal_that_was_changed_is_named(stopped: Path, text: str) -> None:
    (stopped / "halvings.json").write_text(text)
    with pytest.raises(FileError, match=r"halvings\.json.*was it changed by hand"):
        resume(stopped, silent(), StopSignals(), data=DATA)


NET = """
import os, torch
from torch import nn

class Net(nn.Module):
    passes = 0

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

    def forward(self, x):
        if self.training and os.environ["RANK"] == "1":
            Net.passes += 1
            if Net.passes == 9 and len(x) > 8:
                raise torch.OutOfMemoryError("CUDA out of memory")
        return self.layers(x)
"""


@pytest.mark.slow
def test_all_ranks_take_less_where_one_is_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(NET)
    settings = ("--epochs", "1", "--batch-size", "32", "--set", "train.threads=1", "--set", "train.precision=fp32")
    done = torchrun("train", "digits", "--model", "net.py:Net", *settings, "--out", "run", "--json")
    assert done.code == 0, done.err
    (found,) = halvings(Run(Path("run")))
    assert found[1] == 2
    assert "with 16 examples at a time: 8 from that step on" in " ".join(done.err.split())
