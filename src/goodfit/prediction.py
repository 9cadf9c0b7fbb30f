"""Predicting what a command line names: files, folders, globs, rows of tables, or standard input."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from glob import glob
from pathlib import Path
from typing import Any

from goodfit.artefacts.predictor import Estimate, Prediction, Predictor
from goodfit.data.folder import find_pictures
from goodfit.data.images import SUFFIXES
from goodfit.data.table import TABLE_SUFFIXES, read_rows
from goodfit.errors import ConfigError, DataError, FileError
from goodfit.files import write_atomically
from goodfit.plots import Pictured, plot_predictions, render

__all__ = ["PredictionPlot", "PredictionResult", "predict_inputs"]

BATCH_SIZE = 64
MOST_PLOTTED = 20
PLOT_SUFFIXES = (".png", ".pdf", ".svg")


@dataclass(frozen=True)
class PredictionResult:
    """One input and what came of it: a prediction, or the error that prevented it."""

    input: str
    prediction: Prediction | Estimate | None = None
    error: str | None = None
    picture: Any = field(default=None, repr=False, compare=False)  # where it is one: its path, or a file's bytes

    def to_json(self) -> dict[str, Any]:
        """Return the line that `goodfit predict --json` prints."""
        return {"input": self.input} | (self.prediction.to_json() if self.prediction else {"error": self.error})


def predict_inputs(predictor: Predictor, inputs: Sequence[str], *, top: int = 3) -> Iterator[PredictionResult]:
    """Predict every input in order, in batches; one among many that cannot be read gives a result with an error.

    Raises DataError for the only input, if it cannot be read, and for a folder, pattern or table that holds none.
    """
    kind = predictor.model.transform.to_json()["kind"]
    if kind not in ("table", "image"):
        raise DataError(
            f"{predictor.path} takes numbers as they were given to its training, and no files; predict in Python: "
            f"goodfit.load({str(predictor.path)!r})(array)"
        )
    reads = _row_batches if kind == "table" else _picture_batches
    for name in inputs:
        try:
            for names, examples in reads(predictor, name):
                alone = list(names) == [name] == list(inputs)
                yield from _predict(predictor, names, examples, top, alone=alone)
        except DataError as error:
            if len(inputs) == 1:
                raise
            yield PredictionResult(name, error=str(error))


def _picture_batches(_: Predictor, name: str) -> Iterator[tuple[Sequence[str], Any]]:
    """Yield the pictures that `name` stands for: itself, those of a folder or pattern, or standard input's bytes."""
    if name == "-":
        picture = sys.stdin.buffer.read()
        if not picture:
            raise DataError("standard input is empty; send a picture to it, such as: goodfit predict MODEL - < picture.png")
        yield ["-"], [picture]
        return
    if Path(name).suffix.lower() in TABLE_SUFFIXES:
        raise DataError(f"{name!r} is a table, and the model takes pictures; name pictures, or a folder of them")
    paths = _paths(name, "pictures", find_pictures)
    for start in range(0, len(paths), BATCH_SIZE):
        some = paths[start : start + BATCH_SIZE]
        yield [str(path) for path in some], some


def _paths(name: str, what: str, find: Callable[[Path], list[Path]]) -> list[Path]:
    """Return the files that `name` stands for: itself, what is found in a folder, or what a pattern matches."""
    path = Path(name)
    if path.is_dir():
        found = find(path)
        if not found:
            raise DataError(f"the folder {name!r} holds no {what}; name another, or the {what} themselves")
        return found
    if not path.exists() and any(letter in name for letter in "*?["):
        matches = sorted(glob(name, recursive=True))  # noqa: PTH207  (Path.glob takes no absolute pattern)
        found = [Path(match) for match in matches if Path(match).is_file()]
        if not found:
            raise DataError(f"no file matches {name!r}; check the pattern")
        return found
    if not path.exists():
        raise DataError(f"{name!r} does not exist; check the path")
    return [path]


