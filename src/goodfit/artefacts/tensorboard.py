"""TensorBoard events of a run: loss, learning rate, throughput and evaluations, by step."""

import time
from pathlib import Path
from typing import Any

from goodfit.artefacts.records import BackRecord, EvaluationRecord, Record, TestRecord, TrainRecord, scalars
from goodfit.files import PatientFile

__all__ = ["TensorBoard"]


class TensorBoard:
    """Writes records as scalars into `folder`; those that an earlier process wrote after step `resumed_at` are hidden.

    TensorBoard's own `EventFileWriter` is not used: its thread ends with a traceback when the disk is full.
    """

    def __init__(self, folder: Path, resumed_at: int | None = None) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        # TensorBoard reads the files of a folder in the order of their names.
        self._file = PatientFile(folder / f"events.out.tfevents.{time.time():020.9f}.goodfit")
        self._records = RecordWriter(self._file)
        self._write(file_version="brain.Event:2")
        if resumed_at is not None:
            self._hide_after(resumed_at)

    def _write(self, **fields: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._records.write(Event(wall_time=time.time(), **fields).SerializeToString())

    def _hide_after(self, step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import SessionLog

        self._write(step=step + 1, session_log=SessionLog(status=SessionLog.START))  # the field's purge_step

    def observe(self, record: Record) -> None:
        """Write the record's numbers under train/, val/ or test/; what a full disk does not take is written later."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        if isinstance(record, BackRecord):
            self._hide_after(record.step)
        values = _values(record)
        if values:
            summary = Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()])
            self._write(step=record.step, summary=summary)

    def close(self) -> None:
        """Write what is left and close the file."""
        self._file.close()


def _values(record: Record) -> dict[str, float]:
    if isinstance(record, TrainRecord):
        return {
            "train/loss": record.loss,
            "train/learning_rate": record.learning_rate,
            "train/examples_per_second": record.examples_per_second,
        }
    if isinstance(record, EvaluationRecord | TestRecord):
        numbers = scalars(record.evaluation)
        split = numbers.pop("split")
        return {f"{split}/{name}": value for name, value in numbers.items() if name != "n" and isinstance(value, float)}
    return {}
