"""Tables: .csv, .tsv and .parquet files become columns of numbers, booleans, dates and text, and one target."""

import csv
import io
import os
import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from subprocess import run
from typing import TYPE_CHECKING, BinaryIO, overload

import numpy as np

from goodfit.data.dataset import Part, RawData, Task
from goodfit.data.table_transform import TableTransform, clean_text, find_infinite, parse_dates
from goodfit.data.targets import read_targets
from goodfit.errors import DataError, unknown_name

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray

__all__ = ["TABLE_SUFFIXES", "RowNames", "infer_types", "read_rows", "read_table"]

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet")
MAX_COLUMNS = 10_000
OTHER_SEPARATORS = (";", "\t")  # of a .csv whose header has no comma
DECIMAL_COMMA = r"^([+-]?\d*),(\d+(?:[eE][+-]?\d+)?)$"
PARQUET = b"PAR1"
PROOF = "import io, sys, polars; polars.read_parquet(io.BytesIO(sys.stdin.buffer.read()))"
NEWLINE, RETURN, QUOTE = b'\n\r"'


class RowNames(Sequence[str]):
    """Where each row came from, such as "adult.csv:7", made when asked for; `numbers` is (N,) lines or rows, from 1."""

    def __init__(self, file: str, numbers: "NDArray[np.int64]") -> None:
        self.file = file
        self.numbers = numbers

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> "RowNames": ...
    def __getitem__(self, index: int | slice) -> "str | RowNames":
        if isinstance(index, slice):
            return RowNames(self.file, self.numbers[index])
        return f"{self.file}:{self.numbers[index]}"


def read_table(path: Path, target: str | None, task: Task | None, classes: Sequence[str] | None = None) -> RawData:
    """Read a table whose column `target` is to be learned; rows without a target are left out, and said.

    `classes` are those of a trained model to be tested on the table, none for a regression. Raises DataError for a file that is no table,
    naming the line, for an unknown target, and for numbers that are not finite.
    """
    frame, names = read_rows(path)
    if target is None:
        raise DataError(f"{names.file} needs --target NAME, the column to be learned; its columns are {_list(frame.columns)}")
    if target not in frame.columns:
        raise DataError(unknown_name("target column", target, frame.columns))
    if frame.width == 1:
        raise DataError(f"{names.file} has no column beside the target {target!r}; add columns that tell the rows apart")
    labels, wanted = _read_target(frame[target], names, classes or ())
    notes = [f"{len(frame) - len(labels)} rows have no {target!r} and are left out"] if len(labels) < len(frame) else []
    frame, names = frame.drop(target).filter(wanted), RowNames(names.file, names.numbers[wanted.to_numpy()])
    targets = read_targets(labels, task, classes, names.__getitem__)
    # a model's own columns say what text means; what the rows to be tested look like must not
    frame, doubts = infer_types(frame, names) if classes is None else (frame, [])
    _check_finite(frame, names)
    return RawData(
        name=path.stem,
        task=targets.task,
        classes=targets.classes,
        parts={"train": Part(frame, targets.values, names)},
        fit=TableTransform.fit,
        notes=(targets.reason, *notes, *doubts),
    )


def read_rows(source: Path | BinaryIO) -> "tuple[pl.DataFrame, RowNames]":
    """Read the columns of a table as its file has them, text in a .csv or .tsv, and the name of each row.

    A row is named by the line it starts at, or by its number in a .parquet. A stream, such as standard input, is read as
    .csv, and its rows are named "-:7".
    """
    if isinstance(source, Path):
        file, data = source.name, _read_bytes(source)
        suffix = source.suffix.lower()
    else:
        file, data, suffix = "-", source.read(), ".csv"
    if suffix == ".parquet":
        frame = _read_parquet(file, data)
        names = RowNames(file, np.arange(1, len(frame) + 1))
    else:
        frame, names = _read_csv(file, data.removeprefix(b"\xef\xbb\xbf"), "\t" if suffix == ".tsv" else None)
    if not len(frame):
        raise DataError(f"{file} has a header but no rows; add rows")
    return frame, names


def infer_types(frame: "pl.DataFrame", names: Sequence[str]) -> "tuple[pl.DataFrame, list[str]]":
    """Make numbers, booleans and dates of the text columns that hold nothing else; say where a few values prevent it."""
    import polars as pl

    doubts = []
    columns = []
    for column in frame:
        typed = _infer_type(column) if column.dtype == pl.String else column
        columns.append(typed)
        if typed.dtype == pl.String and (stray := _find_stray(typed)) is not None:
            doubts.append(f"column {column.name!r} is read as text: {typed[stray]!r:.60} at {names[stray]} is not a number")
    return pl.DataFrame(columns), doubts


