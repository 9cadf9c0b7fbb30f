"""`resume --verify`: a run is replayed between its checkpoints, and what differs is named."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from command import goodfit
from harness import StopAt, request, run_through, silent, tiny_pictures
from safetensors.torch import load_file

from goodfit.artefacts.checkpoint import Snapshot, newest_checkpoint, save_checkpoint
from goodfit.artefacts.run import Run
from goodfit.errors import FileError, Interrupted
from goodfit.workflows import train, verify

DATA = {"train": tiny_pictures()}
SETTINGS: dict[str, Any] = {
    "model.name": "convnet",
    "model.dropout": 0.2,
    "augment.crop": 1,
    "train.epochs": 3,
    "train.batch_size": 8,
    "train.ema": 0.9,
    "train.threads": 1,
    "checkpoint.every_steps": 4,
    "checkpoint.keep": 3,
}


def content(run: Run) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}


def tamper(run: Run, name: str) -> None:
    """Change one number of the newest checkpoint, and sign it."""
    checkpoint, _ = newest_checkpoint(run.checkpoints)
    assert checkpoint is not None
    tensors = load_file(checkpoint.path / "state.safetensors")
    tensors[name].view(-1)[0] += 1
    values = json.loads((checkpoint.path / "state.json").read_text())
    save_checkpoint(run.checkpoints, Snapshot(checkpoint.step, checkpoint.seconds, tensors, values))


def test_a_finished_run_is_replayed_between_its_checkpoints_and_left_as_it_is(tmp_path: Path) -> None:
    run = run_through(DATA, tmp_path / "run", SETTINGS)
    before = content(run)
    found = verify(run.path, silent(), data=DATA)
    assert found.to_json() == {"verified": True, "damage": [], "replayed": [[12, 16], [16, 18]], "difference": None}
    assert content(run) == before
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == ["run"]


@pytest.mark.parametrize(("stop", "step"), [(4, 4), (6, 6), (7, 6), (8, 7)])  # the 7th question comes in an evaluation
def test_a_stopped_run_with_one_checkpoint_is_replayed_from_its_beginning(tmp_path: Path, stop: int, step: int) -> None:
    with suppress(Interrupted):
        train(request(DATA, tmp_path / "run", SETTINGS | {"checkpoint.every_steps": 0}), silent(), StopAt(stop))
    found = verify(tmp_path / "run", silent(), data=DATA)
    assert found.holds
    assert found.replayed == ((0, step),)


def test_the_first_tensor_that_differs_is_named(tmp_path: Path) -> None:
    run = run_through(DATA, tmp_path / "run", SETTINGS)
    tamper(run, "model.head.bias")
    found = verify(run.path, silent(), data=DATA)
    assert not found.holds
    assert found.difference == "model.head.bias at step-18"


def test_a_damaged_checkpoint_is_named_and_the_others_are_replayed(tmp_path: Path) -> None:
    run = run_through(DATA, tmp_path / "run", SETTINGS)
    with (run.checkpoints / "step-12" / "state.json").open("ab") as file:
        file.write(b" ")
    found = verify(run.path, silent(), data=DATA)
    assert not found.holds
    assert found.replayed == ((16, 18),)
    assert len(found.damage) == 1
    assert "step-12" in found.damage[0]


def test_a_run_without_a_checkpoint_cannot_be_verified(tmp_path: Path) -> None:
    run = run_through(DATA, tmp_path / "run", SETTINGS)
    for path in run.checkpoints.rglob("manifest.json"):
        path.unlink()
    with pytest.raises(FileError, match="has no whole checkpoint to verify; go on with it: goodfit resume"):
        verify(run.path, silent(), data=DATA)


def test_the_command_says_what_was_found() -> None:
    tiny = ("--model", "mlp", "--epochs", "2", "--set", "train.threads=1", "--set", "checkpoint.every_steps=30")
    assert goodfit("train", *tiny, "--out", "run").code == 0
    done = goodfit("resume", "run", "--verify")
    assert (done.code, done.err) == (0, "")
    assert "every bit is the same" in done.out
    asked = goodfit("resume", "run", "--verify", "--json")
    assert asked.json["verified"] is True
    tamper(Run(Path("run")), "model.fc1.bias")
    done = goodfit("resume", "run", "--verify")
    assert done.code == 1
    assert "model.fc1.bias at step-" in done.out
    refused = goodfit("resume", "run", "--verify", "--epochs", "3")
    assert refused.code == 2
    assert "--epochs" in refused.err
