"""Predicting what a command line names."""

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness import run_through, tiny_pictures
from PIL import Image

from goodfit.artefacts.predictor import Estimate, Prediction, Predictor
from goodfit.errors import ConfigError, DataError, FileError
from goodfit.prediction import BATCH_SIZE, MOST_PLOTTED, PredictionPlot, PredictionResult, predict_inputs

SETTINGS: dict[str, Any] = {
    "model.name": "mlp",
    "train.epochs": 2,
    "train.batch_size": 16,
    "train.precision": "fp32",
    "train.threads": 1,
    "train.device": "cpu",
}
INPUTS, TARGETS = tiny_pictures()


def predictor(folder: Path, data: Any, settings: dict[str, Any] | None = None) -> Predictor:
    return run_through(data, folder / "run", SETTINGS | (settings or {})).predictor()


@pytest.fixture(scope="module")
def of_pictures(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return predictor(tmp_path_factory.mktemp("pictures"), {"train": (INPUTS, TARGETS)})


@pytest.fixture(scope="module")
def of_rows(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    folder = tmp_path_factory.mktemp("rows")
    rows = "".join(f"{index % 7},{'red' if index % 2 else 'blue'},{index % 7 + index % 2}.5\n" for index in range(40))
    (folder / "train.csv").write_text(f"size,colour,price\n{rows}")
    settings = {"data.name": str(folder / "train.csv"), "data.target": "price", "data.task": "regression"}
    return predictor(folder, None, settings)


def write_pictures(folder: str, count: int) -> list[str]:
    Path(folder).mkdir()
    paths = [f"{folder}/{index:03}.png" for index in range(count)]
    for index, path in enumerate(paths):
        Image.fromarray(INPUTS[index % 60].transpose(1, 2, 0)).save(path)
    return paths


def labels(results: list[PredictionResult]) -> list[str]:
    assert all(isinstance(result.prediction, Prediction) for result in results)
    return [result.prediction.label for result in results if isinstance(result.prediction, Prediction)]


def test_pictures_are_predicted_in_order_however_they_are_named(of_pictures: Predictor) -> None:
    paths = write_pictures("some", BATCH_SIZE + 3)
    expected = [prediction.label for prediction in of_pictures(INPUTS[np.arange(len(paths)) % 60])]
    assert len(set(expected)) > 1
    for inputs in (paths, ["some"], ["some/*.png"], ["some/0[0-5]*.png", *paths[60:]]):
        results = list(predict_inputs(of_pictures, inputs))
        assert [result.input for result in results] == paths
        assert labels(results) == expected


def test_so_many_classes_are_named_most_probable_first(of_pictures: Predictor) -> None:
    [path] = write_pictures("one", 1)
    [result] = predict_inputs(of_pictures, [path], top=2)
    assert isinstance(result.prediction, Prediction)
    probabilities = [item.probability for item in result.prediction.top]
    assert probabilities == sorted(probabilities, reverse=True)
    assert len(probabilities) == 2
    assert result.to_json() == {"input": path, **result.prediction.to_json()}


def test_standard_input_is_a_picture(of_pictures: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    [path] = write_pictures("one", 1)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(Path(path).read_bytes())))
    [piped], [named] = (list(predict_inputs(of_pictures, [name])) for name in ("-", path))
    assert (piped.input, piped.prediction) == ("-", named.prediction)


def test_a_bad_one_among_many_takes_no_other_along(of_pictures: Predictor) -> None:
    paths = write_pictures("some", 5)
    expected = list(predict_inputs(of_pictures, ["some"]))
    Path(paths[2]).write_bytes(b"no picture")
    results = list(predict_inputs(of_pictures, [*paths, "absent.png"]))
    assert [result.input for result in results] == [*paths, "absent.png"]
    assert [bool(result.error) for result in results] == [False, False, True, False, False, True]
    assert "some/002.png is damaged" in str(results[2].error)
    assert results[2].to_json() == {"input": paths[2], "error": results[2].error}
    assert labels(results[:2] + results[3:5]) == labels(expected[:2] + expected[3:])


def test_the_only_input_must_be_good(of_pictures: Predictor) -> None:
    Path("bad.png").write_bytes(b"no picture")
    Path("empty").mkdir()
    for name, said in (
        ("bad.png", "bad.png is damaged"),
        ("absent.png", "absent.png"),
        ("empty", "the folder 'empty' holds no pictures"),
        ("*.jpg", r"no file matches '\*\.jpg'"),
    ):
        with pytest.raises(DataError, match=said):
            list(predict_inputs(of_pictures, [name]))


def test_rows_are_named_by_their_lines(of_rows: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    table = "size,colour\n3,red\n4,blue\n,green\n"
    Path("new.csv").write_text(table)
    results = list(predict_inputs(of_rows, ["new.csv"]))
    assert [result.input for result in results] == ["new.csv:2", "new.csv:3", "new.csv:4"]
    values = [result.prediction.value for result in results if isinstance(result.prediction, Estimate)]
    assert values == pytest.approx([estimate.value for estimate in of_rows("new.csv")])
    assert len(set(values)) == 3
    assert results[0].to_json() == {"input": "new.csv:2", "value": values[0]}
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(table.encode())))
    assert [result.prediction for result in predict_inputs(of_rows, ["-"])] == [result.prediction for result in results]


