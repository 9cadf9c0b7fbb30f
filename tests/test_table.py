import csv
import io
import random
from contextlib import suppress

import polars as pl
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression

from goodfit.data.table import read_rows, read_table
from goodfit.errors import DataError, GoodfitError

quick = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def read(tmp_path, content, target="y", task=None, name="t.csv", **keywords):
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_table(path, target, task, **keywords)


def adult(rows=400):
    """Lines in the style of the adult census: mixed columns, a space after each comma, missing values as "?"."""
    draw = random.Random(0)
    lines = ["age, workclass, sex, hours, born, citizen, income"]
    for _ in range(rows):
        age, hours = draw.randint(17, 90), draw.choice([20, 35.5, 40, 60])
        work = draw.choice(["Private", "State-gov", "?"])
        born = f"{2020 - age}-0{draw.randint(1, 9)}-15"
        income = ">50K" if age + hours > 90 else "<=50K"
        age = "NA" if draw.random() < 0.05 else age
        lines.append(
            f"{age}, {work}, {draw.choice(['Male', 'Female'])}, {hours}, {born}, {draw.choice(['True', 'False'])}, {income}"
        )
    return "\n".join(lines) + "\n"


def test_a_census_table_is_read_without_a_hint(tmp_path):
    data = read(tmp_path, adult(), target="income", name="adult.csv")
    part = data.parts["train"]
    types = dict(part.inputs.schema)
    assert (data.name, data.task, data.classes) == ("adult", "classification", ("<=50K", ">50K"))
    assert data.notes == ("2 classes: the target is text",)
    assert list(types.values()) == [pl.Int64, pl.String, pl.String, pl.Float64, pl.Datetime("us"), pl.Boolean]
    assert (part.names[0], part.names[399], len(part.names)) == ("adult.csv:2", "adult.csv:401", 400)
    transform = data.fit(part.inputs, torch.arange(0, 400, 2))
    encoded = transform.encode(part.inputs)
    assert transform.dropped == ()
    assert encoded.isfinite().all()
    # prediction reads the same file as text, target and all
    rows, names = read_rows(tmp_path / "adult.csv")
    assert torch.equal(transform.encode(rows), encoded)
    assert list(names) == list(part.names)


def test_breast_cancer_as_csv_is_learned(tmp_path):
    bunch = load_breast_cancer()
    frame = pl.DataFrame(bunch.data, schema=[str(name) for name in bunch.feature_names])
    frame = frame.with_columns(pl.Series("diagnosis", bunch.target_names[bunch.target].astype(str)))
    frame.write_csv(tmp_path / "cancer.csv")
    data = read_table(tmp_path / "cancer.csv", "diagnosis", None)
    part = data.parts["train"]
    rows = torch.randperm(569, generator=torch.Generator().manual_seed(0))
    features = data.fit(part.inputs, rows[:400]).encode(part.inputs).numpy()
    model = LogisticRegression().fit(features[rows[:400]], part.targets[rows[:400]])
    assert data.classes == ("benign", "malignant")
    assert model.score(features[rows[400:]], part.targets[rows[400:]]) > 0.95


def test_tsv_parquet_and_other_separators_give_the_same_table(tmp_path):
    lines = "a,b,y\n1.5,x,0.5\n,z,1.5\n"
    expected = read(tmp_path, lines).parts["train"]
    frame = pl.DataFrame({"a": [1.5, None], "b": ["x", "z"], "y": [0.5, 1.5]})
    frame.write_parquet(tmp_path / "p.parquet")
    others = [
        read(tmp_path, lines.replace(",", "\t"), name="t.tsv"),
        read(tmp_path, lines.replace(",", "\t")),
        read(tmp_path, lines.replace(",", ";")),
        read(tmp_path, lines.replace(",", ";").replace(".", ",")),
        read(tmp_path, b"\xef\xbb\xbf" + lines.replace("\n", "\r\n").encode()),
        read(tmp_path, "\n" + lines.replace("\n", "\n\n")),
        read(tmp_path, lines.rstrip("\n")),
        read_table(tmp_path / "p.parquet", "y", None),
    ]
    for other in others:
        assert other.parts["train"].inputs.equals(expected.inputs)
        assert torch.equal(other.parts["train"].targets, expected.targets)
    assert list(others[-1].parts["train"].names) == ["p.parquet:1", "p.parquet:2"]
    assert list(others[5].parts["train"].names) == ["t.csv:4", "t.csv:6"]


