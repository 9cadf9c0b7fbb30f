import io
import struct
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from goodfit.data.arrays import read_arrays, read_npz
from goodfit.data.image_transform import ImageTransform
from goodfit.data.tensor_transform import TensorTransform
from goodfit.errors import DataError

rng = np.random.default_rng(0)
LABELS = np.arange(60) % 3


def numbers(*shape: int) -> np.ndarray:
    return rng.normal(size=shape)


def pixels(*shape: int) -> np.ndarray:
    return rng.integers(0, 256, shape, dtype=np.uint8)


def train_inputs(x, y=None) -> torch.Tensor:
    return read_arrays((x, np.arange(len(x)) % 2 == 0 if y is None else y)).parts["train"].inputs


@pytest.mark.parametrize("form", [np.asarray, torch.from_numpy, np.ndarray.tolist, np.asfortranarray])
def test_numbers_become_float32_in_any_form(form):
    x = numbers(60, 4)
    raw = read_arrays((form(x), form(LABELS)))
    part = raw.parts["train"]
    assert torch.equal(part.inputs, torch.from_numpy(x).float())
    assert torch.equal(part.targets, torch.from_numpy(LABELS))
    assert (raw.name, raw.task, raw.classes) == ("memory", "classification", ("0", "1", "2"))
    assert raw.notes == ("3 classes: the target is 3 distinct whole numbers",)
    assert raw.fit(part.inputs, torch.arange(60)).input_shape == (4,)


@given(
    arrays.arrays(
        st.sampled_from(["u1", "i2", "i8", "f2", "f4", "f8", "?", ">f4"]), arrays.array_shapes(min_dims=2, min_side=2)
    )
)
def test_whatever_is_read_keeps_its_finite_numbers(x):
    y = np.arange(len(x)) / 7
    with np.errstate(over="ignore"):
        expected = x.astype("f4")
    if not np.isfinite(expected).all():
        with pytest.raises(DataError, match=r"memory: train X has \S+ in row \d+") as error:
            train_inputs(x, y)
        assert "\n" not in str(error.value)
        return
    inputs = train_inputs(x, y)
    assert len(inputs) == len(x)
    assert sorted(inputs.flatten().tolist()) == sorted(expected.flatten().tolist())


@pytest.mark.parametrize(
    ("shape", "stored"),
    [
        ((6, 9, 8), (6, 1, 9, 8)),
        ((6, 1, 9, 8), (6, 1, 9, 8)),
        ((6, 3, 9, 8), (6, 3, 9, 8)),
        ((6, 9, 8, 3), (6, 3, 9, 8)),
        ((6, 9, 8, 1), (6, 1, 9, 8)),
        ((6, 3, 9, 3), (6, 3, 9, 3)),
    ],
)
def test_bytes_of_a_pictures_shape_are_pictures(shape, stored):
    x = pixels(*shape)
    raw = read_arrays((x, [0.5, 1, 2, 3, 4, 5]))
    inputs = raw.parts["train"].inputs
    assert inputs.dtype == torch.uint8
    assert tuple(inputs.shape) == stored
    assert isinstance(raw.fit(inputs, torch.arange(6)), ImageTransform)
    expected = x.transpose(0, 3, 1, 2) if shape != stored and len(shape) == 4 else x.reshape(stored)
    assert np.array_equal(inputs.numpy(), expected)
    assert inputs.is_contiguous()


@pytest.mark.parametrize(
    "x", [pixels(6, 4), pixels(6, 4, 9, 8), numbers(6, 3, 9, 8), numbers(6, 2, 2, 2, 2), np.ones((6, 2), bool)]
)
def test_other_numbers_are_tensors(x):
    raw = read_arrays((x, [0.5, 1, 2, 3, 4, 5]))
    inputs = raw.parts["train"].inputs
    assert inputs.dtype == torch.float32
    assert inputs.shape == x.shape
    assert isinstance(raw.fit(inputs, torch.arange(6)), TensorTransform)


@pytest.mark.parametrize(
    ("y", "task", "classes", "targets"),
    [
        (["b", "a", "a", "b"], None, ("a", "b"), [1, 0, 0, 1]),
        ([True, False, True, False], None, ("false", "true"), [1, 0, 1, 0]),
        ([0.5, 1.0, 1.5, 1.5], None, (), [0.5, 1.0, 1.5, 1.5]),
        ([[7], [5], [5], [7]], "classification", ("5", "7"), [1, 0, 0, 1]),
        ([7, 5, 5, 7], None, (), [7.0, 5.0, 5.0, 7.0]),
    ],
)
def test_the_task_follows_the_targets(y, task, classes, targets):
    raw = read_arrays((numbers(4, 2), y), task)
    assert raw.task == ("classification" if classes else "regression")
    assert raw.classes == classes
    assert raw.parts["train"].targets.tolist() == targets
    assert raw.parts["train"].targets.dtype == (torch.int64 if classes else torch.float32)


