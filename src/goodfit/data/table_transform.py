"""A table's preprocessing: numbers standardised, categories one-hot, missing values imputed and flagged."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from goodfit.errors import DataError

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray

__all__ = ["CategoricalColumn", "ScaledColumn", "TableTransform", "clean_text", "find_infinite", "parse_dates"]

MAX_FEATURES = 10_000
MAX_CATEGORIES = 100
MIN_IDENTIFIERS = 20  # so many distinct texts, nearly one a row, are names and not categories
MAX_DEVIATIONS = 1e6  # a value of N training rows is at most sqrt(N) deviations from their mean
FLOAT32_MAX = float(np.finfo(np.float32).max)
MISSING = ["", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "NaT", "NULL", "null", "None", "?"]
BOOLEANS = {"true": 1.0, "false": 0.0, "1": 1.0, "0": 0.0, "yes": 1.0, "no": 0.0}
ROW_NUMBER_NAMES = ("", "id", "index", "row", "row_id", "rowid", "unnamed: 0")
PARTS = {"number": ("value",), "boolean": ("value",), "date": ("days", "year", "month", "weekday", "hour")}


@dataclass(frozen=True)
class ScaledColumn:
    """A column of numbers, booleans or dates: its parts standardised, 0 (their mean) where missing, and perhaps a flag.

    `kind` is "number", "boolean" or "date". `parts` are those that vary in training: the value, or days since 1970, year,
    month, weekday and hour of a date. `flagged` adds a feature that is 1 where the value is missing.
    """

    name: str
    kind: str
    parts: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    flagged: bool

    def __post_init__(self) -> None:
        known = self.kind in PARTS and set(self.parts) <= set(PARTS[self.kind])
        finite = all(isinstance(number, float) and isfinite(number) for number in self.mean + self.std)
        if not (known and len(self.parts) == len(self.mean) == len(self.std) and finite and all(self.std)):
            raise ValueError(f"column {self.name!r} is not a {self.kind} column with a mean and a deviation for each part")

    @property
    def num_features(self) -> int:
        """How many numbers one value becomes."""
        return len(self.parts) + self.flagged

    def encode(self, column: "pl.Series", features: "NDArray[np.float32]") -> None:
        """Write the (N, num_features) `features` of N values."""
        measured = _measure(column, self.kind)
        for place, part in enumerate(self.parts):
            # float64 until here: a time in seconds would lose its digits in float32
            with np.errstate(over="ignore"):
                deviations = (measured[part] - self.mean[place]) / self.std[place]
            features[:, place] = np.nan_to_num(np.clip(deviations, -MAX_DEVIATIONS, MAX_DEVIATIONS))
        if self.flagged:
            features[:, -1] = np.isnan(measured[PARTS[self.kind][0]])

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        scaling = {"parts": list(self.parts), "mean": list(self.mean), "std": list(self.std)}
        return {"kind": self.kind, "name": self.name, **scaling, "flagged": self.flagged}


@dataclass(frozen=True)
class CategoricalColumn:
    """A column of text: one feature for each category, one for any other text, and one for a missing value."""

    name: str
    categories: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.categories or len(set(self.categories)) < len(self.categories):
            raise ValueError(f"column {self.name!r} is not a categorical column with different categories")

    @property
    def num_features(self) -> int:
        """How many numbers one value becomes."""
        return len(self.categories) + 2

    def encode(self, column: "pl.Series", features: "NDArray[np.float32]") -> None:
        """Write the (N, num_features) `features` of N values; `features` must be zeros."""
        import polars as pl

        text = _to_text(column)
        unknown = len(self.categories)
        places = text.replace_strict(list(self.categories), list(range(unknown)), default=unknown, return_dtype=pl.Int64)
        places = places.set(text.is_null(), unknown + 1)
        features[np.arange(len(text)), places.to_numpy()] = 1

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {"kind": "categorical", "name": self.name, "categories": list(self.categories)}


@dataclass(frozen=True)
class TableTransform:
    """The columns a model sees, in order, and those it does not with the reason why."""

    columns: tuple[ScaledColumn | CategoricalColumn, ...]
    dropped: tuple[tuple[str, str], ...] = ()

    @classmethod
    def fit(cls, frame: "pl.DataFrame", rows: Tensor) -> "TableTransform":
        """Describe the columns of `frame` from its training `rows` alone; raise DataError where nothing can be learned."""
        training = frame[rows.numpy()]
        described = [_describe(column) for column in training]
        columns = tuple(column for column in described if not isinstance(column, tuple))
        dropped = tuple(column for column in described if isinstance(column, tuple))
        if not columns:
            reasons = "; ".join(f"{name!r} {reason}" for name, reason in dropped[:5]) or "there is only the target"
            raise DataError(f"no column can be learned from: {reasons}; add columns that tell the rows apart")
        features = sum(column.num_features for column in columns)
        if features > MAX_FEATURES:
            raise DataError(f"{len(columns)} columns become {features} features; at most {MAX_FEATURES} fit, remove columns")
        return cls(columns, dropped)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The number of features, (F,)."""
        return (sum(column.num_features for column in self.columns),)

    @property
    def notes(self) -> tuple[str, ...]:
        """A sentence about each column that is not used."""
        return tuple(f"column {name!r} is not used: it {reason}" for name, reason in self.dropped)

    def encode(self, examples: Any) -> Tensor:
        """Return (N, F) float32 features of a frame (polars, pandas), a list of dictionaries, or one; columns go by name.

        Raises DataError for a column that is not there, or a value that its column cannot hold.
        """
        frame = _to_frame(examples, [column.name for column in self.columns])
        features = np.zeros((len(frame), *self.input_shape), np.float32)
        start = 0
        for column in self.columns:
            stop = start + column.num_features
            column.encode(frame[column.name], features[:, start:stop])
            start = stop
        return torch.from_numpy(features)

    def normalize(self, stored: Tensor) -> Tensor:
        """Return `stored` itself: `encode` has standardised it, in float64."""
        return stored

    def to_json(self) -> dict[str, Any]:
        """Return the description as JSON values."""
        columns = [column.to_json() for column in self.columns]
        return {"kind": "table", "columns": columns, "dropped": [list(pair) for pair in self.dropped]}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "TableTransform":
        """Rebuild from the fields of `to_json`, less the kind; raise KeyError, TypeError or ValueError if they are wrong."""
        columns = tuple(_column_from_json(**column) for column in fields["columns"])
        dropped = tuple((str(name), str(reason)) for name, reason in fields["dropped"])
        return cls(**fields | {"columns": columns, "dropped": dropped})


