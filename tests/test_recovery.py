"""Trouble while training: a batch that breaks the numbers is left out, and a disk that is full for a while costs nothing."""

import io
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from harness import fingerprints, request, run_through, run_with_stops, silent

from goodfit.artefacts.checkpoint import newest_checkpoint
from goodfit.artefacts.records import Record, TroubleRecord
from goodfit.artefacts.run import Run
from goodfit.display import Display
from goodfit.errors import DivergedError, RunError
from goodfit.signals import StopSignals
from goodfit.workflows import resume, train

BASE: dict[str, Any] = {
    "model.name": "mlp",
    "model.hidden": [8],
    "train.epochs": 2,
    "train.batch_size": 8,  # 5 steps an epoch
    "train.threads": 1,
    "train.precision": "fp32",
    "optim.name": "sgd",
    "optim.lr": 0.1,
    "optim.momentum": 0.9,
    "checkpoint.every_seconds": 0.0,
    "log.every_steps": 2,
}
BAD = 17


def numbers(seed: int, *, bad: bool = False) -> tuple[Any, Any]:
    """Two classes by a sum; with a number that is finite, and whose product with a weight is not."""
    inputs = np.random.default_rng(seed).normal(size=(40, 3)).astype(np.float32)
    targets = np.where(inputs.sum(1) > 0, "up", "down")
    if bad:
        inputs[BAD] = 3e38
    return inputs, targets


DATA = {"train": numbers(0, bad=True), "val": numbers(1), "test": numbers(2)}
RAW = {"transform.mean": 0.0, "transform.std": 0.1}


def skips(run: Run) -> list[dict[str, Any]]:
    return [line for line in run.metrics if line["event"] == "skip"]


def test_a_step_that_breaks_the_numbers_is_left_out_and_named(tmp_path: Path) -> None:
    stream = io.StringIO()
    train(request(DATA, tmp_path / "run", BASE | RAW), Display(stream), StopSignals())
    run = Run(tmp_path / "run")
    assert [line["epoch"] <= 1 for line in skips(run)] == [True, False], "once an epoch"
    for line in skips(run):
        assert f"example {BAD}" in line["examples"]
        assert len(line["examples"]) == 8
    assert run.end is not None
    assert run.end["step"] == 10
    assert run.best is not None
    assert all(torch.isfinite(tensor).all() for tensor in run.best.tensors.values())
    checkpoint, _ = newest_checkpoint(run.checkpoints)
    assert checkpoint is not None
    assert '"skipped_steps"' in (checkpoint.path / "state.json").read_text()
    assert stream.getvalue().count("is left out") == 2


@pytest.mark.parametrize("settings", [{"checkpoint.every_steps": 1}, {"checkpoint.every_steps": 3}, {"log.every_steps": 1}])
def test_what_is_left_out_does_not_depend_on_when_it_was_noticed(tmp_path: Path, settings: dict[str, Any]) -> None:
    expected = run_through(DATA, tmp_path / "expected", BASE | RAW)
    run = run_through(DATA, tmp_path / "run", BASE | RAW | settings)
    assert [line["step"] for line in skips(run)] == [line["step"] for line in skips(expected)]
    assert run.best is not None
    assert expected.best is not None
    assert all(torch.equal(tensor, expected.best.tensors[name]) for name, tensor in run.best.tensors.items())


def test_the_way_back_to_the_start_is_open_for_every_optimizer(tmp_path: Path) -> None:
    """AdamW's betas are a tuple in memory and a list in a checkpoint."""
    adamw = {key: value for key, value in BASE.items() if not key.startswith("optim.")} | {
        "optim.name": "adamw",
        "optim.lr": 0.01,
    }
    run = run_through(DATA, tmp_path / "run", adamw | RAW)
    assert len(skips(run)) == 2


@pytest.mark.parametrize("stops", [[1], [3, 2], [2, 1, 4]])
def test_a_run_with_a_step_left_out_resumes_exactly(tmp_path: Path, stops: list[int]) -> None:
    settings = BASE | RAW | {"log.every_steps": 1}
    expected = fingerprints(run_through(DATA, tmp_path / "through", settings))
    assert fingerprints(run_with_stops(DATA, tmp_path / "stopped", settings, stops)) == expected


def test_the_third_step_to_break_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match=r"3 steps did that; the run is good up to step \d+; try a lower learning rate"):
        run_through(DATA, tmp_path / "run", BASE | RAW | {"train.epochs": 3})
    checkpoint, damage = newest_checkpoint(tmp_path / "run" / "checkpoints")
    assert damage == []
    assert checkpoint is None or checkpoint.step < 15


class DiskFull(StopSignals):
    """Lets no file grow from the 8th question on, which is step 7's, as a full disk does."""

    def __init__(self) -> None:
        super().__init__()
        self.left = 8
        self.limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def asked(self) -> bool:
        self.left -= 1
        if self.left == 0:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, self.limits[1]))
        return False

    def lift(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self.limits)


class Tidier(Display):
    """Frees space as soon as it hears that a save has failed."""

    def __init__(self, disk: DiskFull) -> None:
        super().__init__(io.StringIO())
        self.disk = disk
        self.heard: list[str] = []

    def observe(self, record: Record) -> None:
        if isinstance(record, TroubleRecord):
            self.heard.append(record.text)
            self.disk.lift()
        super().observe(record)


CLEAN = {"train": numbers(0), "val": numbers(1), "test": numbers(2)}
OFTEN = BASE | {"checkpoint.every_steps": 2, "train.epochs": 3}


def test_a_disk_that_is_full_for_a_while_costs_nothing(tmp_path: Path) -> None:
    expected = fingerprints(run_through(CLEAN, tmp_path / "through", OFTEN))
    disk = DiskFull()
    display = Tidier(disk)
    try:
        run = train(request(CLEAN, tmp_path / "run", OFTEN), display, disk)
    finally:
        disk.lift()
    assert fingerprints(run) == expected
    assert len(display.heard) == 1
    assert "File too large" in display.heard[0]
    assert "the next save tries again" in display.heard[0]


def test_a_disk_that_stays_full_ends_the_run_and_leaves_what_was_saved(tmp_path: Path) -> None:
    expected = fingerprints(run_through(CLEAN, tmp_path / "through", OFTEN))
    disk = DiskFull()
    try:
        with pytest.raises(RunError, match=r"save 3 to fail in a row, and what was saved before is whole: goodfit resume"):
            train(request(CLEAN, tmp_path / "run", OFTEN), silent(), disk)
    finally:
        disk.lift()
    checkpoint, _ = newest_checkpoint(tmp_path / "run" / "checkpoints")
    assert checkpoint is not None
    assert checkpoint.step in (4, 6), "whether the one of step 6 was written before the disk was full"
    run = resume(tmp_path / "run", silent(), StopSignals(), data=CLEAN)
    assert fingerprints(run) == expected
