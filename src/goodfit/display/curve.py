"""The epoch table: a line per evaluation, under headings that are shown once."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.text import Text

from goodfit.display import text

if TYPE_CHECKING:
    from goodfit.artefacts.records import EvaluationRecord, TrainRecord
    from goodfit.evaluation.metrics import Evaluation

__all__ = ["Curve"]


@dataclass
class Curve:
    """Turns records into lines; remembers the training loss since the last evaluation."""

    split: str  # that the epochs are evaluated on
    is_classification: bool
    step: int  # that the training loss is known up to
    _loss: float = field(default=0.0, init=False)
    _steps: int = field(default=0, init=False)

    def add(self, record: "TrainRecord") -> None:
        """Take the mean loss of some more steps into the epoch's."""
        steps = record.step - self.step
        self._loss += record.loss * steps
        self._steps += steps
        self.step = record.step

    def titles(self) -> Text:
        """Return the headings of the table."""
        metrics = ("accuracy",) if self.is_classification else ("rmse", "R²")
        return _line("epoch", "train loss", *(f"{self.split} {name}" for name in ("loss", *metrics)), "time", "").stylize("dim")

    def line(self, record: "EvaluationRecord") -> Text:
        """Return the line of one evaluation."""
        loss = text.loss(self._loss / self._steps) if self._steps else "-"
        self._loss, self._steps = 0.0, 0
        evaluation = record.evaluation
        shown = _metrics(evaluation)
        mark = "best" if record.best else ""
        return _line(text.count(record.epoch), loss, text.loss(evaluation.loss), *shown, text.duration(record.seconds), mark)
