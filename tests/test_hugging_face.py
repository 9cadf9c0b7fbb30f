"""Data sets of Hugging Face's own library, as it gives them."""

import io
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

import goodfit
from goodfit.data.dataset import RawData
from goodfit.data.examples import Examples
from goodfit.data.hugging_face import recognize_hugging_face
from goodfit.data.own import read_own
from goodfit.errors import DataError, ModelError

COUNT = 60
LABELS = [index % 3 for index in range(COUNT)]
NAMES = ["cat", "dog", "eel"]
NUMBERS = np.random.default_rng(0).normal(size=(COUNT, 4)).astype(np.float32)


def numbers() -> Any:
    kinds = datasets.Features(
        {"x": datasets.Sequence(datasets.Value("float32"), length=4), "label": datasets.ClassLabel(names=NAMES)}
    )
    return datasets.Dataset.from_dict({"x": NUMBERS.tolist(), "label": LABELS}, features=kinds)


def bright(index: int, side: int = 16) -> Image.Image:
    pixels = np.random.default_rng(index).integers(0, 60, (side, side, 3)) + 90 * (index % 3)
    return Image.fromarray(pixels.astype(np.uint8))


def pictures(sides: tuple[int, ...] = (16,), mode: str = "RGB") -> Any:
    kinds = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)})
    drawn = [bright(index, sides[index % len(sides)]).convert(mode) for index in range(COUNT)]
    return datasets.Dataset.from_dict({"image": drawn, "label": LABELS}, features=kinds)


def stored(raw: RawData, split: Any = "train") -> torch.Tensor:
    inputs = raw.parts[split].inputs
    assert isinstance(inputs, torch.Tensor)
    return inputs


@pytest.mark.parametrize("form", [None, "torch", "numpy"])
def test_numbers_are_read_as_they_are(form: str | None) -> None:
    raw = read_own(numbers().with_format(form))
    assert (raw.task, raw.classes) == ("classification", tuple(NAMES))
    assert torch.equal(stored(raw), torch.from_numpy(NUMBERS))
    assert raw.parts["train"].targets.tolist() == LABELS
    transform = raw.fit(stored(raw), torch.arange(COUNT))
    assert torch.equal(transform.normalize(stored(raw)), stored(raw))


def test_some_rows_of_it_are_those_rows() -> None:
    raw = read_own(numbers().select(range(10, 40)))
    assert torch.equal(stored(raw), torch.from_numpy(NUMBERS[10:40]))


def test_pictures_become_what_those_of_a_folder_are() -> None:
    raw = read_own(pictures())
    assert stored(raw).shape == (COUNT, 3, 16, 16)
    assert stored(raw).dtype == torch.uint8
    assert np.array_equal(stored(raw)[7].permute(1, 2, 0).numpy(), np.asarray(bright(7)))
    assert stored(read_own(pictures(sides=(40, 50)))).shape == (COUNT, 3, 32, 32)


@pytest.mark.parametrize("form", ["torch", "numpy"])
@pytest.mark.parametrize(("mode", "shape"), [("RGB", (3, 16, 16)), ("L", (1, 16, 16))])
def test_pictures_are_the_same_in_whatever_form_they_are_handed_out(form: str, mode: str, shape: tuple[int, ...]) -> None:
    raw = read_own(pictures(mode=mode).with_format(form))
    assert stored(raw).shape == (COUNT, *shape)
    assert torch.equal(stored(raw), stored(read_own(pictures(mode=mode))))
    assert raw.notes == (
        f"the pictures are scaled and centred by goodfit, and are not the numbers that the format {form!r} gives",
    )
    assert stored(read_own(pictures(sides=(40, 50)).with_format(form))).shape == (COUNT, 3, 32, 32)