def test_a_row_that_does_not_fit_takes_no_other_along(of_rows: Predictor) -> None:
    Path("new.csv").write_text("size,colour\n3,red\n1e300,blue\n4,blue\n")
    results = list(predict_inputs(of_rows, ["new.csv"]))
    assert [(result.input, bool(result.error)) for result in results] == [
        ("new.csv:2", False),
        ("new.csv:3", True),
        ("new.csv:4", False),
    ]
    assert "size" in str(results[1].error)


def test_a_table_that_is_not_there_is_refused(of_rows: Predictor) -> None:
    with pytest.raises(DataError, match=r"absent\.csv"):
        list(predict_inputs(of_rows, ["absent.csv"]))


def test_a_plot_takes_the_first_pictures_and_counts_the_rest(of_pictures: Predictor) -> None:
    paths = write_pictures("some", MOST_PLOTTED + 3)
    Path(paths[1]).write_bytes(b"no picture")
    plot = PredictionPlot(Path("it.png"), of_pictures, ["some"])
    for result in predict_inputs(of_pictures, ["some"]):
        plot.add(result)
    assert plot.write() == f"wrote it.png: the first {MOST_PLOTTED} pictures, 2 left out"
    assert Path("it.png").read_bytes().startswith(b"\x89PNG")


def test_standard_input_is_plotted_too(of_pictures: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    [path] = write_pictures("one", 1)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(Path(path).read_bytes())))
    plot = PredictionPlot(Path("it.PDF"), of_pictures, ["-"])
    for result in predict_inputs(of_pictures, ["-"]):
        plot.add(result)
    assert plot.write() == "wrote it.PDF: 1 picture"
    assert Path("it.PDF").read_bytes().startswith(b"%PDF")


def test_a_plot_that_cannot_be_is_refused_before_anything_is_predicted(of_pictures: Predictor, of_rows: Predictor) -> None:
    [path] = write_pictures("one", 1)
    Path("folder.png").mkdir()
    cases: list[tuple[Predictor, str, type[Exception], str]] = [
        (of_pictures, "it.jpeg", ConfigError, r"choose from: \.png, \.pdf, \.svg"),
        (of_pictures, "absent/it.png", FileError, "make 'absent' first"),
        (of_pictures, "folder.png", FileError, "is a folder"),
        (of_pictures, f"./{path}", FileError, "is one of the pictures"),
        (of_rows, "it.png", DataError, "--plot shows pictures, and the model takes tables"),
    ]
    for predictor, name, kind, said in cases:
        with pytest.raises(kind, match=said):
            PredictionPlot(Path(name), predictor, [path])
    assert not Path("it.png").exists()


def test_a_plot_of_no_picture_is_not_written(of_pictures: Predictor) -> None:
    plot = PredictionPlot(Path("it.png"), of_pictures, ["a.png", "b.png"])
    for result in predict_inputs(of_pictures, ["a.png", "b.png"]):
        plot.add(result)
    assert plot.write() == "it.png was not written: no picture was predicted"
    assert not Path("it.png").exists()
