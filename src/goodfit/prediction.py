"""Predicting what a command line names: files, folders, globs, rows of tables, or standard input."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Any

from goodfit.artefacts.predictor import Estimate, Prediction, Predictor
from goodfit.errors import DataError

__all__ = ["PredictionResult", "predict_inputs"]

BATCH_SIZE = 64


@dataclass(frozen=True)
class PredictionResult:
    """One input and what came of it: a prediction, or the error that prevented it."""

    input: str
    prediction: Prediction | Estimate | None = None
    error: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the line that `goodfit predict --json` prints."""
        return {"input": self.input} | (self.prediction.to_json() if self.prediction else {"error": self.error})


def predict_inputs(predictor: Predictor, inputs: Sequence[str], *, top: int = 5) -> Iterator[PredictionResult]:
    """Predict every input in order, in batches; one among many that cannot be read gives a result with an error.

    Raises DataError for the only input, if it cannot be read, and for a folder, pattern or table that holds none.
    """
    takes_rows = predictor.model.transform.to_json()["kind"] == "table"
    for name in inputs:
        for names, examples in _row_batches(name) if takes_rows else _picture_batches(name):
            results = list(_predict(predictor, names, examples, top))
            if list(names) == [name] == list(inputs) and results[0].error:
                raise DataError(results[0].error)
            yield from results


def _picture_batches(name: str) -> Iterator[tuple[Sequence[str], Any]]:
    """Yield the pictures that `name` stands for: itself, those of a folder or pattern, or standard input's bytes."""
    if name == "-":
        yield ["-"], [sys.stdin.buffer.read()]
        return
    paths = _picture_paths(name)
    for start in range(0, len(paths), BATCH_SIZE):
        some = paths[start : start + BATCH_SIZE]
        yield [str(path) for path in some], some


def _picture_paths(name: str) -> list[Path]:
    from goodfit.data.folder import find_pictures

    path = Path(name)
    if path.is_dir():
        found = find_pictures(path)
        if not found:
            raise DataError(f"the folder {name!r} holds no pictures; name another, or the pictures themselves")
        return found
    if not path.exists() and any(letter in name for letter in "*?["):
        matches = sorted(glob(name, recursive=True))  # noqa: PTH207  (Path.glob takes no absolute pattern)
        if not matches:
            raise DataError(f"no file matches {name!r}; check the pattern")
        return [Path(match) for match in matches if Path(match).is_file()]
    return [path]


def _row_batches(name: str) -> Iterator[tuple[Sequence[str], Any]]:
    """Yield the rows of a table file, or of CSV on standard input, each named by its line."""
    from goodfit.data.table import read_rows

    frame, names = read_rows(sys.stdin.buffer if name == "-" else Path(name))
    for start in range(0, len(frame), BATCH_SIZE):
        yield names[start : start + BATCH_SIZE], frame[start : start + BATCH_SIZE]


def _predict(predictor: Predictor, names: Sequence[str], examples: Any, top: int) -> Iterator[PredictionResult]:
    """Predict a batch at once, or one at a time where one of them is bad."""
    try:
        predictions = predictor.predict_stored(predictor.model.transform.encode(examples), top=top)
        yield from (PredictionResult(name, prediction) for name, prediction in zip(names, predictions, strict=True))
    except DataError as error:
        if len(names) == 1:
            yield PredictionResult(names[0], error=str(error))
            return
        for index, name in enumerate(names):
            yield from _predict(predictor, [name], examples[index : index + 1], top)
