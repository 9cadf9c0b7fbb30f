"""What happens in a run, as values. Observers (the log, TensorBoard, the screen) are plain objects given these."""

from dataclasses import dataclass
from typing import Any, Protocol

from goodfit.evaluation.metrics import ClassificationEvaluation, Evaluation

__all__ = [
    "BackRecord",
    "EndRecord",
    "EvaluationRecord",
    "HalvingRecord",
    "NondeterministicRecord",
    "Observer",
    "Record",
    "SkipRecord",
    "TestRecord",
    "TrainRecord",
    "TroubleRecord",
    "scalars",
]


@dataclass(frozen=True)
class TrainRecord:
    """The mean training loss since the last such record; `seconds` is the time spent training so far."""

    step: int  # updates done
    epoch: float  # epochs done
    loss: float
    learning_rate: float
    seconds: float
    examples_per_second: float

    def to_json(self) -> dict[str, Any]:
        """Return the line of metrics.jsonl."""
        return {
            "event": "train",
            "step": self.step,
            "epoch": round(self.epoch, 6),
            "loss": self.loss,
            "learning_rate": self.learning_rate,
            "clock": {"seconds": self.seconds, "examples_per_second": self.examples_per_second},
        }


@dataclass(frozen=True)
class EvaluationRecord:
    """An evaluation at the end of an epoch."""

    step: int
    epoch: int
    evaluation: Evaluation
    best: bool  # the lowest loss on the validation split so far
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return the line of metrics.jsonl: the plain numbers, without the tables."""
        return {
            "event": "evaluation",
            "step": self.step,
            "epoch": self.epoch,
            **scalars(self.evaluation),
            "best": self.best,
            "clock": {"seconds": self.seconds},
        }


@dataclass(frozen=True)
class TestRecord:
    """The test of the best model, at the end."""

    step: int  # of the tested weights
    evaluation: Evaluation

    def to_json(self) -> dict[str, Any]:
        """Return the line of metrics.jsonl."""
        return {"event": "test", "step": self.step, **scalars(self.evaluation)}


@dataclass(frozen=True)
class EndRecord:
    """The end of training; `reason` says what ended it."""

    step: int
    epoch: float
    reason: str
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return the line of metrics.jsonl."""
        return {
            "event": "end",
            "step": self.step,
            "epoch": round(self.epoch, 6),
            "reason": self.reason,
            "clock": {"seconds": self.seconds},
        }


@dataclass(frozen=True)
class SkipRecord:
    """A step that was left out because it made the loss or the weights not finite."""

    step: int  # updates done, this one counted
    epoch: float
    examples: tuple[str, ...]  # of its batch

    def to_json(self) -> dict[str, Any]:
        """Return the line of metrics.jsonl."""
        return {"event": "skip", "step": self.step, "epoch": round(self.epoch, 6), "examples": list(self.examples)}


@dataclass(frozen=True)
class HalvingRecord:
    """The first step of those that are computed in more parts, because memory ran out there."""

    step: int  # updates done, this one counted
    epoch: float
    accumulate: int  # parts of a batch

    def to_json(self) -> dict[str, Any]:
        """Return the line of metrics.jsonl."""
        return {"event": "halving", "step": self.step, "epoch": round(self.epoch, 6), "accumulate": self.accumulate}


@dataclass(frozen=True)
class NondeterministicRecord:
    """The first use of an operation that has no deterministic form on the device."""

    step: int  # updates done
    epoch: float
    operation: str

    def to_json(self) -> dict[str, Any]:
        """Return the line of metrics.jsonl."""
        return {
            "event": "nondeterministic",
            "step": self.step,
            "epoch": round(self.epoch, 6),
            "operation": self.operation,
        }


@dataclass(frozen=True)
class BackRecord:
    """The run went back to an earlier state: what was told of later steps is to be forgotten."""

    step: int  # that it goes on from
    log_length: int  # bytes of metrics.jsonl that still hold
    reason: str


@dataclass(frozen=True)
class TroubleRecord:
    """Something that a person should know at once and that is no part of the run, such as a save that failed."""

    step: int
    text: str


Record = (
    TrainRecord
    | EvaluationRecord
    | TestRecord
    | EndRecord
    | SkipRecord
    | HalvingRecord
    | NondeterministicRecord
    | BackRecord
    | TroubleRecord
)


class Observer(Protocol):
    """Anything that wants to know what happens in a run."""

    def observe(self, record: Record) -> None:
        """Take note of one record."""

    def close(self) -> None:
        """Finish; no record follows."""


def scalars(evaluation: Evaluation) -> dict[str, Any]:
    """Return an evaluation's JSON without its tables."""
    tables = {"per_class", "confusion"} if isinstance(evaluation, ClassificationEvaluation) else set()
    return {key: value for key, value in evaluation.to_json().items() if key not in tables}