def _column_from_json(name: str, kind: str, **fields: Any) -> ScaledColumn | CategoricalColumn:
    lists: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
    return CategoricalColumn(str(name), **lists) if kind == "categorical" else ScaledColumn(str(name), str(kind), **lists)


def clean_text(column: "pl.Series") -> "pl.Series":
    """Strip the whitespace around text, and make null what spells a missing value, such as "NA"."""
    import polars as pl

    text = column.cast(pl.String).str.strip_chars()
    return text.set(text.is_in(MISSING), None)


def find_infinite(column: "pl.Series") -> int | None:
    """Return the first row whose number is infinite or beyond float32, if there is one."""
    outside = column.abs() > FLOAT32_MAX
    return outside.arg_max() if outside.any() else None


def parse_dates(text: "pl.Series") -> "pl.Series":
    """Read ISO 8601 dates and times as UTC, null where the text is none."""
    import polars as pl

    iso = text.str.replace(r"^(\S{8,10})T", "${1} ").str.replace(r"Z$", "+00:00")
    full = iso.str.replace(r"^(\S+ \d{1,2}:\d{2})($|[+-])", "${1}:00${2}").alias("text").to_frame()
    read = pl.col("text").str.to_datetime
    plain = [read(form, strict=False, time_unit="us") for form in ("%Y-%m-%d", "%Y-%m-%d %H:%M:%S%.f")]
    offset = read("%Y-%m-%d %H:%M:%S%.f%:z", strict=False, time_unit="us").dt.replace_time_zone(None)
    return full.select(pl.coalesce(*plain, offset).alias(text.name)).to_series()