def _find_tables(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in TABLE_SUFFIXES)


def _row_batches(predictor: Predictor, name: str) -> Iterator[tuple[Sequence[str], Any]]:
    """Yield the rows of table files, or of CSV on standard input, each named by its file and line."""
    if Path(name).suffix.lower() in SUFFIXES:
        raise DataError(
            f"{name!r} is a picture, and the model takes the rows of tables; name a {', '.join(TABLE_SUFFIXES)} file"
        )
    for source in [sys.stdin.buffer] if name == "-" else _paths(name, "tables", _find_tables):
        frame, names = read_rows(source)
        predictor.model.transform.encode(frame[:0])  # a column that is missing is missing from every row: said once
        for start in range(0, len(frame), BATCH_SIZE):
            yield names[start : start + BATCH_SIZE], frame[start : start + BATCH_SIZE]


def _predict(
    predictor: Predictor, names: Sequence[str], examples: Any, top: int, *, alone: bool = False
) -> Iterator[PredictionResult]:
    """Predict a batch at once, or one at a time where one of them is bad; an error of the only input is raised."""
    try:
        predictions = predictor.predict_stored(predictor.model.transform.encode(examples), top=top)
        pictures = examples if isinstance(examples, list) else [None] * len(names)
        for name, prediction, picture in zip(names, predictions, pictures, strict=True):
            yield PredictionResult(name, prediction, picture=picture)
    except DataError as error:
        if alone and names[0] == "-":
            raise DataError(f"standard input: {error}; - stands for the bytes of one picture") from error
        if alone:
            raise
        if len(names) == 1:
            yield PredictionResult(names[0], error=str(error))
            return
        for index, name in enumerate(names):
            yield from _predict(predictor, [name], examples[index : index + 1], top)


class PredictionPlot:
    """The figure that `goodfit predict --plot` writes: the first pictures beside what was predicted of them.

    Raises, before anything is predicted, ConfigError for a file of another kind, FileError for a place where it cannot be
    written, and DataError for a model that does not take pictures.
    """

    def __init__(self, path: Path, predictor: Predictor, inputs: Sequence[str]) -> None:
        kind = predictor.model.transform.to_json()["kind"]
        if kind != "image":
            raise DataError(f"--plot shows pictures, and the model takes {kind}s; leave --plot out")
        if path.suffix.lower() not in PLOT_SUFFIXES:
            raise ConfigError(f"--plot {str(path)!r} ends in no known suffix; choose from: {', '.join(PLOT_SUFFIXES)}")
        if not path.parent.is_dir():
            raise FileError(f"--plot {str(path)!r} lies in a folder that does not exist; make {str(path.parent)!r} first")
        if path.is_dir():
            raise FileError(f"--plot {str(path)!r} is a folder; name a file")
        if path.exists() and any(os.path.exists(name) and path.samefile(name) for name in inputs):  # noqa: PTH110
            raise FileError(f"--plot {str(path)!r} is one of the pictures, and would replace it; name another file")
        self._path = path
        self._items: list[Pictured] = []
        self._left_out = 0

    def add(self, result: PredictionResult) -> None:
        """Take one picture more, unless there was an error or there are enough."""
        if result.prediction is None:
            return
        if len(self._items) < MOST_PLOTTED:
            self._items.append(Pictured(result.picture, result.prediction, result.input))
        else:
            self._left_out += 1

    def write(self) -> str:
        """Write the figure, and return a line that says what is in it; raise RunError where the disk does not take it."""
        if not self._items:
            return f"{self._path} was not written: no picture was predicted"
        write_atomically(self._path, render(plot_predictions(self._items), self._path.suffix[1:].lower()))
        if self._left_out:
            return f"wrote {self._path}: the first {len(self._items)} pictures, {self._left_out:,} left out"
        return f"wrote {self._path}: {len(self._items)} picture{'' if len(self._items) == 1 else 's'}"
