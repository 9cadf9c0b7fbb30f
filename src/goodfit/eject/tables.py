"""Tables in a program: read as text with polars, and encoded by the columns that the run fitted."""

import ast
from pathlib import Path
from typing import TYPE_CHECKING

from goodfit.data import table_transform
from goodfit.data.table import _find_separator, read_rows
from goodfit.data.table_transform import CategoricalColumn, ScaledColumn, TableTransform, clean_text
from goodfit.eject.knowledge import Knowledge
from goodfit.eject.layout import docstring, expression, statements
from goodfit.eject.values import Code, Static, literal, name
from goodfit.errors import ConfigError

if TYPE_CHECKING:
    import polars as pl

__all__ = ["table_functions"]

Column = ScaledColumn | CategoricalColumn

# What a column's fields are called as parameters, and their types.
PARAMETERS = {
    "parts": ("used", "tuple[str, ...]"),
    "mean": ("means", "tuple[float, ...]"),
    "std": ("stds", "tuple[float, ...]"),
    "flagged": ("flagged", "bool"),
    "categories": ("categories", "tuple[str, ...]"),
}
FIELDS = {ScaledColumn: ("parts", "mean", "std", "flagged"), CategoricalColumn: ("categories",)}


def table_functions(known: Knowledge, path: Path) -> list[str]:
    """Return what reads the table and encodes its columns; raise ConfigError for a file that is no plain text of its kind."""
    transform, specializer = known.session.plan.dataset.transform, known.specializer
    assert isinstance(transform, TableTransform)
    reading = _reading(known, path)
    specializer.rules[table_transform._refuse] = lambda *_: Static(None)
    for function in ("_to_numbers", "_to_booleans", "_to_dates", "_to_text", "clean_text", "parse_dates"):
        specializer.kept[getattr(table_transform, function)] = ("", {})
    specializer.facts |= {
        "isinstance(column.dtype, pl.String | pl.Categorical | pl.Enum)": Static(True),  # all columns are read as text
        "isinstance(column.dtype, pl.Date | pl.Datetime)": Static(False),
        "column.dtype.is_float()": Static(False),
    }
    before = dict(specializer.variables)
    specializer.variables |= dict(PARAMETERS.values())
    specializer.keep(clean_text)
    columns = ", ".join(_column(known, column) for column in transform.columns)
    specializer.variables = before
    about = ["# Each column: its name, how many features it becomes, how it is encoded, and with what."]
    return [*about, *statements(ast.parse(f"COLUMNS = [{columns}]").body), "", "", *_read(known, reading)]


def _reading(known: Knowledge, path: Path) -> str:
    """Return the expression that reads the table with every column as text."""
    import polars as pl

    dataset, target = known.session.plan.dataset, known.session.plan.config.data.target
    assert isinstance(dataset.transform, TableTransform)
    if not path.exists():
        raise ConfigError(f"the table {str(path)!r} is not here; put it back, or run this in the folder where the run was made")
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        frame, _ = read_rows(path)
        used = {*(column.name for column in dataset.transform.columns), target}
        strange = [name for name in frame.columns if name.strip() in used and not _is_plain(frame[name].dtype)]
        if strange:
            raise ConfigError(
                f"eject of a .parquet whose column {strange[0]!r} is of type {frame[strange[0]].dtype} is not built yet; "
                "write it as text or numbers"
            )
        reading = "pl.read_parquet(path).cast({pl.Float32: pl.Float64}).cast(pl.String)"
        frame = frame.cast({pl.Float32: pl.Float64}).cast(pl.String)
    else:
        separator = "\t" if suffix == ".tsv" else _find_separator(path.read_bytes().removeprefix(b"\xef\xbb\xbf"))
        if separator == ";":
            raise ConfigError("eject of a table with decimal commas is not built yet; write it with commas between the columns")
        reading = f"pl.read_csv(path, infer_schema=False, separator={separator!r})"
        frame = pl.read_csv(path, infer_schema=False, separator=separator)
    found = clean_text(frame.rename(str.strip)[target]).drop_nulls().unique()
    strange = [value for value in found if value not in dataset.classes]
    if dataset.classes and strange:
        raise ConfigError(
            f"eject of the target {target!r}, in which {strange[0]!r} stands for a class of another name, is not built yet; "
            "write each class in one way"
        )
    return reading


def _is_plain(kind: "pl.DataType") -> bool:
    """Whether a column's values are the same when they are written as text and read again."""
    import polars as pl

    return kind.is_integer() or kind.is_float() or kind in (pl.Boolean, pl.String, pl.Categorical, pl.Enum)


def _column(known: Knowledge, column: Column) -> str:
    """Return a column as it stands in the program."""
    title = f"encode_{column.kind if isinstance(column, ScaledColumn) else 'text'}"
    fields = FIELDS[type(column)]
    for field in fields:
        known.specializer.attributes[id(column), field] = Code(name(PARAMETERS[field][0]))
    known.specializer.keep(type(column).encode, title, {"self": Static(column)})
    given = ", ".join(expression(literal(getattr(column, field))) for field in fields)
    return f"({expression(literal(column.name))}, {column.num_features}, {title}, ({given},))"


def _read(known: Knowledge, reading: str) -> list[str]:
    dataset, target = known.session.plan.dataset, known.session.plan.config.data.target
    (count,) = dataset.transform.input_shape
    kind = "classes (N,)" if dataset.classes else "numbers to learn (N,)"
    values = "torch.from_numpy(target.cast(pl.Float64).to_numpy().astype(np.float32))"
    if dataset.classes:
        known.constant("CLASSES", dataset.classes)
        values = "torch.tensor([CLASSES.index(label) for label in target])"
    body = f"""
frame = {reading}
frame.columns = [title.strip() for title in frame.columns]
target = clean_text(frame[{target!r}])
frame, target = frame.filter(target.is_not_null()), target.drop_nulls()
features = np.zeros((len(frame), {count}), np.float32)
start = 0
for title, width, encode, given in COLUMNS:
    encode(*given, frame[title], features[:, start : start + width])
    start += width
return torch.from_numpy(features), {values}
"""
    return [
        "def read_table(path: str) -> tuple[Tensor, Tensor]:",
        *docstring(f"Return the features (N, {count}) float32 and the {kind} of a table."),
        *statements(ast.parse(body).body, 1),
    ]
