"""Metrics as sums that add up: batches and ranks add, and the numbers follow once, at the end.

`ClassificationCounts` and `RegressionSums` stay on the device and read nothing from it until `result`. What they give is
an `Evaluation`: plain numbers, written as JSON and read back. JSON knows only finite numbers: one that is not, such as the
loss of a diverged model, is written as null, read back as nan, and printed by `summary` as what it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isfinite, nan, sqrt
from typing import Any

import torch
from torch import Tensor

from goodfit.devices import sum_dtype
from goodfit.errors import DataError, FileError
from goodfit.evaluation.calibration import CalibrationBins, expected_calibration_error
from goodfit.html import table

MOST_CLASSES = 20  # in a notebook; of more, the worst are shown

__all__ = [
    "ClassResult",
    "ClassificationCounts",
    "ClassificationEvaluation",
    "Evaluation",
    "RegressionEvaluation",
    "RegressionSums",
    "evaluation_from_json",
    "wilson_interval",
]


@dataclass(frozen=True)
class ClassResult:
    """How one class fared: `n` examples of it, and shares between 0 and 1.

    `accuracy` is the share of its examples predicted right, which is its recall. A share of nothing is 0, as with
    scikit-learn's zero_division=0: a class without examples, or one that was never predicted.
    """

    name: str
    n: int
    accuracy: float
    precision: float
    recall: float
    f1: float

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON values, the name under "class"."""
        return {
            "class": self.name,
            "n": self.n,
            "accuracy": self.accuracy,
            "precision": self.precision,
            "recall": self.recall,
            "f1": self.f1,
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "ClassResult":
        """Rebuild what `to_json` gave."""
        fields = dict(document)
        return cls(name=fields.pop("class"), **fields)


@dataclass(frozen=True)
class ClassificationEvaluation:
    """The result of a classifier on one split of `n` examples.

    `loss` is the plain mean over examples, `accuracy_ci95` the Wilson interval, `ece` the expected calibration error, and
    `confusion` has a row per true class and a column per predicted one.
    """

    split: str
    n: int
    loss: float
    accuracy: float
    accuracy_ci95: tuple[float, float]
    ece: float
    per_class: tuple[ClassResult, ...] = field(repr=False)
    confusion: tuple[tuple[int, ...], ...] = field(repr=False)
    tta: "ClassificationEvaluation | None" = field(default=None, repr=False)  # with test-time augmentation, where asked for

    def summary(self) -> str:
        """Say the result in one line."""
        low, high = self.accuracy_ci95
        interval = f"95% interval {low:.1%} to {high:.1%}"
        return f"accuracy {self.accuracy:.1%} ({interval}), loss {_short(self.loss)}, {_examples(self.n)}"

    def _repr_html_(self) -> str:
        results, caption = self.per_class, f"{self.split}: {self.summary()}"
        if len(results) > MOST_CLASSES:
            results = tuple(sorted(results, key=lambda result: result.accuracy))[:MOST_CLASSES]
            caption += f"; the {MOST_CLASSES} worst of {len(self.per_class):,} classes"
        rows = [(each.name, f"{each.n:,}", *map(_percent, (each.accuracy, each.precision, each.f1))) for each in results]
        return table(rows, ("class", "examples", "accuracy", "precision", "F1"), caption)

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON values; a loss that is not finite is null."""
        return {
            "split": self.split,
            "n": self.n,
            "loss": _finite_or_none(self.loss),
            "accuracy": self.accuracy,
            "accuracy_ci95": list(self.accuracy_ci95),
            "ece": self.ece,
            "per_class": [result.to_json() for result in self.per_class],
            "confusion": [list(row) for row in self.confusion],
            **({"tta": self.tta.to_json()} if self.tta else {}),
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "ClassificationEvaluation":
        """Rebuild what `to_json` gave; a loss of null becomes nan."""
        low, high = document["accuracy_ci95"]
        return cls(
            split=document["split"],
            n=document["n"],
            loss=_number_or_nan(document["loss"]),
            accuracy=document["accuracy"],
            accuracy_ci95=(low, high),
            ece=document["ece"],
            per_class=tuple(ClassResult.from_json(result) for result in document["per_class"]),
            confusion=tuple(tuple(row) for row in document["confusion"]),
            tta=cls.from_json(document["tta"]) if document.get("tta") else None,
        )


@dataclass(frozen=True)
class RegressionEvaluation:
    """The result of a regressor on one split of `n` examples, in the units of the target.

    `loss` is the plain mean over examples; `r2` is None where the targets do not vary.
    """

    split: str
    n: int
    loss: float
    mae: float
    rmse: float
    r2: float | None

    def summary(self) -> str:
        """Say the result in one line."""
        r2 = "undefined (the targets do not vary)" if self.r2 is None else _short(self.r2)
        return f"rmse {_short(self.rmse)}, mae {_short(self.mae)}, R² {r2}, loss {_short(self.loss)}, {_examples(self.n)}"

    def _repr_html_(self) -> str:
        r2 = "undefined: the targets do not vary" if self.r2 is None else _short(self.r2)
        numbers = (("rmse", _short(self.rmse)), ("mae", _short(self.mae)), ("R²", r2), ("loss", _short(self.loss)))
        return table(numbers, caption=f"{self.split}: {_examples(self.n)}")

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON values; a number that is not finite, and an R² that is not defined, is null."""
        return {
            "split": self.split,
            "n": self.n,
            "loss": _finite_or_none(self.loss),
            "mae": _finite_or_none(self.mae),
            "rmse": _finite_or_none(self.rmse),
            "r2": _finite_or_none(self.r2),
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "RegressionEvaluation":
        """Rebuild what `to_json` gave; null becomes nan, and None for `r2`."""
        return cls(
            split=document["split"],
            n=document["n"],
            loss=_number_or_nan(document["loss"]),
            mae=_number_or_nan(document["mae"]),
            rmse=_number_or_nan(document["rmse"]),
            r2=document["r2"],
        )


Evaluation = ClassificationEvaluation | RegressionEvaluation


def evaluation_from_json(document: dict[str, Any]) -> Evaluation:
    """Rebuild an evaluation of either task from its JSON; raise FileError where a key is missing or does not fit."""
    kind = ClassificationEvaluation if "accuracy" in document else RegressionEvaluation
    try:
        return kind.from_json(document)
    except (KeyError, TypeError, ValueError) as error:
        raise FileError(f"the evaluation cannot be read: {error!r}; the file is damaged or needs a newer goodfit") from error


class ClassificationCounts:
    """What a classifier did on one split, as counts on `device` that add up over batches and ranks."""

    def __init__(self, num_classes: int, device: torch.device) -> None:
        self._confusion = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=device)
        self._calibration = CalibrationBins(device)
        self._loss = torch.zeros((), dtype=sum_dtype(device), device=device)

    def update(self, probabilities: Tensor, loss_per_example: Tensor, targets: Tensor) -> None:
        """Add a batch: probabilities (N, C) float32, losses (N,) and targets (N,) int64; of equal classes the first wins."""
        confidence, predicted = probabilities.max(dim=1)
        # A target outside the classes gives an index outside the table: an error, never a wrong count.
        cells = targets * len(self._confusion) + predicted
        self._confusion.view(-1).index_add_(0, cells, torch.ones_like(cells))
        self._calibration.update(confidence, predicted == targets)
        self._loss += loss_per_example.sum(dtype=self._loss.dtype)

    def tensors(self) -> list[Tensor]:
        """Return the accumulators themselves: ranks add them in place, and `result` then speaks for all ranks."""
        return [self._confusion, self._calibration.sums, self._loss]

    def result(self, split: str, classes: Sequence[str]) -> ClassificationEvaluation:
        """Read the device once and return the metrics; raise DataError if no example was seen."""
        confusion = self._confusion.cpu()
        n, correct = _num_examples(confusion, split), int(confusion.trace())
        counts = zip(classes, confusion.sum(1).tolist(), confusion.sum(0).tolist(), confusion.diagonal().tolist(), strict=True)
        return ClassificationEvaluation(
            split=split,
            n=n,
            loss=self._loss.item() / n,
            accuracy=correct / n,
            accuracy_ci95=wilson_interval(correct, n),
            ece=expected_calibration_error(self._calibration),
            per_class=tuple(_class_result(*count) for count in counts),
            confusion=tuple(map(tuple, confusion.tolist())),
        )


class RegressionSums:
    """What a regressor did on one split, as sums on `device` that add up over batches and ranks.

    `center`, best the mean of the training targets and the same on every rank, is taken off the targets before they are
    squared, so that R² keeps its digits where the targets are far from zero.
    """

    def __init__(self, device: torch.device, center: float) -> None:
        self._center = center
        self._count = torch.zeros((), dtype=torch.int64, device=device)
        # loss, |error|, error², offset, offset², where offset = target - center
        self._sums = torch.zeros(5, dtype=sum_dtype(device), device=device)

    def update(self, values: Tensor, loss_per_example: Tensor, targets: Tensor) -> None:
        """Add a batch: predicted values, losses and targets, each (N,), values and targets in the target's units."""
        # stack refuses shapes that differ, where a subtraction would broadcast (N, 1) and (N,) to (N, N).
        value, loss, target = torch.stack((values, loss_per_example, targets)).to(self._sums.dtype)
        error, offset = value - target, target - self._center
        self._sums += torch.stack((loss, error.abs(), error.square(), offset, offset.square())).sum(dim=1)
        self._count += len(targets)

    def tensors(self) -> list[Tensor]:
        """Return the accumulators themselves: ranks add them in place, and `result` then speaks for all ranks."""
        return [self._count, self._sums]

    def result(self, split: str) -> RegressionEvaluation:
        """Read the device once and return the metrics; raise DataError if no example was seen."""
        n = _num_examples(self._count, split)
        loss, absolute, squared, offset, offset_squared = self._sums.tolist()
        variation = offset_squared - offset * offset / n
        # Below this bound the difference is rounding: the targets are as good as constant.
        rounding = 4 * n * torch.finfo(self._sums.dtype).eps * offset_squared
        r2 = 1 - squared / variation if variation > rounding else None
        return RegressionEvaluation(split, n, loss=loss / n, mae=absolute / n, rmse=sqrt(squared / n), r2=r2)


def wilson_interval(correct: int, n: int) -> tuple[float, float]:
    """Return the 95% score interval of the share `correct` of `n` > 0, within 0 and 1.

    Wilson: Probable Inference, the Law of Succession, and Statistical Inference, 1927.
    """
    return _wilson_lower(correct, n), 1 - _wilson_lower(n - correct, n)


def _wilson_lower(correct: int, n: int) -> float:
    z = 1.959963984540054  # the normal distribution's 97.5% point
    return (2 * correct + z * z - z * sqrt(z * z + 4 * correct * (n - correct) / n)) / (2 * (n + z * z))


def _class_result(name: str, n: int, predicted: int, correct: int) -> ClassResult:
    recall = correct / max(n, 1)
    precision, f1 = correct / max(predicted, 1), 2 * correct / max(n + predicted, 1)
    return ClassResult(name, n, accuracy=recall, precision=precision, recall=recall, f1=f1)


def _num_examples(counts: Tensor, split: str) -> int:
    n = int(counts.sum())
    if n == 0:
        raise DataError(f"the {split} split has 0 examples; evaluate a split that has some")
    return n


def _finite_or_none(value: float | None) -> float | None:
    return value if value is not None and isfinite(value) else None


def _number_or_nan(value: float | None) -> float:
    return nan if value is None else value


def _examples(n: int) -> str:
    return f"{n:,} example{'' if n == 1 else 's'}"


def _percent(share: float) -> str:
    return f"{share:.1%}"


def _short(value: float) -> str:
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.3g}"