@pytest.mark.parametrize("form", [None, "torch", "numpy"])
@pytest.mark.parametrize("order", ["HWC", "CHW", "HW"])
def test_bytes_in_the_shape_of_a_picture_are_one(form: str | None, order: str) -> None:
    pixels = np.stack([np.asarray(bright(index)) for index in range(COUNT)])  # (N, H, W, C)
    wanted = pixels.transpose(0, 3, 1, 2)[:, : 1 if order == "HW" else 3]
    given = {"HWC": pixels, "CHW": wanted, "HW": wanted[:, 0]}[order]
    inner: Any = datasets.Array2D if order == "HW" else datasets.Array3D
    kinds = datasets.Features({"pixels": inner(given.shape[1:], "uint8"), "label": datasets.ClassLabel(names=NAMES)})
    raw = read_own(datasets.Dataset.from_dict({"pixels": given, "label": LABELS}, features=kinds).with_format(form))
    assert np.array_equal(stored(raw).numpy(), wanted)
    assert raw.fit(stored(raw), torch.arange(COUNT)).input_shape == wanted.shape[1:]


def test_a_model_is_trained_on_pictures_as_tensors(tmp_path: Path) -> None:
    parts = pictures().with_format("torch").train_test_split(0.3, seed=0)
    run = goodfit.train(parts, model="convnet", epochs=6, out=tmp_path / "run", batch_size=8, settings={"train.threads": 1})
    assert run.test is not None
    assert run.test.accuracy > 0.8  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"x": NUMBERS.astype(int)}, r"x: int64 \(4,\)"),
        ({"x": NUMBERS, "z": NUMBERS}, r"x: float32 \(4,\), z: float32 \(4,\)"),
    ],
)
def test_what_only_a_model_of_one_s_own_takes_is_named(columns: Any, said: str) -> None:
    data = datasets.Dataset.from_dict(columns | {"label": LABELS})
    with pytest.raises(
        ModelError, match=rf"^mlp takes one tensor of float32 numbers .* gives {said}; give such, or a model of"
    ):
        goodfit.trainer(data, model="mlp")


def test_a_model_is_trained_on_pictures_and_predicts_one(tmp_path: Path) -> None:
    parts = pictures().train_test_split(0.3, seed=0)
    run = goodfit.train(parts, epochs=6, out=tmp_path / "run", batch_size=8, settings={"train.threads": 1})
    assert run.test is not None
    assert run.test.accuracy > 0.8  # type: ignore[union-attr]
    assert goodfit.load(run.model)(bright(1)).label == "dog"


def test_the_splits_have_the_names_of_the_library() -> None:
    whole = numbers()
    parts = datasets.DatasetDict(
        train=whole.select(range(30)), validation=whole.select(range(30, 45)), test=whole.select(range(45, 60))
    )
    raw = read_own(parts)
    assert {name: len(part.targets) for name, part in raw.parts.items()} == {"train": 30, "val": 15, "test": 15}


def test_what_has_code_of_its_own_is_read_through_it() -> None:
    raw = read_own(numbers().with_transform(lambda batch: {"x": torch.tensor(batch["x"]) * 2, "label": batch["label"]}))
    examples = raw.parts["train"].inputs
    assert isinstance(examples, Examples)
    ((inputs, targets),) = examples.stream([[3, 4]])
    assert torch.equal(inputs["x"], torch.from_numpy(NUMBERS[3:5]) * 2)  # type: ignore[index,call-overload]
    assert targets.tolist() == [0, 1]


def test_several_columns_are_inputs_by_name() -> None:
    columns = {"wide": NUMBERS[:, 0].tolist(), "tall": NUMBERS[:, 1].tolist(), "label": LABELS}
    examples = read_own(datasets.Dataset.from_dict(columns)).parts["train"].inputs
    assert isinstance(examples, Examples)
    assert set(examples.first) == {"wide", "tall"}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("broken", "reason"),
    [({"bytes": b"no picture", "path": None}, "example 0 cannot be read as a picture"), (None, "example 0 has no picture")],
)
def test_a_picture_that_is_none_is_named(broken: Any, reason: str) -> None:
    png = io.BytesIO()
    bright(0).save(png, "png")
    whole = {"bytes": png.getvalue(), "path": None}
    kinds = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    data = datasets.Dataset.from_dict({"image": [broken, whole], "label": [0, 1]}, features=kinds)
    with pytest.raises(DataError, match=reason):
        read_own(data)


def test_columns_of_text_are_left_to_be_refused() -> None:
    text = datasets.Dataset.from_dict({"x": ["a", "b"], "label": [0, 1]})
    assert recognize_hugging_face(text) is None
    with pytest.raises(DataError, match=r"gives batches of \{'x': a list of str, 'label': int64 \(2,\)\}"):
        read_own(text)
