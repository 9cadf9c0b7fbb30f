"""TensorBoard events of a run: loss, learning rate, throughput and evaluations, by step."""

from pathlib import Path

from goodfit.artefacts.records import EvaluationRecord, Record, TestRecord, TrainRecord, scalars

__all__ = ["TensorBoard"]


class TensorBoard:
    """Writes records as scalars into `folder`; those that an earlier process wrote after step `resumed_at` are hidden."""

    def __init__(self, folder: Path, resumed_at: int | None = None) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._event = Event
        self._writer = EventFileWriter(str(folder))
        if resumed_at is not None:
            start = SessionLog(status=SessionLog.START)
            self._writer.add_event(Event(step=resumed_at + 1, session_log=start))  # the field's purge_step

    def observe(self, record: Record) -> None:
        """Write the record's numbers under train/, val/ or test/."""
        import time

        from tensorboard.compat.proto.summary_pb2 import Summary

        values = _values(record)
        if values:
            summary = Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()])
            self._writer.add_event(self._event(wall_time=time.time(), step=record.step, summary=summary))

    def close(self) -> None:
        """Write what is left and close the file."""
        self._writer.close()


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
