"""Saving off the loop's path: what is written is the state of the moment, whatever the loop does meanwhile."""

from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest
import torch
from harness import full_disk
from test_state import assert_same, make, take_step

from goodfit.artefacts.checkpoint import newest_checkpoint
from goodfit.artefacts.host_copy import HostCopy
from goodfit.artefacts.metrics_log import MetricsLog
from goodfit.artefacts.saver import Saver
from goodfit.errors import NotFiniteError, RunError
from goodfit.training.state import RunState


@pytest.fixture
def state() -> RunState:
    return make()


@pytest.fixture(params=[True, False], ids=["copied at once", "copied while the loop computes"])
def saver(tmp_path: Path, state: RunState, request: pytest.FixtureRequest) -> Iterator[Saver]:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    made = Saver(tmp_path / "checkpoints", log, 2, state, at_once=request.param)
    yield made
    made.close()
    log.close()


def test_steps_after_a_save_has_begun_are_not_in_it(saver: Saver, state: RunState, tmp_path: Path) -> None:
    same = make()
    for each in (state, same):
        take_step(each)
    saver.prepare()
    saver.begin(seconds=1.0)
    for _ in range(3):
        take_step(state)
    assert saver.wait()
    assert not saver.is_busy
    checkpoint, damage = newest_checkpoint(tmp_path / "checkpoints")
    assert checkpoint is not None
    assert (checkpoint.step, checkpoint.seconds, damage) == (1, 1.0, [])
    loaded = make(seed=1)
    checkpoint.restore(loaded)
    same.log_length = 0
    assert_same(loaded, same)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["weight", "average", "loss"])
def test_numbers_that_are_not_finite_are_never_saved(
    saver: Saver, state: RunState, tmp_path: Path, where: str, number: float
) -> None:
    take_step(state)
    saver.begin(0.0)
    assert saver.wait()
    take_step(state)
    assert state.ema is not None
    place = {"weight": state.model.conv.weight, "average": state.ema.module.conv.weight, "loss": state.loss_sum}[where]
    with torch.no_grad():
        place.fill_(number)
    saver.begin(0.0)
    with pytest.raises(NotFiniteError, match="is no longer finite at step 2"):
        saver.wait()
    checkpoint, damage = newest_checkpoint(tmp_path / "checkpoints")
    assert checkpoint is not None
    assert (checkpoint.step, damage) == (1, [])


def test_a_full_disk_is_said_once_and_the_next_save_is_whole(saver: Saver, state: RunState, tmp_path: Path) -> None:
    take_step(state)
    with full_disk(room=50):
        saver.begin(0.0)
        with pytest.raises(RunError, match="File too large; free space"):
            saver.wait()
        assert not saver.wait()
    saver.begin(0.0)
    assert saver.wait()
    assert newest_checkpoint(tmp_path / "checkpoints")[0] is not None


def test_a_copy_is_made_into_the_same_memory_and_layout() -> None:
    copies = HostCopy()
    tensors = {"picture": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last), "count": torch.tensor(3)}
    first = copies.take(tensors)
    assert all(torch.equal(first[name], tensor) and first[name] is not tensor for name, tensor in tensors.items())
    assert first["picture"].stride() == tensors["picture"].stride()
    places = {name: tensor.data_ptr() for name, tensor in first.items()}
    tensors["count"] += 1
    assert first["count"] == 3
    again = copies.take(tensors)
    assert {name: tensor.data_ptr() for name, tensor in again.items()} == places
    assert again["count"] == 4
    assert copies.take({"count": torch.zeros(5)})["count"].shape == (5,)


def test_what_an_update_changes_is_copied_while_the_loop_computes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread is held back until the update waits for it; the statistics of a batch are copied before the pass changes them."""
    state, same = make(), make()
    for each in (state, same):
        take_step(each)
    log = MetricsLog(tmp_path / "metrics.jsonl")
    saver = Saver(tmp_path / "checkpoints", log, 2, state, at_once=False)
    waits, finish = Event(), HostCopy.finish
    monkeypatch.setattr(HostCopy, "finish", lambda copy: (waits.wait(60), finish(copy)))
    wait_for_copy = RunState.wait_for_copy
    monkeypatch.setattr(RunState, "wait_for_copy", lambda state: (waits.set(), wait_for_copy(state)))
    saver.begin(seconds=0.0)
    take_step(state)
    assert saver.wait()
    saver.close()
    log.close()
    checkpoint, _ = newest_checkpoint(tmp_path / "checkpoints")
    assert checkpoint is not None
    loaded = make(seed=1)
    checkpoint.restore(loaded)
    assert_same(loaded, same)