def _infer_type(column: "pl.Series") -> "pl.Series":
    import polars as pl

    text = clean_text(column)
    present = text.drop_nulls()
    if present.is_empty():
        return text
    if present.str.to_lowercase().is_in(["true", "false"]).all():
        return text.str.to_lowercase() == "true"
    for dtype in (pl.Int64(), pl.Float64()):
        numbers = text.cast(dtype, strict=False)
        if numbers.null_count() == text.null_count():
            return numbers
    if parse_dates(present.head(1)).null_count() == 0 and parse_dates(present).null_count() == 0:
        return parse_dates(text)
    return text


def _find_stray(text: "pl.Series") -> int | None:
    """Return the first row that is no number in a column where nine of ten are."""
    import polars as pl

    strays = text.cast(pl.Float64, strict=False).is_null() & text.is_not_null()
    return strays.arg_max() if 0 < int(strays.sum()) <= 0.1 * text.count() else None


def _read_target(column: "pl.Series", names: Sequence[str], classes: Sequence[str]) -> "tuple[pl.Series, pl.Series]":
    """Return the targets that are not missing, as text where all of it names classes, and which rows have one."""
    import polars as pl

    if isinstance(column.dtype, pl.String | pl.Categorical | pl.Enum):
        text = clean_text(column)
        column = text if text.drop_nulls().is_in(classes).all() else _infer_type(text)
    elif column.dtype.is_float():
        column = column.fill_nan(None)
    if column.dtype not in (pl.String, pl.Boolean) and not column.dtype.is_numeric():
        raise DataError(f"the target {column.name!r} holds {column.dtype} values; choose a column of text, booleans or numbers")
    if isinstance(column.dtype, pl.Decimal):
        column = column.cast(pl.Float64)
    wanted = column.is_not_null()
    if not wanted.any():
        raise DataError(f"the target {column.name!r} has only missing values in {len(names)} rows; choose another column")
    return column.drop_nulls(), wanted


def _check_finite(frame: "pl.DataFrame", names: Sequence[str]) -> None:
    for column in frame:
        if column.dtype.is_float() and (row := find_infinite(column)) is not None:
            raise DataError(
                f"{names[row]}: column {column.name!r} holds {column[row]}; give a finite number, or leave it empty"
            )


def _read_parquet(file: str, data: bytes) -> "pl.DataFrame":
    import polars as pl

    if not (data.startswith(PARQUET) and data.endswith(PARQUET)):
        raise DataError(f"{file} cannot be read as a parquet file: it does not begin and end as one; write it again")
    _prove(file, data)
    try:
        width = len(pl.read_parquet_schema(io.BytesIO(data)))
        if width > MAX_COLUMNS:
            raise DataError(f"{file} has {width} columns; at most {MAX_COLUMNS} can be read")
        return pl.read_parquet(io.BytesIO(data))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:  # polars panics at some damaged pages
        raise DataError(f"{file} cannot be read as a parquet file: {_first_line(error)}; write it again") from error


