"""Checkpoints: whole or not there, and never outside their folder."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from test_state import assert_same, make, take_step

from goodfit.artefacts.checkpoint import (
    Checkpoint,
    Snapshot,
    _manifest_sha256,
    find_checkpoints,
    newest_checkpoint,
    remove_old,
    save_checkpoint,
)
from goodfit.artefacts.host_copy import HostCopy
from goodfit.errors import FileError, RunError
from goodfit.files import file_sha256
from goodfit.training.state import RunState

FILES = ("manifest.json", "state.json", "state.safetensors")


def save(folder: Path, *steps: int) -> RunState:
    """Save a state at each of `steps`, and return the last of them."""
    state = make()
    for step in steps:
        take_step(state)
        state.step = step
        save_checkpoint(folder, Snapshot.take(state, step / 4, HostCopy()))
    return state


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def newest(folder: Path) -> int | None:
    checkpoint, _ = newest_checkpoint(folder)
    return checkpoint.step if checkpoint else None


def test_a_state_is_the_same_after_a_checkpoint(tmp_path: Path) -> None:
    state = save(tmp_path, 3)
    checkpoint, damage = newest_checkpoint(tmp_path)
    assert checkpoint is not None
    assert (checkpoint.step, checkpoint.seconds, checkpoint.path, damage) == (3, 0.75, tmp_path / "step-3", [])
    other = make(seed=1)
    checkpoint.restore(other)
    assert_same(state, other)
    assert names(tmp_path / "step-3") == sorted(FILES)


def test_a_checkpoint_is_written_over_another_of_its_step(tmp_path: Path) -> None:
    save(tmp_path, 3)
    state = save(tmp_path, 1, 3)
    other = make(seed=1)
    checkpoint, _ = newest_checkpoint(tmp_path)
    assert checkpoint is not None
    checkpoint.restore(other)
    assert_same(state, other)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("mask", [0x01, 0x20, 0x2A, 0x80])  # 0x2a makes a space of a line break
def test_a_flipped_byte_is_noticed_and_its_file_named(tmp_path: Path, name: str, mask: int) -> None:
    save(tmp_path, 1, 2)
    path = tmp_path / "step-2" / name
    content = path.read_bytes()
    # Every byte of the manifest would be read; the others are under a digest, so that a few places stand for all.
    places = range(len(content)) if name == "manifest.json" else (0, 7, 8, len(content) // 2, len(content) - 1)
    for place in places:
        path.write_bytes(content[:place] + bytes([content[place] ^ mask]) + content[place + 1 :])
        checkpoint, damage = newest_checkpoint(tmp_path)
        assert checkpoint is not None
        assert checkpoint.step == 1, place
        assert "step-2" in damage[0]
        assert "\n" not in damage[0]
        assert name == "manifest.json" or name in damage[0]
    path.write_bytes(content)
    assert newest(tmp_path) == 2


@pytest.mark.parametrize("name", FILES)
def test_what_was_not_written_to_the_end_is_no_checkpoint(tmp_path: Path, name: str) -> None:
    save(tmp_path, 1, 2)
    path = tmp_path / "step-2" / name
    path.write_bytes(path.read_bytes()[:-1])
    assert newest(tmp_path) == 1
    path.unlink()
    assert newest(tmp_path) == 1


@pytest.mark.parametrize("text", ["", "3", "[]", "{}", '{"sha256": 3}', "[" * 20_000, '{"files": null, "step": "\\ud800"}'])
def test_a_manifest_of_something_else_is_no_checkpoint(tmp_path: Path, text: str) -> None:
    save(tmp_path, 1, 2)
    (tmp_path / "step-2" / "manifest.json").write_text(text)
    assert newest(tmp_path) == 1


def test_a_folder_with_another_step_s_name_is_no_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, 1, 2)
    shutil.copytree(tmp_path / "step-1", tmp_path / "step-9")
    checkpoint, damage = newest_checkpoint(tmp_path)
    assert checkpoint is not None
    assert checkpoint.step == 2
    assert "step-9' holds step 1, not that of its name" in damage[0]


def test_the_newest_is_found_whatever_lies_around_it(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path / "none") == (None, [])
    assert newest_checkpoint(tmp_path) == (None, [])
    save(tmp_path, 9, 10)
    for name in ("step-11", "step-", "step--1", "step-x", "steps", "best"):
        (tmp_path / name).mkdir()
    (tmp_path / "step-12").write_text("a file")
    checkpoint, damage = newest_checkpoint(tmp_path)
    assert checkpoint is not None
    assert checkpoint.step == 10  # by number, not by name
    assert len(damage) == 1
    assert "step-11' is not complete" in damage[0]
    remove_old(tmp_path, 1, None)
    assert names(tmp_path) == ["best", "step-", "step--1", "step-10", "step-12", "step-x", "steps"]


@pytest.mark.parametrize(
    ("keep", "best", "left"),
    [(1, None, [4]), (2, 1, [3, 4]), (9, None, [1, 2, 3, 4]), ("best", 2, [2, 4]), ("best", 4, [4]), ("best", None, [4])],
)
def test_what_is_not_to_be_kept_is_removed(tmp_path: Path, keep: object, best: int | None, left: list[int]) -> None:
    save(tmp_path, 1, 2, 3, 4)
    remove_old(tmp_path, "all", best)
    assert len(names(tmp_path)) == 4
    remove_old(tmp_path, keep, best)  # type: ignore[arg-type]
    assert names(tmp_path) == [f"step-{step}" for step in left]


def test_half_a_checkpoint_takes_no_place_of_a_whole_one(tmp_path: Path) -> None:
    save(tmp_path, 1, 2, 3, 4)
    (tmp_path / "step-3" / "manifest.json").unlink()
    remove_old(tmp_path, 2, None)
    assert names(tmp_path) == ["step-2", "step-4"]


def test_a_damaged_checkpoint_that_the_run_went_back_behind_gives_way(tmp_path: Path) -> None:
    save(tmp_path, 1, 9)
    (tmp_path / "step-9" / "state.json").write_text("{}")
    assert newest(tmp_path) == 1
    save(tmp_path, 5)
    remove_old(tmp_path, 1, None)  # or it would be kept as the newest
    assert names(tmp_path) == ["step-5"]
    assert newest(tmp_path) == 5


def test_the_state_of_another_configuration_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, Snapshot.take(make(ema=False), 0.0, HostCopy()))  # of step 0
    save(tmp_path, 1)
    for name, other in (("step-1", make(width=5)), ("step-0", make())):
        checkpoint = Checkpoint(tmp_path / name, 1, 0.0)
        with pytest.raises(FileError, match=r"the checkpoint does not fit this run's configuration: .*config\.toml changed"):
            checkpoint.restore(other)


def test_a_checkpoint_that_vanished_is_named(tmp_path: Path) -> None:
    save(tmp_path, 1)
    checkpoint, _ = newest_checkpoint(tmp_path)
    assert checkpoint is not None
    (checkpoint.path / "state.safetensors").unlink()
    with pytest.raises(FileError, match=r"cannot read the checkpoint .*step-1"):
        checkpoint.restore(make())


def test_a_checkpoint_of_a_newer_goodfit_stops_a_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 1)
    monkeypatch.setattr("goodfit.artefacts.checkpoint.FORMAT", 2)
    save(tmp_path, 2)
    monkeypatch.undo()
    with pytest.raises(FileError, match=r"step-2' has format 2, not 1; update goodfit"):
        newest_checkpoint(tmp_path)


def test_a_link_to_elsewhere_is_neither_read_nor_written_nor_emptied(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    save(outside, 3)
    before = {path: path.read_bytes() for path in outside.rglob("*") if path.is_file()}
    save(inside, 1)
    (inside / "step-3").symlink_to(outside / "step-3", target_is_directory=True)
    assert newest(inside) == 1
    remove_old(inside, 1, None)
    save(inside, 3)
    assert not (inside / "step-3").is_symlink()
    (inside / "step-3" / "state.json").unlink()
    (inside / "step-3" / "state.json").symlink_to(outside / "step-3" / "state.json")
    save(inside, 1, 3)
    (inside / "step-3.before").symlink_to(outside / "step-3", target_is_directory=True)
    save(inside, 3)
    assert {path: path.read_bytes() for path in outside.rglob("*") if path.is_file()} == before


def test_a_manifest_leads_to_no_other_file(tmp_path: Path) -> None:
    save(tmp_path, 1)
    manifest = json.loads((tmp_path / "step-1" / "manifest.json").read_text())
    manifest["files"] = {f"../../{name}": listed for name, listed in manifest["files"].items()}
    (tmp_path / "step-1" / "manifest.json").write_text(json.dumps(manifest, indent=1))
    assert newest(tmp_path) is None


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "step-1").write_text("a file")
    with pytest.raises(RunError, match=r"cannot write the checkpoint .*step-1.*; free space and resume"):
        save(tmp_path, 1)


def test_saving_changes_nothing_in_the_state(tmp_path: Path) -> None:
    state, other = make(), make()
    for each in (state, other):
        take_step(each)
    save_checkpoint(tmp_path, Snapshot.take(state, 0.0, HostCopy()))
    assert_same(state, other)
    weight = state.model.conv.weight
    assert isinstance(weight, torch.nn.Parameter)
    assert weight.is_contiguous(memory_format=torch.channels_last)


def test_checkpoints_are_listed_oldest_first(tmp_path: Path) -> None:
    save(tmp_path, 2, 10)
    assert [path.name for path in find_checkpoints(tmp_path)] == ["step-2", "step-10"]


@pytest.mark.parametrize("text", ['{"step": 1e999}', "[" * 100_000], ids=["a number that is none", "lists in lists"])
def test_values_that_no_run_writes_are_refused_though_their_sum_is_right(tmp_path: Path, text: str) -> None:
    state = save(tmp_path, 1)
    path = tmp_path / "step-1"
    values = json.loads((path / "state.json").read_text())
    content = text if text.startswith("[") else json.dumps(values | {"step": float("inf")})
    (path / "state.json").write_text(content)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"]["state.json"] = {"bytes": len(content), "sha256": file_sha256(path / "state.json")}
    manifest["sha256"] = _manifest_sha256(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest, indent=1))
    checkpoint, damage = newest_checkpoint(tmp_path)
    assert checkpoint is not None, damage
    with pytest.raises(FileError, match=r"cannot read the checkpoint .*; was it changed by hand\?"):
        checkpoint.restore(state)


def test_a_manifest_that_is_far_too_long_is_not_read_to_its_end(tmp_path: Path) -> None:
    save(tmp_path, 1)
    manifest = json.loads((tmp_path / "step-1" / "manifest.json").read_text()) | {"more": "x" * (1 << 20)}
    manifest["sha256"] = _manifest_sha256(manifest)
    (tmp_path / "step-1" / "manifest.json").write_text(json.dumps(manifest, indent=1))
    assert newest_checkpoint(tmp_path)[0] is None


def test_half_a_checkpoint_goes_where_all_are_kept(tmp_path: Path) -> None:
    for step in (1, 2):
        (tmp_path / f"step-{step}").mkdir()
    (tmp_path / "step-2" / "manifest.json").write_text("{}")
    remove_old(tmp_path, "all", None)
    assert [path.name for path in tmp_path.iterdir()] == ["step-2"]