def test_further_parts_follow_the_classes_of_the_training_part():
    data = {"test": (numbers(2, 2), ["c", "b"]), "train": (numbers(6, 2), ["c", "a", "b", "a", "b", "c"])}
    raw = read_arrays(data)
    assert list(raw.parts) == ["train", "test"]
    assert raw.parts["test"].targets.tolist() == [2, 1]
    data["test"] = (numbers(2, 2), ["b", "d"])
    with pytest.raises(
        DataError, match="memory: test y has the class 'd', which is none of those that are trained on: a, b, c"
    ):
        read_arrays(data)


def test_a_further_part_of_a_regression_may_be_a_single_number():
    raw = read_arrays({"train": (numbers(3, 2), [0.5, 1.5, 2.5]), "test": (numbers(1, 2), torch.tensor([[4]]))})
    assert raw.parts["test"].targets.tolist() == [4.0]


def test_the_classes_of_a_model_order_the_targets():
    raw = read_arrays((numbers(2, 2), ["cat", "cat"]), "classification", ("dog", "cat"))
    assert raw.classes == ("dog", "cat")
    assert raw.parts["train"].targets.tolist() == [1, 1]
    assert read_arrays((numbers(1, 2), [3]), "regression", ()).parts["train"].targets.tolist() == [3.0]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (numbers(4, 2), "train is a ndarray; give a pair"),
        ((numbers(4, 2),), "train is a tuple; give a pair"),
        ({"X": numbers(4, 2), "y": [1, 2, 1, 2]}, r"has the parts \['X', 'y'\]; give a pair"),
        ({}, "give a pair"),
        ({"test": (numbers(2, 2), [1.5, 2])}, "has test but no training examples"),
        ((numbers(4, 2), [1.5, 2, 3]), "train has 4 examples and 3 targets"),
        ((numbers(4), [1.5, 2, 3, 4]), r"train X has shape \(4,\); give \(N, features\)"),
        ((numbers(0, 2), [1.5, 2]), r"train X has shape \(0, 2\)"),
        (([[1.0], [2, 3]], [1.5, 2]), "train X is not one array of numbers"),
        (([["a"], ["b"]], [1.5, 2]), "train X holds <U1 values"),
        ((np.array([[1], [None]]), [1.5, 2]), "train X holds object values"),
        (([[1, 2], [3, float("nan")]], [1.5, 2]), "train X has nan in row 1, column 1"),
        ((numbers(2, 2), [1.5, float("inf")]), "train y, row 1: the target is inf"),
        ((numbers(2, 2), [[1, 2], [3, 4]]), r"the targets have the shape \(2, 2\)"),
        (
            {"train": (numbers(2, 2), [1.5, 2]), "test": (numbers(2, 3), [1, 2])},
            r"train float32 \(2, 2\), test float32 \(2, 3\)",
        ),
        ({"train": (numbers(2, 2, 2), [1.5, 2]), "test": (pixels(2, 2, 2), [1, 2])}, "parts of different kinds"),
        ({"train": (numbers(2, 1, 2, 2), [1.5, 2]), "test": (pixels(2, 1, 2, 2), [1, 2])}, "train float32 .*, test uint8"),
        ({"train": (numbers(2, 2), [1.5, 2]), "val": (numbers(2, 2), [[1, 2], [3, 4]])}, r"val y has shape \(2, 2\)"),
        ({"train": (numbers(2, 2), [1.5, 2]), "val": (numbers(2, 2), [1, float("nan")])}, "val y has nan in row 1"),
        ({"train": (numbers(2, 2), [1.5, 2]), "val": (numbers(2, 2), ["a", "b"])}, "val y holds <U1 values"),
    ],
)
def test_what_is_not_a_pair_is_refused(data, message):
    with pytest.raises(DataError, match=message) as error:
        read_arrays(data)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize(
    "names",
    [
        ("X", "y", None, None),
        ("x_train", "y_train", "x_test", "y_test"),
        ("images", "labels", None, None),
        ("train_images", "train_labels", "test_images", "test_labels"),
    ],
)
def test_npz_layouts(tmp_path, save, names):
    x = pixels(60, 5, 4, 3)
    values = (x, LABELS, x[:9], LABELS[:9])
    save(
        tmp_path / "f.npz",
        **{name: value for name, value in zip(names, values, strict=True) if name},
        more=np.array(["?"], object),
    )
    raw = read_npz(tmp_path / "f.npz")
    assert raw.name == "f.npz"
    assert list(raw.parts) == (["train", "test"] if names[2] else ["train"])
    for part, length in zip(raw.parts.values(), (60, 9), strict=False):
        assert np.array_equal(part.inputs.numpy(), x[:length].transpose(0, 3, 1, 2))
        assert part.targets.tolist() == LABELS[:length].tolist()


def test_npz_target_and_classes(tmp_path):
    path = tmp_path / "f.npz"
    np.savez(path, X=numbers(60, 2), y=LABELS, age=np.linspace(0, 1, 60), classes=np.array(["zoo", "ant", "cat"]))
    raw = read_npz(path)
    assert raw.classes == ("zoo", "ant", "cat")
    assert raw.parts["train"].targets.tolist() == LABELS.tolist()
    assert read_npz(path, "regression", target="age").parts["train"].targets[-1] == 1
    with pytest.raises(DataError, match="train y does not hold whole numbers from 0 to 2"):
        read_npz(path, target="age")
    with pytest.raises(DataError, match="'X' without its counterpart"):
        read_npz(path, target="height")