def test_rows_are_named_by_their_line_even_after_quoted_newlines(tmp_path):
    data = read(tmp_path, 'a,y\n"two\nlines",1.5\n"a ""quote"", here",2.5\n')
    assert data.parts["train"].inputs["a"].to_list() == ["two\nlines", 'a "quote", here']
    assert list(data.parts["train"].names[:2]) == ["t.csv:2", "t.csv:4"]


def test_rows_without_a_target_are_left_out_and_said(tmp_path):
    data = read(tmp_path, "a,y\n1,cat\n2,\n3,dog\n4, NA \n5,cat\n6,dog\n")
    assert data.notes == ("2 classes: the target is text", "2 rows have no 'y' and are left out")
    assert data.parts["train"].inputs["a"].to_list() == [1, 3, 5, 6]
    assert data.parts["train"].targets.tolist() == [0, 1, 0, 1]
    assert list(data.parts["train"].names) == ["t.csv:2", "t.csv:4", "t.csv:6", "t.csv:7"]


def test_a_column_spoiled_by_a_few_texts_is_said(tmp_path):
    data = read(tmp_path, "a,y\n" + "1,0.5\n2,1.5\n" * 10 + "two,1\n")
    assert data.notes[1:] == ("column 'a' is read as text: 'two' at t.csv:22 is not a number",)


def test_the_task_and_the_classes_of_a_model_overrule(tmp_path):
    lines = "a,y\n1,0\n2,1\n3,0\n4,1\n"
    assert read(tmp_path, lines).task == "regression"
    assert read(tmp_path, lines, task="classification").classes == ("0", "1")
    data = read(tmp_path, "a,y\n1,1\n", classes=("0", "1", "2"))
    assert (data.classes, data.parts["train"].targets.tolist()) == (("0", "1", "2"), [1])


def test_rows_to_be_tested_mean_what_the_model_learned(tmp_path):
    trained = read(tmp_path, "zip,y\n" + "01,01\nA2,a\n" * 4)
    transform = trained.fit(trained.parts["train"].inputs, torch.arange(8))
    assert trained.classes == ("01", "a")
    tested = read(tmp_path, "zip,y\n01,01\n", classes=trained.classes)
    assert tested.parts["train"].targets.tolist() == [0]
    assert transform.encode(tested.parts["train"].inputs).tolist() == [[1, 0, 0, 0]]
    assert read(tmp_path, "a,y\n1,0.5\n", task="regression", classes=()).parts["train"].targets.tolist() == [0.5]


def test_a_stream_is_read_as_csv():
    frame, names = read_rows(io.BytesIO(b"a;b\n1;x\n2;z\n"))
    assert frame.to_dict(as_series=False) == {"a": ["1", "2"], "b": ["x", "z"]}
    assert list(names) == ["-:2", "-:3"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "t.csv is empty"),
        (" \n\n", "t.csv is empty"),
        ("a,y\n", "t.csv has a header but no rows"),
        ("a,y", "t.csv has a header but no rows"),
        ("a,a,y\n1,2,3\n", "t.csv has 2 columns named 'a'"),
        ("a,y\n1,2\n1,2,3\n", "t.csv:3: this row has 3 fields and the header 2"),
        ('a,y\n"1\n",2\n\n1\n', "t.csv:5: this row has 1 fields and the header 2"),
        ("a,y\nx,1\né,1\n".encode("latin-1"), "t.csv:3: the byte 0xe9 is not UTF-8 text"),
        (b"a,y\n\0,1\n", "t.csv:2: the byte 0x00 is not UTF-8 text"),
        ("a,y\n1,2\n".encode("utf-16"), "t.csv:1: the byte 0xff is not UTF-8 text"),
        ('a,y\n5" pipe,2\n6" pipe,4\n', "t.csv:2: a quote that is not around a field"),
        ('a,y\n1,2\n"x,2\n3,4\n', "t.csv:3: a quote that is not around a field"),
        (",".join(f"c{column}" for column in range(20_000)), "t.csv has 20000 columns; at most 10000"),
        ("a,y\n1,x\n2,x\n", "every example is of the one class 'x'"),
        ("a,y\n1,x\n2,z\n3,x\n", "the class 'z' has fewer than two examples"),
        ("a,y\n1,NA\n2,\n", "the target 'y' has only missing values in 2 rows"),
        ("a,y\n1,2020-01-01\n2,2020-01-02\n", "the target 'y' holds Datetime"),
        ("a,y\n1,1.5\n2,-inf\n", "t.csv:3: the target is -inf, not a finite number"),
        ("a,b,y\n1,1,1.5\n\n2,inf,2.5\n", "t.csv:4: column 'b' holds inf; give a finite number"),
        ("a,b,y\n1,1,1.5\n2,1e39,2.5\n", r"t.csv:3: column 'b' holds 1e\+39; give a finite number"),
        ("a,yes\n1,1.5\n", "unknown target column 'y'; did you mean yes?"),
    ],
)
def test_bad_tables_end_in_one_line_that_says_where(tmp_path, content, message):
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path, content)
    assert "\n" not in str(caught.value)


