"""metrics.jsonl: one line per record, cut back to what a checkpoint knows, and read back."""

import json
from math import inf, nan
from pathlib import Path

import pytest
from harness import full_disk

from goodfit.artefacts import records
from goodfit.artefacts.metrics_log import MetricsLog, read_metrics
from goodfit.errors import FileError, RunError
from goodfit.evaluation.metrics import ClassificationEvaluation, RegressionEvaluation

CLASSES = ClassificationEvaluation("val", 4, 0.5, 0.75, (0.3, 0.95), 0.1, (), ((2, 0), (1, 1)))
NUMBERS = RegressionEvaluation("test", 4, nan, 1.0, 2.0, None)


def train_record(step: int, loss: float = 0.5) -> records.TrainRecord:
    return records.TrainRecord(step, step / 3, loss, 0.01, seconds=1.5, examples_per_second=100.0)


def write(path: Path, *written: records.Record, length: int = 0) -> int:
    log = MetricsLog(path, length)
    for record in written:
        log.observe(record)
    end = log.length
    log.close()
    return end


def test_every_record_is_a_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    ended = records.EndRecord(6, 2.0, "all epochs done", 2.5)
    end = write(
        path, train_record(2), records.EvaluationRecord(3, 1, CLASSES, True, 2.0), records.TestRecord(3, NUMBERS), ended
    )
    assert end == path.stat().st_size
    assert read_metrics(path) == [
        {
            "event": "train",
            "step": 2,
            "epoch": 0.666667,
            "loss": 0.5,
            "learning_rate": 0.01,
            "clock": {"seconds": 1.5, "examples_per_second": 100.0},
        },
        {
            "event": "evaluation",
            "step": 3,
            "epoch": 1,
            "split": "val",
            "n": 4,
            "loss": 0.5,
            "accuracy": 0.75,
            "accuracy_ci95": [0.3, 0.95],
            "ece": 0.1,
            "best": True,
            "clock": {"seconds": 2.0},
        },
        {"event": "test", "step": 3, "split": "test", "n": 4, "loss": None, "mae": 1.0, "rmse": 2.0, "r2": None},
        {"event": "end", "step": 6, "epoch": 2.0, "reason": "all epochs done", "clock": {"seconds": 2.5}},
    ]


@pytest.mark.parametrize("loss", [nan, inf, -inf])
def test_a_number_that_json_does_not_know_is_null(tmp_path: Path, loss: float) -> None:
    write(tmp_path / "metrics.jsonl", train_record(1, loss))
    assert json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=pytest.fail)["loss"] is None


def test_a_line_can_be_read_as_soon_as_it_is_written(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.observe(train_record(1))
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 1
    log.close()


def test_a_log_is_cut_back_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    length = write(path, train_record(1), train_record(2))
    write(path, train_record(3), length=length)
    assert [line["step"] for line in read_metrics(path)] == [1, 2, 3]
    assert write(path, length=length) == length  # the length is that of what is left, even before a line follows
    write(path, train_record(4), length=length)
    assert [line["step"] for line in read_metrics(path)] == [1, 2, 4]
    write(path, train_record(5))
    assert [line["step"] for line in read_metrics(path)] == [5]


def test_a_log_that_is_shorter_than_its_checkpoint_says_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, train_record(3), length=500)
    assert [line["step"] for line in read_metrics(path)] == [3]


def test_what_a_crash_left_of_a_last_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, train_record(1), train_record(2))
    path.write_bytes(path.read_bytes()[:-1])
    assert [line["step"] for line in read_metrics(path)] == [1]
    path.write_bytes(b"")
    assert read_metrics(path) == []
    assert read_metrics(tmp_path / "none.jsonl") == []


@pytest.mark.parametrize("line", [b"{", b"\xff", b"[" * 20_000, b"3", b"null", b'{"step": 1}', b""])
def test_a_line_that_is_no_record_is_named(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"event": "train"}\n' + line + b'\n{"event": "end"}\n')
    with pytest.raises(FileError, match=r"metrics\.jsonl' holds a line that is (not JSON: .*|no record, line 2); remove it"):
        read_metrics(path)


def test_a_full_disk_is_said_by_sync_and_loses_no_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path)
    log.observe(train_record(1))
    with full_disk(room=path.stat().st_size + 10):
        log.observe(train_record(2))
        log.observe(train_record(3))
        with pytest.raises(RunError, match=r"cannot write '.*metrics\.jsonl': File too large; free space and resume"):
            log.sync()
    log.sync()
    assert log.length == path.stat().st_size
    assert [line["step"] for line in read_metrics(path)] == [1, 2, 3]
    log.close()


def test_going_back_forgets_what_came_after(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path)
    log.observe(train_record(1))
    length = log.length
    log.observe(train_record(2))
    log.observe(records.BackRecord(1, length, "trouble"))
    log.observe(records.TroubleRecord(1, "a save failed"))
    log.observe(train_record(2))
    assert [line["step"] for line in read_metrics(path)] == [1, 2]
    log.close()
