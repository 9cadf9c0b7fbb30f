"""No save can be torn: it is killed, or fails, at every single operation on files, and a whole checkpoint is always there."""

import errno
import shutil
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from faults import faulty, killed_at, read_only_disk
from harness import BASE, fingerprints, request, run_through, silent, tiny_pictures
from test_state import assert_same, make, take_step

from goodfit.artefacts.checkpoint import Snapshot, newest_checkpoint, remove_old, save_checkpoint
from goodfit.artefacts.host_copy import HostCopy
from goodfit.artefacts.model_file import ModelFile
from goodfit.artefacts.run import create_run
from goodfit.config import Config
from goodfit.errors import GoodfitError, InputError, RunError
from goodfit.signals import StopSignals
from goodfit.training.state import RunState
from goodfit.workflows import resume, train

MANY = 200  # more operations than any of these has


def states(count: int) -> list[RunState]:
    """The same run after 1, 2, ... steps."""
    made = []
    for steps in range(1, count + 1):
        state = make()
        for _ in range(steps):
            take_step(state)
        made.append(state)
    return made


def save(folder: Path, state: RunState, keep: int = 1) -> None:
    save_checkpoint(folder, Snapshot.take(state, 0.0, HostCopy()))
    remove_old(folder, keep, None)


def assert_whole(folder: Path, *possible: RunState) -> None:
    """The newest checkpoint is one of these, and loads."""
    checkpoint, _ = newest_checkpoint(folder)
    assert checkpoint is not None, "no checkpoint was left"
    loaded = make()
    checkpoint.restore(loaded)
    assert_same(loaded, next(state for state in possible if state.step == checkpoint.step))


def at_every_operation(prepare: Callable[[Path], None], work: Callable[[Path], None], tmp_path: Path) -> int:
    """Kill `work` at each of its operations in a folder of its own, made by `prepare`; return how many there were."""
    for n in range(1, MANY):
        folder = tmp_path / f"killed-{n}"
        folder.mkdir()
        prepare(folder)
        if not killed_at(n, lambda folder=folder: work(folder)):
            return n - 1
    raise AssertionError("it never ended")


@pytest.mark.parametrize("keep", [1, 2])
def test_a_save_that_is_killed_anywhere_loses_no_checkpoint(tmp_path: Path, keep: int) -> None:
    first, second, third = states(3)

    def prepare(folder: Path) -> None:
        save(folder, first, keep)
        save(folder, second, keep)

    count = at_every_operation(prepare, lambda folder: save(folder, third, keep), tmp_path)
    assert count > 15
    for n in range(1, count + 1):
        assert_whole(tmp_path / f"killed-{n}", second, third)
        save(tmp_path / f"killed-{n}", third, keep)  # and the next save is like any other
        assert_whole(tmp_path / f"killed-{n}", third)


@pytest.mark.parametrize("operations", [0, 12])  # 12: the save before was killed too
def test_a_save_of_the_same_step_that_is_killed_anywhere_loses_nothing(tmp_path: Path, operations: int) -> None:
    (only,) = states(1)

    def prepare(folder: Path) -> None:
        save(folder, only)
        assert operations == 0 or killed_at(operations, lambda: save(folder, only))

    count = at_every_operation(prepare, lambda folder: save(folder, only), tmp_path)
    assert count > 15
    for n in range(1, count + 1):
        folder = tmp_path / f"killed-{n}"
        assert_whole(folder, only)
        save(folder, only)
        assert [path.name for path in folder.iterdir()] == ["step-1"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_save_that_fails_anywhere_loses_no_checkpoint(tmp_path: Path, number: int) -> None:
    first, second = states(2)

    def fail() -> None:
        raise OSError(number, "injected")

    for n in range(1, MANY):
        folder = tmp_path / f"failed-{n}"
        save(folder, first)
        with faulty(n, fail) as faults, suppress(GoodfitError):
            save(folder, second)
        assert_whole(folder, first, second)
        save(folder, second)
        assert_whole(folder, second)
        if not faults.struck:
            return
    raise AssertionError("it never ended")


def test_a_run_folder_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    def work(folder: Path) -> None:
        with create_run(folder / "runs" / "run", Config(), {"torch": "any"}, "heading"):
            pass

    count = at_every_operation(lambda _: None, work, tmp_path)
    for n in range(1, count + 1):
        run = tmp_path / f"killed-{n}" / "runs" / "run"
        assert not run.exists() or {path.name for path in run.iterdir()} == {"config.toml", "environment.json"}


def test_a_run_folder_that_cannot_be_made_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        raise OSError(errno.ENOSPC, "injected")

    for n in range(1, MANY):
        with faulty(n, fail) as faults, suppress(InputError), create_run(tmp_path / "runs" / "run", Config(), {}, "heading"):
            pass
        if not faults.struck:
            break
        if (tmp_path / "runs").exists():  # the fault struck after the rename
            left = sorted(path.name for path in (tmp_path / "runs").iterdir())
            assert left[-1:] == ["run"], faults.struck
            assert len(left) == 1 or faults.struck == "rmdir"  # the removal itself failed
            shutil.rmtree(tmp_path / "runs")
    assert (tmp_path / "runs" / "run" / "config.toml").exists()


def test_a_model_file_that_is_replaced_is_the_old_or_the_new(tmp_path: Path) -> None:
    settings = {"model.name": "mlp", "train.epochs": 1, "train.threads": 1}
    old = ModelFile.load(run_through({"train": tiny_pictures()}, tmp_path / "run", settings).model)
    new = replace(old, tensors={name: tensor * 2 for name, tensor in old.tensors.items()})
    count = at_every_operation(
        lambda folder: old.save(folder / "m.safetensors"), lambda folder: new.save(folder / "m.safetensors"), tmp_path
    )
    for n in range(1, count + 1):
        ModelFile.load(tmp_path / f"killed-{n}" / "m.safetensors")


class TurnsReadOnly(StopSignals):
    """Makes the disk read-only after step 6, and lets it be written again so many questions later."""

    def __init__(self, questions: int) -> None:
        super().__init__()
        self.questions = range(7, 7 + questions)
        self.count = 0
        self.disk = ExitStack()

    def asked(self) -> bool:
        self.count += 1
        if self.count == self.questions.start:
            self.disk.enter_context(read_only_disk())
        if self.count == self.questions.stop:
            self.disk.close()
        return super().asked()


@pytest.mark.parametrize("val", [0.1, 0.0])
@pytest.mark.parametrize("questions", [2, MANY])
def test_a_disk_that_becomes_read_only_costs_nothing_that_was_saved(questions: int, val: float, tmp_path: Path) -> None:
    data, settings = {"train": tiny_pictures()}, BASE | {"checkpoint.every_steps": 2, "data.val": val}
    expected = fingerprints(run_through(data, tmp_path / "through", settings))
    signals = TurnsReadOnly(questions)
    with signals.disk:
        if questions == MANY:
            with pytest.raises(RunError, match=r"Read-only file system; .* save 3 to fail in a row, .*: goodfit resume"):
                train(request(data, tmp_path / "run", settings), silent(), signals)
        else:
            run = train(request(data, tmp_path / "run", settings), silent(), signals)
    if questions == MANY:
        checkpoint, _ = newest_checkpoint(tmp_path / "run" / "checkpoints")
        assert checkpoint is not None
        assert checkpoint.step in (2, 4), "whether there was time for that of step 4"
        run = resume(tmp_path / "run", silent(), StopSignals(), data=data)
    assert fingerprints(run) == expected