def test_a_missing_target_lists_the_columns(tmp_path):
    with pytest.raises(DataError, match=r"t.csv needs --target NAME, the column to be learned; its columns are a, y"):
        read(tmp_path, "a,y\n1,2\n", target=None)


def test_files_that_are_no_tables_are_named(tmp_path):
    with pytest.raises(DataError, match=r"t.txt is no table; give a .csv, .tsv, .parquet file"):
        read(tmp_path, "a,y\n1,2\n", name="t.txt")
    with pytest.raises(DataError, match=r"t.parquet cannot be read as a parquet file"):
        read(tmp_path, b"PAR1 but not for long PAR1", name="t.parquet")
    with pytest.raises(DataError, match=r"none.csv cannot be read: No such file"):
        read_table(tmp_path / "none.csv", "y", None)


cells = st.text(st.sampled_from("ab1.,;\"\n \t#é'?"), max_size=5)
grids = st.integers(2, 4).flatmap(
    lambda width: st.lists(st.lists(cells, min_size=width, max_size=width), min_size=1, max_size=8)
)


@quick
@given(rows=grids, end=st.sampled_from(["\n", "\r\n", "\n\n", "\r\n\r\n"]))
def test_every_cell_of_a_written_table_comes_back(tmp_path, rows, end):
    path = tmp_path / "t.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator=end)
        writer.writerow([f"column {place}" for place in range(len(rows[0]))])
        writer.writerows(rows)
    frame, names = read_rows(path)
    assert [[cell or "" for cell in row] for row in frame.rows()] == rows
    heights = [sum(cell.count("\n") for cell in row) + end.count("\n") for row in rows]
    assert list(names) == [f"t.csv:{1 + end.count(chr(10)) + sum(heights[:row])}" for row in range(len(rows))]


@quick
@given(st.binary(max_size=80) | st.text(st.sampled_from('a1,;y\n\r\t" NAinf.-e:20'), max_size=80).map(str.encode))
def test_any_bytes_are_a_table_or_a_clear_error(tmp_path, content):
    for name in ("t.csv", "t.tsv", "t.parquet"):
        for header in (b"", b"a,y\n"):
            with suppress(GoodfitError):
                data = read(tmp_path, header + content, name=name)
                inputs = data.parts["train"].inputs
                assert data.fit(inputs, torch.arange(2)).encode(inputs).isfinite().all()


@quick
@given(st.lists(st.tuples(cells, st.sampled_from(["1", "2.5", "3", "x", "NA"])), min_size=4, max_size=30))
def test_text_of_any_shape_is_encoded_as_at_prediction(tmp_path, rows):
    path = tmp_path / "t.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("a", "b", "y"), *((a, b, place / 8) for place, (a, b) in enumerate(rows))])
    data = read_table(path, "y", None)
    inputs = data.parts["train"].inputs
    try:
        transform = data.fit(inputs, torch.arange(0, len(rows), 2))
    except DataError:
        return  # nothing varies in these rows
    assert torch.equal(transform.encode(inputs), transform.encode(read_rows(path)[0]))