@pytest.mark.parametrize(
    ("y", "classes", "message"),
    [
        (LABELS, ["a", "b"], "train y does not hold whole numbers from 0 to 1"),
        (LABELS - 1, ["a", "b", "c"], "train y does not hold whole numbers from 0 to 2"),
        (LABELS[:0], ["a", "b", "c"], "train y does not hold whole numbers from 0 to 2"),
        (LABELS / 2, ["a", "b", "c"], "train y does not hold whole numbers from 0 to 2"),
        (LABELS, ["a", "b", "c", "d"], "the class 'd' has fewer"),
        (LABELS, ["a", "b", "a"], "a name twice"),
    ],
)
def test_npz_classes_that_do_not_fit(tmp_path, y, classes, message):
    np.savez(tmp_path / "f.npz", X=numbers(60, 2), y=y, classes=classes)
    with pytest.raises(DataError, match=message):
        read_npz(tmp_path / "f.npz")


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array)
    return file.getvalue()


def npy_header(shape: tuple[int, ...], dtype: str = "<f8") -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
    return file.getvalue()


def write_npz(path, **members: bytes) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)


GOOD = npy(numbers(4, 2))


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"X": npy_header((10**12, 10**3)) + b"0", "y": GOOD}, "X.npy is not as long as its header says"),
        ({"X": GOOD[:-8], "y": GOOD}, "X.npy is not as long as its header says"),
        ({"X": GOOD + b"0", "y": GOOD}, "X.npy is not as long as its header says"),
        ({"X": b"", "y": GOOD}, "cannot be read as an .npz"),
        ({"X": b"\x93NUMPY\x01\0\xff\xff" + b"(" * 65535, "y": GOOD}, "cannot be read as an .npz"),
        ({"X": b"\x93NUMPY\x09\0", "y": GOOD}, "cannot be read as an .npz"),
        ({"X": npy(np.array([[print]], object)), "y": GOOD}, "X.npy holds Python objects, which could run code"),
        ({"X": GOOD, "y": npy_header((4,), "<U1") + b"\xff" * 16}, "y.npy holds text that is none"),
        ({"X": npy(np.zeros((2, 2), "c16")), "y": npy(np.array([1.5, 2]))}, "holds complex128 values"),
        ({"X": npy(np.zeros((2, 2), [("a", "f4")])), "y": npy(np.array([1.5, 2]))}, "train X holds"),
        ({"Z": GOOD}, "has the arrays Z; goodfit reads X and y"),
        ({"x_train": GOOD, "y_train": GOOD, "x_test": GOOD}, "'x_test' without its counterpart"),
        ({}, "has the arrays none"),
    ],
)
def test_hostile_and_damaged_members_are_refused(tmp_path, members, message):
    path = tmp_path / "f.npz"
    write_npz(path, **members)
    with pytest.raises(DataError, match=message) as error:
        read_npz(path)
    assert "\n" not in str(error.value)
    assert "f.npz" in str(error.value)


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr("goodfit.data.arrays.SMALL", 10**6)
    path = tmp_path / "f.npz"
    np.savez_compressed(path, X=np.zeros((4 * 10**6, 1), np.uint8), y=np.zeros(4))
    monkeypatch.setattr(np.lib.format, "read_array", None)
    with pytest.raises(
        DataError, match=r"f.npz' has [\d,]+ bytes and would unpack to 4,000,\d+; it is damaged or meant to do harm"
    ):
        read_npz(path)


def test_an_archive_that_lies_about_a_size_is_refused(tmp_path):
    path = tmp_path / "f.npz"
    write_npz(path, X=npy_header((1 << 26, 1)) + b"0" * 100, y=GOOD)
    content = path.read_bytes()
    true, claimed = len(npy_header((1 << 26, 1))) + 100, len(npy_header((1 << 26, 1))) + (8 << 26)
    path.write_bytes(content.replace(struct.pack("<I", true), struct.pack("<I", claimed)))
    with pytest.raises(DataError, match=r"f.npz' cannot be read as an .npz"):
        read_npz(path)


@pytest.mark.parametrize("cut", [0, 10, 200, -30])
def test_truncated_files_are_refused(tmp_path, cut):
    path = tmp_path / "f.npz"
    np.savez(path, X=numbers(40, 2), y=LABELS[:40])
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match=r"cannot be read as an .npz"):
        read_npz(path)


def test_a_flipped_bit_is_noticed(tmp_path):
    path = tmp_path / "f.npz"
    np.savez(path, X=numbers(40, 2), y=LABELS[:40])
    content = bytearray(path.read_bytes())
    content[300] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="Bad CRC-32"):
        read_npz(path)


def test_a_pickle_in_place_of_an_archive_is_refused(tmp_path):
    path = tmp_path / "f.npz"
    path.write_bytes(b"\x80\x04cos\nmkdir\n")
    with pytest.raises(DataError, match="not a zip file"):
        read_npz(path)
