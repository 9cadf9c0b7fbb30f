"""What a DATA argument can be, and what it is told apart by."""

from pathlib import Path

import numpy as np
import pytest
import torch
from harness import tiny_pictures
from PIL import Image

from goodfit.config import DataConfig, TransformConfig
from goodfit.data.dataset import RawData
from goodfit.data.sources import Like, is_name, match_classes, read_data
from goodfit.data.tensor_transform import TensorTransform
from goodfit.errors import ConfigError, DataError

PLAIN = TransformConfig()


def read(data: object, like: Like | None = None, **config: object) -> RawData:
    return read_data(data, DataConfig(**config), PLAIN, like=like)  # type: ignore[arg-type]


def put_pictures(folder: Path, classes: tuple[str, ...] = ("cat", "dog")) -> None:
    for place, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (8, 8), (80 * place + number, 0, 0)).save(folder / name / f"{number}.png")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "table.csv"
    path.write_text("size,kind,count\n" + "".join(f"{row}.5,{'ab'[row % 2]},{row % 3}\n" for row in range(50)))
    return path


def test_every_kind_of_data_is_read(tmp_path: Path, table: Path) -> None:
    put_pictures(tmp_path / "pictures")
    np.savez(tmp_path / "arrays.npz", X=np.arange(60.0).reshape(30, 2), y=np.arange(30) % 2 == 0)
    assert read("digits").name == "digits"
    assert read(tmp_path / "pictures").classes == ("cat", "dog")
    assert read(str(table), target="kind").classes == ("a", "b")
    assert read(tmp_path / "arrays.npz").task == "classification"
    assert read(tiny_pictures()).classes == ("0", "1", "2")
    assert read({"train": tiny_pictures(), "test": tiny_pictures(9)}).parts.keys() == {"train", "test"}


@pytest.mark.parametrize("suffix", [".CSV", ".Tsv"])
def test_a_suffix_may_be_in_capitals(tmp_path: Path, table: Path, suffix: str) -> None:
    path = tmp_path / f"other{suffix}"
    path.write_text(table.read_text().replace(",", "\t" if suffix == ".Tsv" else ","))
    assert read(path, target="kind").classes == ("a", "b")


def test_a_name_beats_a_path(tmp_path: Path) -> None:
    put_pictures(tmp_path / "digits")  # the working folder
    assert is_name("digits")
    assert not is_name("./digits")
    assert read("digits").classes == tuple("0123456789")
    assert read("./digits").classes == ("cat", "dog")
    assert read(Path("digits")).classes == ("cat", "dog")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("mnst", r"no data set and no path is called 'mnst'; did you mean mnist\?"),
        ("photos/", r"no data set and no path is called 'photos/'; give a path that exists, or a name from `goodfit datasets`"),
        ("notes.txt", r"'notes\.txt' is not a kind of data that goodfit reads; give a folder .*\(\.csv \.tsv \.parquet\)"),
    ],
)
def test_what_is_no_data_is_named(data: str, message: str) -> None:
    Path("notes.txt").write_text("text")
    with pytest.raises(DataError, match=message):
        read(data)


def test_a_task_overrules(table: Path) -> None:
    assert read(table, target="count").task == "regression"  # 3 distinct in 50 rows are more than 5%
    assert read(table, target="count", task="classification").classes == ("0", "1", "2")
    assert read((np.zeros((30, 2)), np.arange(30) % 2), task="classification").classes == ("0", "1")


def test_a_mean_that_is_set_takes_the_place_of_the_fitted(table: Path) -> None:
    overrides = TransformConfig(mean=0.25, std=[0.5, 1.0, 2.0])
    raw = read_data(tiny_pictures(), DataConfig(), overrides)
    document = raw.fit(raw.parts["train"].inputs, torch.arange(60)).to_json()
    assert (document["mean"], document["std"]) == ([0.25] * 3, [0.5, 1.0, 2.0])
    with pytest.raises(
        ConfigError, match=r"transform\.mean and transform\.std are for pictures and tensors, and table is a table"
    ):
        read_data(table, DataConfig(target="kind"), overrides)


def like(*classes: str, task: str = "classification") -> Like:
    return Like(TensorTransform((2,), (0.0, 0.0), (1.0, 1.0)), task, classes)  # type: ignore[arg-type]


def test_classes_are_matched_by_name(tmp_path: Path) -> None:
    put_pictures(tmp_path / "pictures", ("cat", "dog"))
    raw = read(tmp_path / "pictures")
    matched = match_classes(raw, like("dog", "owl", "cat"))
    assert matched.classes == ("dog", "owl", "cat")
    assert matched.parts["train"].targets.tolist() == [2, 2, 2, 0, 0, 0]
    assert matched.parts["train"].names == raw.parts["train"].names
    assert match_classes(raw, like("cat", "dog")) is raw


def test_what_a_model_cannot_be_tested_on_is_named(tmp_path: Path) -> None:
    put_pictures(tmp_path / "pictures", ("cat", "dog"))
    raw = read(tmp_path / "pictures")
    with pytest.raises(DataError, match=r"pictures has classes that the model does not know: dog; it knows cat, owl"):
        match_classes(raw, like("cat", "owl"))
    with pytest.raises(DataError, match=r"pictures is for classification, and the model was trained for regression"):
        match_classes(raw, like(task="regression"))


def test_pictures_take_the_form_that_a_model_knows(tmp_path: Path) -> None:
    from goodfit.data.image_transform import ImageTransform

    put_pictures(tmp_path / "pictures", ("dog",))
    known = Like(ImageTransform("L", 5, 6, (0.5,), (0.5,)), "classification", ("cat", "dog"))
    raw = read(tmp_path / "pictures", known)
    assert raw.parts["train"].inputs.shape == (3, 1, 5, 6)
    assert raw.parts["train"].targets.tolist() == [1, 1, 1]


def test_a_table_is_read_for_the_column_that_a_model_learned(table: Path) -> None:
    known = Like(TensorTransform((2,), (0.0, 0.0), (1.0, 1.0)), "classification", ("b", "a"), "kind")
    raw = read(table, known)
    assert raw.classes == ("b", "a")
    assert raw.parts["train"].targets[:3].tolist() == [1, 0, 1]
