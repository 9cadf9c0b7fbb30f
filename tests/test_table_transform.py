import json
from datetime import date, datetime

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from goodfit.data.table_transform import (
    MAX_CATEGORIES,
    CategoricalColumn,
    ScaledColumn,
    TableTransform,
    parse_dates,
)
from goodfit.errors import DataError

COLUMNS = {
    "age": st.none() | st.floats(-1e6, 1e6) | st.just(float("nan")),
    "count": st.none() | st.integers(-1000, 1000),
    "member": st.none() | st.booleans(),
    "job": st.none() | st.sampled_from(["cook", "clerk", "NA", " clerk "]),
    "born": st.none() | st.dates(date(1900, 1, 1), date(2100, 1, 1)),
    "seen": st.none() | st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1)),
}
SCHEMA = {"age": pl.Float64, "count": pl.Int64, "member": pl.Boolean, "job": pl.String, "born": pl.Date, "seen": pl.Datetime}
FRAMES = st.lists(st.fixed_dictionaries(COLUMNS), min_size=2, max_size=12).map(lambda rows: pl.DataFrame(rows, schema=SCHEMA))


def fit(columns, rows=None):
    frame = pl.DataFrame(columns, strict=False)
    return TableTransform.fit(frame, torch.arange(len(frame)) if rows is None else torch.tensor(rows))


@settings(max_examples=40, deadline=None)
@given(FRAMES)
def test_the_json_form_and_every_way_to_give_rows_encode_alike(frame):
    try:
        transform = fit(frame)
    except DataError:
        return  # nothing varies in these rows
    encoded = transform.encode(frame)
    assert encoded.shape == (len(frame), *transform.input_shape)
    assert encoded.dtype == torch.float32
    assert encoded.isfinite().all()

    document = transform.to_json()
    assert document.pop("kind") == "table"
    assert json.loads(json.dumps(document)) == document
    again = TableTransform.from_json(json.loads(json.dumps(document)))
    assert again == transform
    assert torch.equal(again.encode(frame), encoded)

    rows = frame.to_dicts()
    assert torch.equal(transform.encode(rows), encoded)
    for row in range(len(frame)):
        assert torch.equal(transform.encode(frame[row]), encoded[row : row + 1])
        assert torch.equal(transform.encode(rows[row]), encoded[row : row + 1])
    as_text = frame.with_columns(pl.all().cast(pl.String))
    assert torch.equal(transform.encode(as_text), encoded)


def test_numbers_are_standardised_over_the_training_rows_only():
    transform = fit({"x": [1.0, 3.0, None, 1000.0]}, rows=[0, 1, 2])
    assert transform.columns == (ScaledColumn("x", "number", ("value",), (2.0,), (1.0,), True),)
    assert transform.encode({"x": 5}).tolist() == [[3.0, 0.0]]
    assert transform.encode({"x": None}).tolist() == [[0.0, 1.0]]
    stored = transform.encode([{"x": 4}, {"x": None}])
    assert torch.equal(transform.normalize(stored), stored)


def test_large_offsets_keep_their_digits():
    seconds = [1_700_000_000.0 + step for step in range(5)]
    encoded = fit({"t": seconds}).encode(pl.DataFrame({"t": seconds}))
    assert encoded[:, 0].numpy() == pytest.approx((np.arange(5) - 2) / np.sqrt(2))


def test_a_value_far_outside_training_stays_finite():
    transform = fit({"x": [0.0, 1e-30, 2e-30]})
    assert transform.encode({"x": -1e38}).tolist() == [[-1e6]]


def test_missing_values_are_imputed_where_training_had_none():
    assert fit({"x": [1.0, 3.0]}).encode({"x": "NA"}).tolist() == [[0.0]]


