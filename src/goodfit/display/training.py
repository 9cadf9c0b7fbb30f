"""A run under way: its records as lines, and its bar."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from goodfit.data.sources import MEMORY
from goodfit.display.bar import Pace, draw_training
from goodfit.display.curve import Curve
from goodfit.display.heading import describe_session, field, unit
from goodfit.display.results import headline, resume_command
from goodfit.display.text import count, duration, loss_number

if TYPE_CHECKING:
    from goodfit.artefacts.records import BackRecord, EndRecord, Record, TestRecord, TrainRecord
    from goodfit.session import Session

__all__ = ["Training"]

SILENCE = 10.0  # seconds without a line, after which the training loss is one


class Training:
    """What is seen of one run from its beginning to its end; `is_live` says that there is a bar."""

    def __init__(self, session: "Session", run: Path, *, is_live: bool) -> None:
        dataset, step = session.plan.dataset, session.state.step
        self._session = session
        self._run = run
        self._is_live = is_live
        self._curve = Curve("val" if "val" in dataset.splits else "test", dataset.task, step)
        self._unit = unit(dataset)
        self._pace = Pace(step)
        self._evaluated = step
        self._latest: TrainRecord | None = None
        self._test: TestRecord | None = None
        self._last_line = time.perf_counter()
        self.has_ended = False
        self._take_up()

    def heading(self, width: int) -> list[Text]:
        """Say what is trained, and head the table of epochs."""
        lines = [*describe_session(self._session, self._run, width), Text()]
        if self._curve.split == "test":
            advice = "no validation split: the curve is on the test split, each look at which is counted, and chooses nothing"
            lines += field("note", advice, width)
        return [*lines, self._curve.titles()]

    def lines(self, record: "Record", width: int) -> list[Text]:
        """Return what a record has to say, if anything."""
        from goodfit.artefacts import records

        lines = []
        if isinstance(record, records.TrainRecord):
            self._curve.add(record.step, record.loss)
            self._latest = record
            is_silent = not self._is_live and time.perf_counter() - self._last_line > SILENCE
            if self._session.plan.logs_as_asked or is_silent:
                lines = [self._loss_line(record)]
        elif isinstance(record, records.EvaluationRecord):
            self._evaluated = record.step
            self._pace.pause()
            lines = [self._curve.line(record)]
        elif isinstance(record, records.TestRecord):
            self._test = record
        elif isinstance(record, records.BackRecord):
            self._go_back(record)
            lines = field("trouble", f"{record.reason}; going on from step {count(record.step)}", width)
        elif isinstance(record, records.NondeterministicRecord):
            what = f"{record.operation} has no deterministic form here: done again, or resumed, this run may end in other last bits"
            lines = field("note", what, width)
        elif isinstance(record, records.TroubleRecord):
            lines = field("trouble", record.text, width)
        elif isinstance(record, records.EndRecord):
            self.has_ended = True
            lines = self._end(record, width)
        if lines:
            self._last_line = time.perf_counter()
        return lines

    def _go_back(self, record: "BackRecord") -> None:
        self._pace = Pace(record.step)
        self._evaluated = record.step
        self._take_up()

    def _take_up(self) -> None:
        """Begin where the run is, with what the log knows of the epoch's training loss."""
        from goodfit.artefacts.metrics_log import read_metrics

        state = self._session.state
        self._curve.go_back(state.evaluated_step)
        for line in read_metrics(self._run / "metrics.jsonl"):
            if line["event"] == "train" and state.evaluated_step < line["step"] <= state.step:
                self._curve.add(line["step"], line["loss"])

    def _loss_line(self, record: "TrainRecord") -> Text:
        left = self._pace.seconds_left(record.step, self._session.plan.total_steps)
        parts = [
            f"step {count(record.step)} of {count(self._session.plan.total_steps)}",
            f"training loss {loss_number(record.loss)}",
            f"{count(round(record.examples_per_second))} {self._unit}/s",
            *([f"{duration(left)} left"] if left is not None else []),
        ]
        return Text(", ".join(parts), "dim")

    def _end(self, record: "EndRecord", width: int) -> list[Text]:
        epochs = f"{record.epoch:g} epoch{'' if record.epoch == 1 else 's'}"
        reason = "" if record.reason == "all epochs done" else f" ({record.reason})"
        lines = [Text(), *field("trained", f"{epochs} in {duration(record.seconds)}{reason}", width)]
        return lines + (headline(self._test.evaluation, width) if self._test else [])

    def stopped(self) -> list[Text]:
        """Say where a run that has not ended was left, and how it goes on."""
        step, total = self._session.state.step, self._session.plan.total_steps
        return [
            Text(),
            *field("stopped", f"at step {count(step)} of {count(total)}"),
            *field("go on", self._way_on()),
        ]

    def _way_on(self) -> str:
        plan = self._session.plan
        own = plan.architecture.name if plan.architecture.is_code else None
        if plan.config.data.name == MEMORY:
            return f"goodfit.resume({str(self._run)!r}, data=...{', model=...' if own else ''})"
        return resume_command(self._run, own)

    def draw(self, width: int) -> Table:
        """Draw the bar."""
        return draw_training(self._session, self._pace, self._evaluated, self._latest, self._unit, width)
