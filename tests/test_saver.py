"""Saving off the loop's path: what is written is the state of the moment, whatever the loop does meanwhile."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from harness import full_disk
from test_state import assert_same, make, take_step

from goodfit.artefacts.checkpoint import newest_checkpoint
from goodfit.artefacts.host_copy import HostCopy
from goodfit.artefacts.metrics_log import MetricsLog
from goodfit.artefacts.saver import Saver
from goodfit.errors import NotFiniteError, RunError


@pytest.fixture
def saver(tmp_path: Path) -> Iterator[Saver]:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    made = Saver(tmp_path / "checkpoints", log, keep=2)
    yield made
    made.close()
    log.close()


def test_steps_after_a_save_has_begun_are_not_in_it(saver: Saver, tmp_path: Path) -> None:
    state, same = make(), make()
    for each in (state, same):
        take_step(each)
    saver.prepare(state)
    saver.begin(state, seconds=1.0)
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
def test_numbers_that_are_not_finite_are_never_saved(saver: Saver, tmp_path: Path, where: str, number: float) -> None:
    state = make()
    take_step(state)
    saver.begin(state, 0.0)
    assert saver.wait()
    take_step(state)
    assert state.ema is not None
    place = {"weight": state.model.conv.weight, "average": state.ema.module.conv.weight, "loss": state.loss_sum}[where]
    with torch.no_grad():
        place.fill_(number)
    saver.begin(state, 0.0)
    with pytest.raises(NotFiniteError, match="is no longer finite at step 2"):
        saver.wait()
    checkpoint, damage = newest_checkpoint(tmp_path / "checkpoints")
    assert checkpoint is not None
    assert (checkpoint.step, damage) == (1, [])


def test_a_full_disk_is_said_once_and_the_next_save_is_whole(saver: Saver, tmp_path: Path) -> None:
    state = make()
    take_step(state)
    with full_disk(room=50):
        saver.begin(state, 0.0)
        with pytest.raises(RunError, match="File too large; free space"):
            saver.wait()
        assert not saver.wait()
    saver.begin(state, 0.0)
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