def test_categories_have_a_place_for_the_unknown_and_one_for_missing():
    transform = fit({"job": ["cook", "clerk", " cook", "?"]})
    assert transform.columns == (CategoricalColumn("job", ("clerk", "cook")),)
    rows = [{"job": job} for job in ("clerk", "cook ", "king", None, "")]
    assert transform.encode(rows).argmax(dim=1).tolist() == [0, 1, 2, 3, 3]
    assert transform.encode(rows).sum(dim=1).tolist() == [1] * 5


def test_the_most_frequent_categories_are_kept():
    words = [f"w{place:03}" for place in range(MAX_CATEGORIES + 10)]
    column = fit({"word": words + words[10:] + words[10:]}).columns[0]
    assert column.categories == tuple(words[10:])


def test_dates_become_the_parts_that_vary():
    transform = fit({"d": [datetime(2024, 1, 1), datetime(2024, 1, 3), None]})
    column = transform.columns[0]
    assert (column.parts, column.mean, column.std) == (("days", "weekday"), (19724.0, 2.0), (1.0, 1.0))
    for value in ("2024-01-03", "2024-01-03T00:00", "2024-01-02 23:00:00-01:00", date(2024, 1, 3), datetime(2024, 1, 3)):
        assert transform.encode({"d": value}).tolist() == [[1.0, 1.0, 0.0]]
    assert transform.encode({"d": None}).tolist() == [[0.0, 0.0, 1.0]]
    assert "hour" in fit({"d": [datetime(2024, 1, 1, 5), datetime(2024, 1, 1, 6)]}).columns[0].parts


def test_only_iso_dates_are_read():
    texts = ["2024-02-29", "2024-02-29T12:30Z", "2024-02-29 12:30:01.5", "2023-02-29", "20240229", "Tuesday", "2024-02-29 12"]
    dates = parse_dates(pl.Series(texts)).to_list()
    assert dates[:3] == [datetime(2024, 2, 29), datetime(2024, 2, 29, 12, 30), datetime(2024, 2, 29, 12, 30, 1, 500_000)]
    assert dates[3:] == [None] * 4


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([7, 7, 7], "has one value"),
        (["a", "a", " a"], "has one value"),
        ([None, None, "NA"], "is empty"),
        ([float("nan")] * 3, "is empty"),
        ([None] * 3, "is empty"),
        ([[1], [2], [3]], r"holds List\(Int64\) values"),
    ],
)
def test_columns_that_tell_nothing_are_dropped_and_said(values, reason):
    transform = fit({"bad": values, "x": [1, 2, 3]})
    assert [column.name for column in transform.columns] == ["x"]
    assert len(transform.notes) == 1
    assert transform.encode({"x": 2}).tolist() == [[0.0]]
    with pytest.raises(DataError, match=f"no column can be learned from: 'bad' {reason}"):
        fit({"bad": values})


def test_names_and_row_numbers_are_dropped_but_numbers_stay():
    numbers = list(range(30))
    transform = fit({"name": [f"n{number}" for number in numbers], "id": numbers, "year": numbers})
    assert [column.name for column in transform.columns] == ["year"]
    assert transform.dropped == (("name", "has 30 different texts in 30 rows"), ("id", "only numbers the rows"))
    assert len(fit({"name": ["a", "b", "c"]}).columns) == 1


@pytest.mark.parametrize("value", [5, 5.0, "5", "5.0", " 5 ", np.float32(5), np.int64(5)])
def test_numbers_are_read_from_any_type(value):
    assert fit({"x": [1, 3]}).encode({"x": value}).tolist() == [[3.0]]


def test_true_is_one_among_numbers():
    transform = fit({"x": [0, 2]})
    assert transform.encode({"x": True}).tolist() == transform.encode([{"x": "true"}]).tolist() == [[0.0]]


@pytest.mark.parametrize("value", [True, "true", "TRUE", 1, 1.0, "1", "yes"])
def test_booleans_are_read_from_any_type(value):
    assert fit({"b": [True, False]}).encode({"b": value}).tolist() == [[1.0]]


