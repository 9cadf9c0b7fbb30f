"""The predictor: every kind of input that a model takes, one or many, and the same answers as evaluation."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from harness import run_through, tiny_pictures
from PIL import Image

import goodfit
from goodfit.artefacts.predictor import Estimate, Prediction, Predictor
from goodfit.artefacts.run import Run
from goodfit.errors import ConfigError, DataError, FileError

SETTINGS: dict[str, Any] = {
    "model.name": "mlp",
    "train.epochs": 2,
    "train.batch_size": 8,
    "train.threads": 1,
    "train.precision": "fp32",
}
KINDS = ("red", "green")


def put_pictures(folder: Path) -> None:
    """Noisy pictures of two colours, of several sizes, with test pictures of their own."""
    random = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 10)):
        for row in range(2 * count):
            pixels = random.integers(0, 200, (12 + row % 3, 12, 3)).astype(np.uint8)
            pixels[..., row % 2] += 50
            path = folder / split / KINDS[row % 2] / f"{row}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)


def put_table(path: Path) -> None:
    rows = [f"{row % 7},{'xyz'[row % 3]},2024-01-{row % 28 + 1:02},{row % 7 * 2.5 + row % 3}" for row in range(80)]
    path.write_text("\n".join(["size,kind,day,price", *rows]) + "\n")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def pictures(home: Path) -> Run:
    put_pictures(home / "pictures")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GOODFIT_CACHE", str(home / "cache"))
        asked = {"data.name": str(home / "pictures"), "data.processes": 1, "model.dropout": 0.3}
        return run_through(None, home / "picture-run", SETTINGS | asked)


@pytest.fixture(scope="module")
def table(home: Path) -> Run:
    put_table(home / "prices.csv")
    return run_through(None, home / "table-run", SETTINGS | {"data.name": str(home / "prices.csv"), "data.target": "price"})


@pytest.fixture(scope="module")
def tensors(home: Path) -> Run:
    random = np.random.default_rng(0)
    inputs = random.normal(size=(60, 2, 3)).astype(np.float32)
    return run_through({"train": (inputs, (inputs[:, 0, 0] > 0).astype(np.int64))}, home / "tensor-run", SETTINGS)


def test_a_picture_is_the_same_in_every_form(home: Path, pictures: Run) -> None:
    predictor = pictures.predictor()
    path = home / "pictures" / "test" / "red" / "0.png"
    with Image.open(path) as opened:
        image = opened.copy()
    array = np.asarray(image)
    forms = {
        "a path": path,
        "a string": str(path),
        "bytes": path.read_bytes(),
        "an open file": BytesIO(path.read_bytes()),
        "a PIL image": image,
        "an array": array,
        "an array, channels first": array.transpose(2, 0, 1),
        "an array of fractions": array / 255,
        "a tensor": torch.from_numpy(array.copy()).permute(2, 0, 1),
        "a tensor of fractions": torch.from_numpy(array.copy()).permute(2, 0, 1) / 255,
    }
    expected = predictor(path)
    assert isinstance(expected, Prediction)
    assert expected.label in KINDS
    together = predictor([path, path])  # a batch of two may be summed in another order than one
    assert [item.label for item in together] == [expected.label] * 2
    assert together[0].probability == together[1].probability == pytest.approx(expected.probability, abs=1e-6)
    for name, form in forms.items():
        if name != "an open file":
            assert predictor([form, form]) == together, name
        assert predictor(form) == expected, name
    for batch in (np.stack([array, array]), torch.from_numpy(np.stack([array, array])).permute(0, 3, 1, 2)):
        assert predictor(batch) == together
        assert predictor(batch[:1]) == [expected]


def test_a_prediction_says_the_most_probable_classes(home: Path, pictures: Run) -> None:
    predictor = pictures.predictor()
    assert predictor.classes == ("green", "red")
    found = predictor(home / "pictures" / "test" / "red" / "0.png")
    assert [item.label for item in found.top] == sorted(predictor.classes, key=lambda label: label != found.label)
    assert (found.label, found.probability) == (found.top[0].label, found.top[0].probability)
    assert found.top[0].probability >= found.top[1].probability
    assert sum(item.probability for item in found.top) == pytest.approx(1)
    assert predictor(home / "pictures" / "test" / "red" / "0.png", top=1).top == found.top[:1]
    assert found.to_json() == {
        "label": found.label,
        "probability": found.probability,
        "top": [{"label": item.label, "probability": item.probability} for item in found.top],
    }
    with pytest.raises(ConfigError, match=r"top = 0 is no number of classes; ask for at least 1"):
        predictor(home / "pictures" / "test" / "red" / "0.png", top=0)


def test_the_predictor_is_right_as_often_as_evaluation_says(home: Path, pictures: Run) -> None:
    paths = sorted((home / "pictures" / "test").glob("*/*.png"))
    predictions = pictures.predictor()(paths)
    right = sum(found.label == path.parent.name for found, path in zip(predictions, paths, strict=True))
    measured = goodfit.evaluate(pictures)
    assert measured.n == len(paths) == 20
    assert right / len(paths) == measured.accuracy == pictures.test.accuracy
    losses = [
        -np.log(next(item.probability for item in found.top if item.label == path.parent.name))
        for found, path in zip(predictions, paths, strict=True)
    ]
    assert np.mean(losses) == pytest.approx(measured.loss, rel=1e-5)


def test_many_are_as_each_alone(home: Path, pictures: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = pictures.predictor()
    paths = sorted((home / "pictures" / "train").glob("*/*.png"))
    monkeypatch.setattr("goodfit.artefacts.predictor.BATCH_SIZE", 5)
    for found, path in zip(predictor(paths), paths, strict=True):
        alone = predictor(path)
        assert found.label == alone.label
        assert found.probability == pytest.approx(alone.probability, abs=1e-6)
    assert predictor([]) == []


ROW = {"size": 3, "kind": "y", "day": "2024-01-05"}
FRAME = pl.DataFrame([ROW, ROW | {"kind": "never seen"}])


class FrameLike:
    """A data frame of another library: columns, a selection by a list of names, and pandas' `to_dict`."""

    shape, ndim = (2, 3), 2

    def __init__(self, frame: pl.DataFrame) -> None:
        self.frame = frame
        self.columns = frame.columns

    def __len__(self) -> int:
        return len(self.frame)

    def __getitem__(self, names: list[str]) -> "FrameLike":
        return FrameLike(self.frame.select(names))

    def to_dict(self, orient: str) -> dict[str, list[Any]]:
        assert orient == "list"
        return self.frame.to_dict(as_series=False)


