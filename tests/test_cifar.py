import struct
from hashlib import md5

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10, CIFAR100

from goodfit.data import cifar
from goodfit.data.cifar import read_cifar
from goodfit.data.named import NAMED, read_named
from goodfit.errors import DataError

NAME = "cifar-10-batches-py/test_batch"


def text(value: bytes) -> bytes:
    return b"T" + struct.pack("<i", len(value)) + value


def number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def array(values: np.ndarray) -> bytes:
    kind = b"cnumpy\ndtype\n" + text(b"u1") + number(0) + number(1) + b"\x87R"
    kind += b"(" + number(3) + text(b"|") + b"NNN" + number(-1) * 2 + number(0) + b"tb"
    shape = b"(" + b"".join(map(number, values.shape)) + b"t"
    empty = b"cnumpy.core.multiarray\n_reconstruct\n" + b"cnumpy\nndarray\n" + b"(" + number(0) + b"t" + text(b"b") + b"\x87R"
    return empty + b"(" + number(1) + shape + kind + b"\x89" + text(values.tobytes()) + b"tb"


def batch(pixels: bytes, labels: bytes, labels_key: bytes = b"labels") -> bytes:
    """A batch as Python 2 pickled it, opcode by opcode: today's pickle writes other ones."""
    return b"\x80\x02}(" + text(b"data") + pixels + text(labels_key) + labels + b"u."


def numbers(values: list[int]) -> bytes:
    return b"](" + b"".join(map(number, values)) + b"e"


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a file in the archive's place, with its sum in place of the published one."""

    def write(content: bytes, name: str = NAME) -> None:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        monkeypatch.setitem(cifar.MD5, name, md5(content).hexdigest())

    return write


@pytest.mark.parametrize("labels_key", [b"labels", b"fine_labels"])
def test_batches_are_read_and_joined(tmp_path, write, labels_key):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 3072), dtype=np.uint8)
    write(batch(array(pixels[:3]), numbers([7, 0, 9]), labels_key))
    write(batch(array(pixels[3:]), numbers([1, 1]), labels_key), "cifar-100-python/test")
    pictures, labels = read_cifar(tmp_path, [NAME, "cifar-100-python/test"])
    assert np.array_equal(pictures.numpy(), pixels.reshape(5, 3, 32, 32))
    assert labels.tolist() == [7, 0, 9, 1, 1]
    assert labels.dtype == torch.int64


def test_a_file_that_is_not_the_published_one_is_refused_before_it_is_unpickled(tmp_path, write, monkeypatch):
    write(batch(array(np.zeros((1, 3072), np.uint8)), numbers([0])))
    path = tmp_path / NAME
    path.write_bytes(path.read_bytes()[:-10] + b"0" * 10)
    monkeypatch.setattr(cifar, "ArrayUnpickler", None)  # so that using it would be another error
    with pytest.raises(DataError, match=r"test_batch' is not the file that was published, by its MD5; delete it"):
        read_cifar(tmp_path, [NAME])


def test_a_pickle_that_calls_anything_else_is_refused_though_its_md5_fits(tmp_path, write):
    victim = tmp_path / "victim"
    write(b"\x80\x02cos\nmkdir\n" + text(str(victim).encode()) + b"\x85R.")
    with pytest.raises(DataError, match=r"is no CIFAR batch .it asks for 'os' 'mkdir'") as error:
        read_cifar(tmp_path, [NAME])
    assert not victim.exists()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("module", "name"),
    [("numpy", "load"), ("builtins", "eval"), ("numpy.core.multiarray", "fromfile"), ("numpy", "ndarray.tofile")],
)
def test_the_unpickler_admits_nothing_but_arrays(tmp_path, write, module, name):
    old = f"\x80\x02c{module}\n{name}\n."
    new = f"\x80\x04\x8c{chr(len(module))}{module}\x8c{chr(len(name))}{name}\x93."
    for content in (old, new):
        write(content.encode("latin1"))
        with pytest.raises(DataError, match="asks for"):
            read_cifar(tmp_path, [NAME])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x02}.",
        b"\x80\x02K\x01.",
        batch(numbers([1]), numbers([1])),
        batch(array(np.zeros((2, 3072), np.uint8)), numbers([1])),
        batch(array(np.zeros((1, 3071), np.uint8)), numbers([1])),
        batch(array(np.zeros((1, 3072), np.uint8)), b"](" + text(b"x") + b"e"),
        batch(array(np.zeros((1, 3072), np.uint8)), numbers([1]))[:-40],
    ],
)
def test_damaged_content_is_refused(tmp_path, write, content):
    write(content)
    with pytest.raises(DataError, match=r"test_batch' (is no CIFAR batch|does not hold).*delete it"):
        read_cifar(tmp_path, [NAME])


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"test_batch' .No such file"):
        read_cifar(tmp_path, [NAME])


def test_the_sums_are_those_of_torchvision():
    published = {
        f"{kind.base_folder}/{name}": md5 for kind in (CIFAR10, CIFAR100) for name, md5 in kind.train_list + kind.test_list
    }
    assert published == cifar.MD5


@pytest.mark.parametrize(("name", "labels_key", "last"), [("cifar10", b"labels", 9), ("cifar100", b"fine_labels", 99)])
def test_the_named_set_has_its_parts_and_classes(tmp_path, write, name, labels_key, last):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3072), dtype=np.uint8)
    for split in NAMED[name].splits.values():
        for file in split.files:
            write(batch(array(pixels), numbers([0, last]), labels_key), file)
    raw = read_named(name, tmp_path, download=False)
    assert {part: tuple(data.inputs.shape) for part, data in raw.parts.items()} == {
        "train": (10 if name == "cifar10" else 2, 3, 32, 32),
        "test": (2, 3, 32, 32),
    }
    assert [raw.classes[label] for label in raw.parts["test"].targets] == (
        ["airplane", "truck"] if name == "cifar10" else ["apple", "worm"]
    )
    write(batch(array(pixels), numbers([0, last + 1]), labels_key), file)
    with pytest.raises(DataError, match=f"the labels are not those of {last + 1} classes"):
        read_named(name, tmp_path)