@pytest.mark.parametrize("value", [5, 5.0, "5"])
def test_categories_are_read_from_any_type(value):
    assert fit({"c": ["5", "x"]}).encode([{"c": value}, {"c": "x"}]).argmax(dim=1).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"x": "abc", "b": 1, "d": None}, "column 'x': 'abc' is not a number"),
        ([{"x": 1, "b": 1, "d": None}, {"x": "abc", "b": 1, "d": None}], "column 'x', row 2: 'abc' is not a number"),
        ({"x": float("inf"), "b": 1, "d": None}, "column 'x': inf is not a finite number"),
        ({"x": 1e39, "b": 1, "d": None}, "column 'x': 1e\\+39 is not a finite number"),
        ({"x": 10**400, "b": 1, "d": None}, "column 'x': '1000* is not a finite number"),
        ({"x": [1], "b": 1, "d": None}, r"column 'x' holds List\(Int64\) values; give numbers"),
        ({"x": object(), "b": 1, "d": None}, "column 'x' holds Object values"),
        ({"x": 1, "b": 2, "d": None}, "column 'b': '2' is not true or false"),
        ({"x": 1, "b": 1, "d": "soon"}, "column 'd': 'soon' is not a date"),
        ({"x": 1, "d": None}, "column 'b' is not in the data, which have x, d; add it, empty where unknown"),
        (pl.DataFrame({"x": [1]}), "column 'b' is not in the data, which have x"),
        ([[1, 2, 3]], "row 1 is of type list; give a dictionary"),
        ("f.csv", "a value of type str is no table"),
    ],
)
def test_what_does_not_fit_is_named(rows, message):
    transform = fit({"x": [1, 2], "b": [True, False], "d": [date(2024, 1, 1), date(2025, 1, 1)]})
    with pytest.raises(DataError, match=message):
        transform.encode(rows)


def test_infinity_in_training_is_named():
    with pytest.raises(DataError, match="column 'x', row 2: -inf is not a finite number"):
        fit({"x": [1.0, float("-inf")]})


def test_extra_columns_are_ignored_and_order_does_not_matter():
    transform = fit({"a": [1, 3], "b": [10, 30]})
    assert transform.encode({"extra": [object()], "b": 20, "a": 1}).tolist() == [[-1.0, 0.0]]


def test_a_frame_with_the_dictionaries_of_pandas_is_read():
    class PandasLike:
        def __init__(self, columns):
            self.data = columns
            self.columns = list(columns)

        def __getitem__(self, names):
            return PandasLike({name: self.data[name] for name in names})

        def to_dict(self, orient):
            assert orient == "list"
            return self.data

    transform = fit({"x": [1.0, 3.0, None], "job": ["cook", "clerk", None]})
    frame = PandasLike({"job": ["cook", float("nan")], "other": [1, 2], "x": [float("nan"), 3.0]})
    assert transform.encode(frame).tolist() == [[0.0, 1.0, 0, 1, 0, 0], [1.0, 0.0, 0, 0, 0, 1]]


def test_no_rows_give_no_features():
    assert fit({"x": [1, 2]}).encode([]).shape == (0, 1)


def test_too_many_features_are_refused():
    words = {f"c{column}": [f"w{row % 60}" for row in range(120)] for column in range(200)}
    with pytest.raises(DataError, match="200 columns become 12400 features; at most 10000 fit"):
        fit(words)


@pytest.mark.parametrize(
    "change",
    [
        {"mean": [float("nan")]},
        {"mean": ["0"]},
        {"mean": [10**400]},
        {"std": [0.0]},
        {"std": []},
        {"kind": "guess"},
        {"parts": ["week"]},
        {"parts": None},
        {"unknown": 1},
    ],
)
def test_a_damaged_description_is_refused(change):
    document = fit({"x": [1, 2]}).to_json()
    del document["kind"]
    document["columns"][0] |= change
    with pytest.raises((KeyError, TypeError, ValueError)):
        TableTransform.from_json(document)
