"""TensorBoard events, read back by TensorBoard itself."""

from math import nan
from pathlib import Path
from typing import Any

import pytest
from harness import run_through, run_with_stops, tiny_pictures
from test_metrics_log import CLASSES, NUMBERS, train_record
from test_resume import BASE

from goodfit.artefacts import records
from goodfit.artefacts.tensorboard import TensorBoard


def write(folder: Path, *written: records.Record, resumed_at: int | None = None) -> None:
    board = TensorBoard(folder, resumed_at)
    for record in written:
        board.observe(record)
    board.close()


def read(folder: Path) -> dict[str, list[tuple[int, Any]]]:
    """Return (step, value) of every scalar by its tag."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    # TensorBoard goes by the files' names, which begin with the second: two files of one test may be of the same.
    for number, path in enumerate(sorted(folder.glob("*tfevents*"), key=lambda path: path.stat().st_mtime_ns)):
        path.rename(folder / f"{number}.tfevents")
    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def steps(folder: Path, tag: str) -> list[int]:
    return [step for step, _ in read(folder)[tag]]


def test_every_number_of_a_run_has_its_tag(tmp_path: Path) -> None:
    write(
        tmp_path,
        train_record(1),
        train_record(2, 0.25),
        records.EvaluationRecord(2, 1, CLASSES, True, 2.0),
        records.TestRecord(2, NUMBERS),
        records.EndRecord(2, 1.0, "all epochs done", 2.5),
    )
    found = read(tmp_path)
    assert found.keys() == {
        *("train/loss", "train/learning_rate", "train/examples_per_second"),
        *("val/loss", "val/accuracy", "val/ece"),
        *("test/loss", "test/mae", "test/rmse"),
    } - {"test/loss"}  # which is not a number here
    assert found["train/loss"] == [(1, 0.5), (2, 0.25)]
    assert found["train/learning_rate"] == [(1, pytest.approx(0.01)), (2, pytest.approx(0.01))]
    assert found["train/examples_per_second"] == [(1, 100.0), (2, 100.0)]
    assert found["val/accuracy"] == [(2, 0.75)]
    assert found["test/rmse"] == [(2, 2.0)]


def test_a_loss_that_is_not_finite_does_not_end_the_log(tmp_path: Path) -> None:
    write(tmp_path, train_record(1, nan), train_record(2))
    assert steps(tmp_path, "train/loss") == [1, 2]


def test_what_an_earlier_process_wrote_after_the_resumed_step_is_hidden(tmp_path: Path) -> None:
    write(tmp_path, *map(train_record, [1, 2, 3, 4]))
    write(tmp_path, train_record(3, 0.125), resumed_at=2)
    assert read(tmp_path)["train/loss"] == [(1, 0.5), (2, 0.5), (3, 0.125)]


def test_a_run_that_was_stopped_shows_what_one_that_was_not_shows(tmp_path: Path) -> None:
    data = {"train": tiny_pictures()}
    through = run_through(data, tmp_path / "through", BASE)
    stopped = run_with_stops(data, tmp_path / "stopped", BASE, stops=[2, 3])
    for tag in ("train/loss", "train/learning_rate", "val/loss", "test/accuracy"):
        assert read(stopped.path)[tag] == read(through.path)[tag], tag
    lines = [(line["step"], pytest.approx(line["loss"])) for line in through.metrics if line["event"] == "train"]
    assert read(through.path)["train/loss"] == lines