def _prove(file: str, data: bytes) -> None:
    """Raise DataError for a damaged parquet file at which polars ends its process, by letting it do so in another one."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(folder or os.curdir for folder in sys.path)}
    command = [sys.executable, "-P", "-c", PROOF]
    proof = run(command, input=data, env=environment, capture_output=True, check=False)  # noqa: S603  our own code
    if proof.returncode < 0:  # by a signal; any other error is met again, and said, in this process
        raise DataError(f"{file} cannot be read as a parquet file: it is damaged; write it again")


def _read_csv(file: str, data: bytes, separator: str | None) -> "tuple[pl.DataFrame, RowNames]":
    import polars as pl

    _check_text(file, data)
    if not data or data.isspace():
        raise DataError(f"{file} is empty; give a header line and rows")
    separator = separator or _find_separator(data)
    records = _find_records(file, data, separator)
    columns = _read_header(file, data, records, separator)
    _check_ragged(file, records, separator, len(columns))
    # a header of numbers in place of the file's own, whose quotes and empty names polars would read in its own way
    places = [str(place) for place in range(len(columns))]
    body = data[records.starts[1] :] if len(records.starts) > 1 else b""
    try:
        text = io.BytesIO(f"{separator.join(places)}\n".encode() + body)
        frame = pl.read_csv(text, separator=separator, schema=dict.fromkeys(places, pl.String))
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{file} cannot be read as a table: {_first_line(error)}; write it again") from error
    if len(frame) != len(records.starts) - 1:
        raise DataError(f"{file} cannot be read as a table: its rows are not one a line; write it again")
    if separator == ";":  # where the comma is the decimal point
        frame = frame.with_columns(pl.all().str.replace(DECIMAL_COMMA, "${1}.${2}"))
    frame.columns = columns
    kept = ~records.blank[1:]
    return frame.filter(kept), RowNames(file, records.lines[1:][kept])


@dataclass(frozen=True)
class _Records:
    """The records of a .csv from the header on: where each starts, its line from 1, its number of fields, if it is blank."""

    starts: "NDArray[np.int64]"
    lines: "NDArray[np.int64]"
    fields: "NDArray[np.int64]"
    blank: "NDArray[np.bool_]"


def _find_records(file: str, data: bytes, separator: str) -> _Records:
    """Find the records, whose quoted fields may hold separators and newlines."""
    characters = np.frombuffer(data, np.uint8)
    newlines = np.flatnonzero(characters == NEWLINE)
    quotes = np.flatnonzero(characters == QUOTE)
    _check_quotes(file, data, quotes, separator)
    separators = _outside(np.flatnonzero(characters == ord(separator)), quotes)
    ends = _outside(newlines, quotes)
    if not data.endswith(b"\n"):
        ends = np.append(ends, len(data))
    starts = np.append(0, ends[:-1] + 1)
    fields = np.diff(np.searchsorted(separators, ends), prepend=0) + 1
    length = ends - starts
    blank = (length == 0) | ((length == 1) & (characters[starts] == RETURN))
    header = int((~blank).argmax())
    lines = np.searchsorted(newlines, starts) + 1
    return _Records(starts[header:], lines[header:], fields[header:], blank[header:])


def _outside(positions: "NDArray[np.int64]", quotes: "NDArray[np.int64]") -> "NDArray[np.int64]":
    """Return the positions after an even number of quotes, which are not in a quoted field."""
    return positions[np.searchsorted(quotes, positions) % 2 == 0] if len(quotes) else positions


def _check_quotes(file: str, data: bytes, quotes: "NDArray[np.int64]", separator: str) -> None:
    """Raise DataError unless quotes open at the start of a field and close at its end; inside they are doubled."""
    characters = np.frombuffer(data, np.uint8)
    openings, closings = quotes[0::2], quotes[1::2]
    before = characters[openings - 1]
    before[openings == 0] = NEWLINE
    after = characters[np.minimum(closings + 1, len(data) - 1)]
    after[closings == len(data) - 1] = NEWLINE
    stray = [
        *openings[~np.isin(before, (ord(separator), NEWLINE, QUOTE))][:1],
        *closings[~np.isin(after, (ord(separator), NEWLINE, RETURN, QUOTE))][:1],
        *quotes[-1:][: len(quotes) % 2],
    ]
    if stray:
        line = data.count(b"\n", 0, min(stray)) + 1
        raise DataError(
            f"{file}:{line}: a quote that is not around a field; quote the whole field, with the quote in it doubled"
        )


def _read_header(file: str, data: bytes, records: _Records, separator: str) -> list[str]:
    if records.fields[0] > MAX_COLUMNS:
        raise DataError(f"{file} has {records.fields[0]} columns; at most {MAX_COLUMNS} can be read")
    stop = records.starts[1] if len(records.starts) > 1 else len(data)
    header = data[records.starts[0] : stop].decode()
    try:
        columns = [name.strip() for name in next(csv.reader(io.StringIO(header, newline=""), delimiter=separator))]
    except csv.Error as error:
        raise DataError(
            f"{file}:{records.lines[0]}: the header cannot be read: {error}; give the column names in it"
        ) from error
    for name, count in Counter(columns).items():
        if count > 1:
            raise DataError(f"{file} has {count} columns named {name!r}; rename them, or add the header line if it is missing")
    return columns


def _check_ragged(file: str, records: _Records, separator: str, width: int) -> None:
    ragged = np.flatnonzero((records.fields != width) & ~records.blank)
    if len(ragged):
        row = ragged[0]
        what = f"this row has {records.fields[row]} fields and the header {width}"
        raise DataError(f"{file}:{records.lines[row]}: {what}; mend it, or quote text with {separator!r} in it")


def _find_separator(data: bytes) -> str:
    """Return the comma, or what stands in its place in the header."""
    first = re.search(rb"[^\r\n]+", data)
    header = re.sub(rb'"[^"]*"', b"", first[0] if first else b"").decode()
    others = [separator for separator in OTHER_SEPARATORS if separator in header and "," not in header]
    return others[0] if others else ","


def _check_text(file: str, data: bytes) -> None:
    try:
        data.decode()
        bad = data.find(b"\0")
    except UnicodeDecodeError as error:
        bad = error.start
    if bad >= 0:
        line = data.count(b"\n", 0, bad) + 1
        raise DataError(f"{file}:{line}: the byte {data[bad]:#04x} is not UTF-8 text; save the table as UTF-8")


def _read_bytes(path: Path) -> bytes:
    if path.suffix.lower() not in TABLE_SUFFIXES:
        raise DataError(f"{path.name} is no table; give a {', '.join(TABLE_SUFFIXES)} file")
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; give a table that can") from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _list(columns: Sequence[str]) -> str:
    more = f" and {len(columns) - 20} more" if len(columns) > 20 else ""
    return ", ".join(columns[:20]) + more
