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
TABLES = (".csv", ".tsv", ".parquet")


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
    """Predict every input in order, in batches; one that cannot be read gives a result with an error.

    Raises DataError if a single input was named and it cannot be read, or a folder or glob holds none.
    """
    takes_rows = predictor.model.transform.to_json()["kind"] == "table"
    batch: list[tuple[str, Any]] = []
    for name in inputs:
        for example in _rows(name) if takes_rows else _pictures(name):
            batch.append(example)
            if len(batch) == BATCH_SIZE:
                yield from _predict(predictor, batch, top)
                batch = []
    yield from _predict(predictor, batch, top)


def _pictures(name: str) -> Iterator[tuple[str, Any]]:
    """Yield the pictures that `name` stands for: itself, those of a folder, of a glob, or standard input's bytes."""
    from goodfit.data.folder import find_pictures

    if name == "-":
        yield "-", sys.stdin.buffer.read()
        return
    path = Path(name)
    if path.is_dir():
        paths = find_pictures(path)
        if not paths:
            raise DataError(f"the folder {name!r} holds no pictures; name another, or the pictures themselves")
        yield from ((str(found), found) for found in paths)
    elif not path.exists() and any(letter in name for letter in "*?["):
        found = sorted(glob(name, recursive=True))  # noqa: PTH207  # Path.glob does not take an absolute pattern
        if not found:
            raise DataError(f"no file matches {name!r}; check the pattern")
        yield from ((item, Path(item)) for item in found if Path(item).is_file())
    else:
        yield name, path


def _rows(name: str) -> Iterator[tuple[str, Any]]:
    """Yield the rows of a table file, or of CSV on standard input, each as a one-row frame named by its line."""
    from goodfit.data.table import read_rows

    if name == "-":
        frame, names = read_rows(sys.stdin.buffer)
    else:
        if Path(name).suffix.lower() not in TABLES:
            raise DataError(f"{name!r} is not a table, and this model predicts a table's rows; give {', '.join(TABLES)}")
        frame, names = read_rows(Path(name))
    for index in range(len(frame)):
        yield names[index], frame[index]


def _predict(predictor: Predictor, batch: list[tuple[str, Any]], top: int) -> Iterator[PredictionResult]:
    """Predict a batch at once, or one at a time where one of them is bad."""
    if not batch:
        return
    try:
        stored = predictor.model.transform.encode(_join([example for _, example in batch]))
        predictions = predictor.predict_stored(stored, top=top)
        yield from (PredictionResult(name, prediction) for (name, _), prediction in zip(batch, predictions, strict=True))
    except DataError as error:
        if len(batch) == 1:
            yield PredictionResult(batch[0][0], error=str(error))
            return
        for example in batch:
            yield from _predict(predictor, [example], top)


def _join(examples: list[Any]) -> Any:
    """Make one frame of rows; pictures stay a list."""
    if hasattr(examples[0], "vstack"):
        import polars as pl

        return pl.concat(examples)
    return examples