def _describe(column: "pl.Series") -> ScaledColumn | CategoricalColumn | tuple[str, str]:
    """Describe a training column, or return its name and why it cannot be used."""
    import polars as pl

    if column.dtype == pl.Boolean:
        return _describe_scaled(column, "boolean")
    if column.dtype.is_numeric():
        counts_rows = column.dtype.is_integer() and column.name.lower() in ROW_NUMBER_NAMES
        if counts_rows and len(column) > 2 and column.n_unique() == len(column):
            return column.name, "only numbers the rows"
        return _describe_scaled(column, "number")
    if isinstance(column.dtype, pl.Date | pl.Datetime):
        return _describe_scaled(column, "date")
    if isinstance(column.dtype, pl.String | pl.Categorical | pl.Enum):
        return _describe_categorical(column)
    return column.name, "is empty" if column.dtype == pl.Null else f"holds {column.dtype} values"


def _describe_scaled(column: "pl.Series", kind: str) -> ScaledColumn | tuple[str, str]:
    measured = {part: values[~np.isnan(values)] for part, values in _measure(column, kind).items()}
    present = len(measured[PARTS[kind][0]])
    if not present:
        return column.name, "is empty"
    parts = tuple(part for part in PARTS[kind] if measured[part].min() < measured[part].max())
    flagged = present < len(column)
    if not parts and not flagged:
        return column.name, "has one value"
    mean = tuple(float(measured[part].mean()) for part in parts)
    std = tuple(float(measured[part].std()) or 1.0 for part in parts)
    return ScaledColumn(column.name, kind, parts, mean, std, flagged)


def _describe_categorical(column: "pl.Series") -> CategoricalColumn | tuple[str, str]:
    text = _to_text(column)
    present = text.drop_nulls()
    distinct = present.n_unique()
    if distinct == 0 or (distinct == 1 and len(present) == len(text)):
        return column.name, "has one value" if distinct else "is empty"
    if distinct > max(MIN_IDENTIFIERS, 0.9 * len(present)):
        return column.name, f"has {distinct} different texts in {len(present)} rows"
    counts = present.alias("category").value_counts(name="count").sort(["count", "category"], descending=[True, False])
    return CategoricalColumn(column.name, tuple(sorted(counts["category"].head(MAX_CATEGORIES))))


def _measure(column: "pl.Series", kind: str) -> "dict[str, NDArray[np.float64]]":
    """Return each part of N values as (N,) float64, NaN where missing."""
    import polars as pl

    if kind == "date":
        dates = _to_dates(column)
        days = dates.to_physical() / 86_400e6
        clock = dates.dt
        parts = dict(zip(PARTS["date"], (days, clock.year(), clock.month(), clock.weekday(), clock.hour()), strict=True))
    else:
        parts = {"value": _to_numbers(column) if kind == "number" else _to_booleans(column)}
    return {part: values.cast(pl.Float64).to_numpy() for part, values in parts.items()}


def _to_numbers(column: "pl.Series") -> "pl.Series":
    import polars as pl

    if isinstance(column.dtype, pl.String | pl.Categorical | pl.Enum):
        text = clean_text(column)
        numbers = text.replace(["true", "false"], ["1", "0"]).cast(pl.Float64, strict=False)
        _refuse(text, numbers.is_null() & text.is_not_null(), "a number")
    elif column.dtype.is_numeric() or column.dtype in (pl.Boolean, pl.Null):
        numbers = column.cast(pl.Float64)
    else:
        raise DataError(f"column {column.name!r} holds {column.dtype} values; give numbers")
    numbers = numbers.fill_nan(None)
    _refuse(column, numbers.abs() > FLOAT32_MAX, "a finite number that float32 can hold")
    return numbers