def write_csv(frame: pl.DataFrame) -> Path:
    frame.write_csv("rows.csv")
    return Path("rows.csv")


def write_parquet(frame: pl.DataFrame) -> str:
    frame.write_parquet("rows.parquet")
    return "rows.parquet"


@pytest.mark.parametrize("form", [pl.DataFrame.to_dicts, pl.DataFrame.clone, FrameLike, write_csv, write_parquet])
def test_rows_are_the_same_in_every_form(table: Run, form: Callable[[pl.DataFrame], Any]) -> None:
    predictor = table.predictor()
    one = predictor(ROW)
    assert isinstance(one, Estimate)
    assert one.to_json() == {"value": one.value}
    found = predictor(form(FRAME))
    assert [item.value for item in found] == pytest.approx([one.value, predictor(ROW | {"kind": "other"}).value], rel=1e-5)
    assert len(predictor(form(FRAME[:1]))) == 1  # a table of one row is still a table


def test_a_regression_is_predicted_in_the_target_s_unit(home: Path, table: Run) -> None:
    rows = pl.read_csv(home / "prices.csv")
    values = np.array([item.value for item in table.predictor()(rows.drop("price"))])
    rows[1:].write_csv("others.csv")
    measured = goodfit.evaluate(table, "others.csv")
    assert (measured.split, measured.n) == ("all", 79)
    assert np.abs(values - rows["price"].to_numpy())[1:].mean() == pytest.approx(measured.mae)
    assert values.mean() == pytest.approx(rows["price"].mean(), rel=0.2)


