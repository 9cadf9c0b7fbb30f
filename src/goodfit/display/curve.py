"""The epoch table: a line per evaluation, under headings that are shown once."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.text import Text

from goodfit.display.text import count, duration, loss_number, number, percent

if TYPE_CHECKING:
    from goodfit.artefacts.records import EvaluationRecord
    from goodfit.evaluation.metrics import Evaluation

__all__ = ["Curve"]

LEAST_WIDTH = 9  # of a column: "1 h 02 min" may stand out, "3 min 05 s" does not


@dataclass
class Curve:
    """Turns records into lines; keeps the training loss since the last evaluation."""

    split: str  # that the epochs are evaluated on
    task: str
    step: int  # that the training loss is known up to
    _loss: float = field(default=0.0, init=False)
    _steps: int = field(default=0, init=False)

    def add(self, step: int, loss: float) -> None:
        """Take the mean loss of the steps up to number `step` into the epoch's."""
        self._loss += loss * (step - self.step)
        self._steps += step - self.step
        self.step = step

    def go_back(self, step: int) -> None:
        """Forget the steps after `step`."""
        self._loss, self._steps, self.step = 0.0, 0, step

    @property
    def _titles(self) -> list[str]:
        metrics = ("accuracy",) if self.task == "classification" else ("rmse", "R²")
        return ["epoch", "train loss", *(f"{self.split} {name}" for name in ("loss", *metrics)), "time"]

    def titles(self) -> Text:
        """Return the headings of the table."""
        return Text(self._aligned(self._titles), "dim")

    def line(self, record: "EvaluationRecord") -> Text:
        """Return the line of one evaluation, and begin the training loss anew."""
        train = loss_number(self._loss / self._steps) if self._steps else "-"
        self._loss, self._steps = 0.0, 0
        evaluation = record.evaluation
        cells = [count(record.epoch), train, loss_number(evaluation.loss), *_metrics(evaluation), duration(record.seconds)]
        line = Text(self._aligned(cells))
        return line.append("  best", "green") if record.best else line

    def _aligned(self, cells: list[str]) -> str:
        widths = [max(len(title), LEAST_WIDTH) for title in self._titles]
        widths[0] = len("epoch")
        return "  ".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))


def _metrics(evaluation: "Evaluation") -> list[str]:
    from goodfit.evaluation.metrics import ClassificationEvaluation

    if isinstance(evaluation, ClassificationEvaluation):
        return [percent(evaluation.accuracy)]
    return [number(evaluation.rmse), "-" if evaluation.r2 is None else f"{evaluation.r2:.3f}"]