def _to_booleans(column: "pl.Series") -> "pl.Series":
    import polars as pl

    text = _to_text(column)
    numbers = text.str.to_lowercase().replace_strict(BOOLEANS, default=None, return_dtype=pl.Float64)
    _refuse(text, numbers.is_null() & text.is_not_null(), "true or false")
    return numbers


def _to_dates(column: "pl.Series") -> "pl.Series":
    import polars as pl

    if isinstance(column.dtype, pl.Date | pl.Datetime):
        dates = column.cast(pl.Datetime("us", getattr(column.dtype, "time_zone", None)))
        return dates.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    text = _to_text(column)
    dates = parse_dates(text)
    _refuse(text, dates.is_null() & text.is_not_null(), "a date such as 2024-12-31 or 2024-12-31 23:59:59")
    return dates


def _to_text(column: "pl.Series") -> "pl.Series":
    import polars as pl

    if column.dtype.is_nested() or column.dtype in (pl.Object, pl.Binary):
        raise DataError(f"column {column.name!r} holds {column.dtype} values; give text or numbers")
    if column.dtype.is_float():
        return column.fill_nan(None).cast(pl.String).str.replace(r"\.0$", "")  # 5.0 is the category "5"
    return clean_text(column)


def _refuse(column: "pl.Series", bad: "pl.Series", wanted: str) -> None:
    if bad.any():
        row = bad.arg_max() or 0
        where = f", row {row + 1}" if len(column) > 1 else ""
        raise DataError(f"column {column.name!r}{where}: {column[row]!r:.60} is not {wanted}; correct it, or leave it empty")


def _to_frame(examples: Any, names: Sequence[str]) -> "pl.DataFrame":
    """Return the columns `names` of a polars frame, of a frame with pandas' `to_dict`, of dictionaries, or of one."""
    import polars as pl

    if isinstance(examples, Mapping):
        examples = [examples]
    if isinstance(examples, list | tuple):
        columns = {name: [_field(row, place, name) for place, row in enumerate(examples)] for name in names}
        return pl.DataFrame([_to_series(name, values) for name, values in columns.items()])
    if not hasattr(examples, "columns"):
        raise DataError(f"a value of type {type(examples).__name__} is no table; give a dictionary for each row, or a frame")
    for name in names:
        if name not in examples.columns:
            raise _absent(name, examples.columns)
    if isinstance(examples, pl.DataFrame):
        return examples.select(names)
    lists: Callable[..., dict[str, list[Any]]] = examples[list(names)].to_dict
    return pl.DataFrame([_to_series(name, values) for name, values in lists(orient="list").items()])


def _field(row: Any, place: int, name: str) -> Any:
    if not isinstance(row, Mapping):
        raise DataError(f"row {place + 1} is of type {type(row).__name__}; give a dictionary of its columns")
    if name not in row:
        raise _absent(name, row)
    return row[name]


def _absent(name: str, known: Any) -> DataError:
    return DataError(
        f"column {name!r} is not in the data, which have {', '.join(map(str, known))}; add it, empty where unknown"
    )


def _to_series(name: str, values: list[Any]) -> "pl.Series":
    """Make a column of Python values; where their types differ it is text, which every kind of column can read."""
    import polars as pl

    if len({type(value) for value in values if value is not None}) <= 1:
        with suppress(TypeError, ValueError, OverflowError, pl.exceptions.PolarsError):
            return pl.Series(name, values)
    return pl.Series(name, [None if value is None else _plain_text(value) for value in values], dtype=pl.String)


def _plain_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return str(value).lower() if isinstance(value, bool) else str(value).removesuffix(".0")