def test_a_missing_column_and_a_bad_value_are_named(table: Run) -> None:
    predictor = table.predictor()
    with pytest.raises(DataError, match=r"column 'kind' is not in the data, which have size; add it"):
        predictor({"size": 3})
    with pytest.raises(DataError, match=r"column 'size', row 2: 'wide' is not a number"):
        predictor([ROW, ROW | {"size": "wide"}])
    with pytest.raises(DataError, match=r"row 2 is of type int"):
        predictor([ROW, 3])
    with pytest.raises(DataError, match=r"none\.csv cannot be read: No such file or directory"):
        predictor("none.csv")


def test_a_bad_picture_among_many_is_named(home: Path, pictures: Run) -> None:
    good = home / "pictures" / "test" / "red" / "0.png"
    Path("bad.png").write_bytes(b"no picture")
    predictor = pictures.predictor()
    with pytest.raises(DataError, match=r"^bad\.png is damaged, or no picture in a known format"):
        predictor([good, "bad.png", good])
    with pytest.raises(DataError, match=r"^missing\.png cannot be read: No such file or directory"):
        predictor("missing.png")
    Path("rows.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"^rows\.csv is damaged, or no picture"):
        predictor("rows.csv")
    with pytest.raises(DataError, match=r"has shape \(2, 2, 7\)"):
        predictor(np.zeros((2, 2, 7)))


def test_a_tensor_is_the_same_in_every_form(tensors: Run) -> None:
    predictor = tensors.predictor()
    array = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)
    expected = predictor(array)
    assert isinstance(expected, Prediction)
    for one in (torch.from_numpy(array), array.tolist(), array.astype(np.float64)):
        assert predictor(one) == expected
    for many in (array[None], [array, array], [array.tolist()], torch.from_numpy(array)[None], [torch.from_numpy(array)]):
        assert predictor(many)[0] == expected
        assert len(predictor(many)) == len(many)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros(3), r"the input has shape \(3,\); this model takes \(N, 2, 3\)"),
        (np.zeros((4, 2, 5)), r"the input has shape \(4, 2, 5\)"),
        ([[[0, 0, 0], [0, 0, np.nan]]], r"the input has nan in row 0, index \(1, 2\)"),
        ([[1, 2], [3]], r"the input is not one array of numbers"),
        ("file.png", "file.png.: this model takes numbers, not files; prepare it as for its training, and give the array"),
        ({"a": 1}, "the input is {'a': 1}; an array of examples is needed"),
    ],
)
def test_what_is_no_tensor_of_the_model_s_shape_is_said(tensors: Run, value: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        tensors.predictor()(value)


def test_one_output_gives_both_classes(tmp_path: Path) -> None:
    inputs, targets = tiny_pictures(classes=2)
    run = run_through({"train": (inputs, targets)}, tmp_path / "run", SETTINGS | {"model.outputs": "one-logit"})
    found = run.predictor()(inputs)
    assert {item.label for item in found} == {"0", "1"}
    assert all(sum(each.probability for each in item.top) == pytest.approx(1) for item in found)
    right = sum(item.label == str(target) for item, target in zip(found, targets, strict=True))
    assert right / len(targets) > 0.8


def test_a_predictor_is_loaded_from_a_run_or_its_model_file(pictures: Run, tmp_path: Path) -> None:
    picture = Image.new("RGB", (12, 12), (200, 10, 10))
    expected = pictures.predictor()(picture)
    for path in (pictures.path, str(pictures.path), pictures.model, str(pictures.model)):
        assert goodfit.load(path)(picture) == expected
        assert Predictor.load(path).path == pictures.model
    with pytest.raises(FileError, match=r"there is no model file .*best\.safetensors'"):
        Predictor.load(tmp_path)
