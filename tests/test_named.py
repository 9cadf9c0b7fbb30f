import bz2
import gzip
import hashlib
import socket
import subprocess
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import scipy.io
import torch
from sklearn.datasets import load_digits
from torchvision import datasets

from goodfit.data.named import NAMED, data_root, list_named, read_named
from goodfit.errors import DataError

rng = np.random.default_rng(0)


def write_idx(path: Path, values: np.ndarray) -> bytes:
    kinds = {np.dtype("u1"): 8, np.dtype(">i4"): 12}
    content = bytes([0, 0, kinds[values.dtype], values.ndim]) + np.array(values.shape, ">u4").tobytes() + values.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return content


def pictures(count: int, *shape: int) -> np.ndarray:
    return rng.integers(0, 256, (count, *shape), dtype=np.uint8)


def write_idx_split(root: Path, name: str, part: str, pixels: np.ndarray, labels: np.ndarray) -> None:
    images_file, labels_file = NAMED[name].splits[part].files
    write_idx(root / images_file, pixels)
    write_idx(root / labels_file, labels)


def sum_of(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture
def mnist(tmp_path):
    """A small MNIST in torchvision's layout: five training pictures and three for the test."""
    pixels = pictures(8, 28, 28)
    write_idx_split(tmp_path, "mnist", "train", pixels[:5], np.array([5, 0, 4, 1, 9], "u1"))
    write_idx_split(tmp_path, "mnist", "test", pixels[5:], np.array([7, 2, 1], "u1"))
    return tmp_path, pixels


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "kmnist", "emnist-digits"])
def test_idx_files_are_read_as_torchvision_reads_them(tmp_path, name):
    for part, labels in (("train", [5, 0, 9]), ("test", [1, 1])):
        write_idx_split(tmp_path, name, part, pictures(len(labels), 28, 28), np.array(labels, "u1"))
    raw = read_named(name, tmp_path)
    for part, split in NAMED[name].splits.items():
        expected = getattr(datasets, NAMED[name].source)(tmp_path, **split.arguments)
        upright = expected.data.mT if NAMED[name].transposed else expected.data
        assert torch.equal(raw.parts[part].inputs, upright.unsqueeze(1))
        assert raw.parts[part].inputs.is_contiguous()
        assert torch.equal(raw.parts[part].targets, expected.targets)
    assert (raw.name, raw.task, raw.classes, raw.notes) == (name, "classification", NAMED[name].classes, ())


def test_the_letters_of_emnist_stand_upright_and_start_at_a(tmp_path):
    for part in ("train", "test"):
        pixels = np.zeros((2, 28, 28), np.uint8)
        pixels[:, 3, 20] = 255  # published as (column, row)
        write_idx_split(tmp_path, "emnist-letters", part, pixels, np.array([1, 26], "u1"))
    raw = read_named("emnist-letters", tmp_path)
    assert raw.parts["train"].inputs[0, 0].nonzero().tolist() == [[20, 3]]
    assert [raw.classes[label] for label in raw.parts["test"].targets] == ["a", "z"]


def test_qmnist_takes_the_class_of_its_wide_labels(tmp_path):
    for part in ("train", "test"):
        write_idx_split(tmp_path, "qmnist", part, pictures(3, 28, 28), np.array([[5, 300, 7], [0, -1, 7], [9, 2, 7]], ">i4"))
    raw = read_named("qmnist", tmp_path)
    assert raw.parts["train"].targets.tolist() == [5, 0, 9]
    assert raw.parts["train"].targets.dtype == torch.int64


def test_svhn_is_read_through_torchvision(tmp_path, monkeypatch):
    pixels = pictures(4, 3, 32, 32)
    for part, file in (("train", "train_32x32.mat"), ("test", "test_32x32.mat")):
        scipy.io.savemat(tmp_path / file, {"X": pixels.transpose(2, 3, 1, 0), "y": np.array([[10], [1], [9], [10]], "u1")})
        monkeypatch.setitem(datasets.SVHN.split_list, part, ["", file, sum_of(tmp_path / file)])
    raw = read_named("svhn", tmp_path)
    assert np.array_equal(raw.parts["train"].inputs.numpy(), pixels)
    assert raw.parts["test"].targets.tolist() == [0, 1, 9, 0]
    (tmp_path / "test_32x32.mat").write_bytes(b"MATLAB")
    with pytest.raises(DataError, match=r"test_32x32.mat' cannot be used: Dataset not found or corrupted; delete"):
        read_named("svhn", tmp_path)


def test_stl10_is_read_through_torchvision(tmp_path, monkeypatch):
    folder = tmp_path / "stl10_binary"
    folder.mkdir()
    pixels = pictures(2, 3, 96, 96)
    for part in ("train", "test"):
        pixels.transpose(0, 1, 3, 2).tofile(folder / f"{part}_X.bin")
        np.array([1, 10], "u1").tofile(folder / f"{part}_y.bin")
    for part, names in (("train_list", ["train_X.bin", "train_y.bin"]), ("test_list", ["test_X.bin", "test_y.bin"])):
        monkeypatch.setattr(datasets.STL10, part, [[name, sum_of(folder / name)] for name in names])
    raw = read_named("stl10", tmp_path)
    assert np.array_equal(raw.parts["train"].inputs.numpy(), pixels)
    assert [raw.classes[label] for label in raw.parts["test"].targets] == ["airplane", "truck"]


def test_usps_and_semeion_are_read_through_torchvision(tmp_path, monkeypatch):
    row = " ".join(f"{place}:{value}" for place, value in enumerate([-1.0, 1.0] * 128, 1))
    for file in ("usps.bz2", "usps.t.bz2"):
        (tmp_path / file).write_bytes(bz2.compress(f"10 {row}\n1 {row}\n".encode()))
    raw = read_named("usps", tmp_path)
    assert raw.parts["train"].inputs.flatten(1)[0, :4].tolist() == [0, 255, 0, 255]
    assert raw.parts["test"].targets.tolist() == [9, 0]

    file = tmp_path / "semeion.data"
    file.write_text(
        "".join(f"{'0.0 1.0 ' * 128}{' '.join(str(int(digit == label)) for digit in range(10))}\n" for label in (3, 8))
    )
    monkeypatch.setattr(datasets.SEMEION, "md5_checksum", sum_of(file))
    raw = read_named("semeion", tmp_path)
    assert raw.parts["train"].inputs.shape == (2, 1, 16, 16)
    assert raw.parts["train"].targets.tolist() == [3, 8]


def test_digits_need_no_file(tmp_path):
    raw = read_named("digits", tmp_path, download=False)
    inputs, targets = raw.parts["train"].inputs, raw.parts["train"].targets
    assert inputs.shape == (1797, 1, 8, 8)
    assert inputs.dtype == torch.uint8
    assert (inputs.min(), inputs.max()) == (0, 255)
    assert np.array_equal(inputs[:, 0].numpy(), np.rint(load_digits().images * 255 / 16))
    assert targets.bincount().tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert list(raw.parts) == ["train"]
    assert not list(tmp_path.iterdir())
    assert raw.fit(inputs, torch.arange(1000)).input_shape == (1, 8, 8)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("images-idx3", lambda content: content[:-1], "is not a whole idx file"),
        ("images-idx3", lambda content: content + b"0", "is not a whole idx file"),
        ("images-idx3", lambda content: content[:6], "is not a whole idx file"),
        ("images-idx3", lambda content: b"", "is not a whole idx file"),
        ("images-idx3", lambda content: b"\0\0\x08\0", "is not a whole idx file"),
        ("images-idx3", lambda content: gzip.compress(content), "is not a whole idx file"),
        ("images-idx3", lambda content: b"\0\0\x08\x03" + b"\xff" * 12, "is not a whole idx file"),
        ("images-idx3", lambda content: content[:8] + content[8:12][::-1] + content[12:], "is not a whole idx file"),
        (
            "images-idx3",
            lambda content: b"\0\0\x08\x02\0\0\0\x05\0\0\x03\x10" + content[16:],
            r"\(5, 784\) are not pictures of .*",
        ),
        (
            "images-idx3",
            lambda content: b"\0\0\x0c" + content[3:16] + content[16:] * 4,
            r"torch.int32 \(5, 28, 28\) are not .*",
        ),
        ("labels-idx1", lambda content: b"\0\0\x08\x01\0\0\0\x01\x03", "5 pictures have 1 labels"),
        ("labels-idx1", lambda content: content[:-1] + b"\x0a", "the labels are not those of 10 classes"),
    ],
)
def test_damaged_idx_files_are_named(mnist, file, change, message):
    root, _ = mnist
    path = root / f"MNIST/raw/train-{file}-ubyte"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DataError, match=f"train-{file}-ubyte'.* cannot be used: .*{message}; delete") as error:
        read_named("mnist", root)
    assert "\n" not in str(error.value)


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(DataError, match="unknown data set 'fashon-mnist'; did you mean fashion-mnist"):
        read_named("fashon-mnist")


def test_absent_data_without_download(tmp_path):
    with pytest.raises(DataError, match=r"mnist is not in '.*'; name the folder of its files with --data-root DIR"):
        read_named("mnist", tmp_path / "nowhere", download=False)
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("name", ["mnist", "cifar10", "svhn"])
def test_a_download_that_fails_says_what_to_do(tmp_path, monkeypatch, name):
    nobody = "http://127.0.0.1:1/"
    monkeypatch.setattr(datasets.MNIST, "mirrors", [nobody, nobody])
    monkeypatch.setattr(datasets.CIFAR10, "url", nobody)
    monkeypatch.setitem(datasets.SVHN.split_list, "train", [nobody, "train_32x32.mat", "0"])
    expected = r"cannot be downloaded \(<urlopen error .*refused>\); connect to a network, or name .* --data-root DIR \(DIR/"
    with pytest.raises(DataError, match=expected) as error:
        read_named(name, tmp_path)
    assert "\n" not in str(error.value)


def test_a_server_that_says_nothing_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr("goodfit.data.named.DOWNLOAD_TIMEOUT", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        silent = f"http://127.0.0.1:{server.getsockname()[1]}/"
        monkeypatch.setitem(datasets.SVHN.split_list, "train", [silent, "train_32x32.mat", "0"])
        with pytest.raises(DataError, match=r"svhn is not in .* cannot be downloaded .*timed out"):
            read_named("svhn", tmp_path)
    assert socket.getdefaulttimeout() is None


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


def test_absent_data_are_downloaded_and_then_read(mnist, monkeypatch, tmp_path_factory):
    published, pixels = mnist
    resources = []
    for path in sorted(published.rglob("*-ubyte")):
        packed = published / f"{path.name}.gz"
        packed.write_bytes(gzip.compress(path.read_bytes()))
        resources.append((packed.name, sum_of(packed)))
    root = tmp_path_factory.mktemp("root") / "new"
    monkeypatch.setattr(datasets.MNIST, "resources", resources)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=published)) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setattr(datasets.MNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
        raw = read_named("mnist", root)
        server.shutdown()
        thread.join()
    assert np.array_equal(raw.parts["train"].inputs[:, 0].numpy(), pixels[:5])
    assert raw.notes == (f"mnist was downloaded to {str(root)!r}",)
    assert read_named("mnist", root, download=False).notes == ()


def test_the_data_root_is_the_argument_else_the_environment_else_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GOODFIT_DATA", "~/mine")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert data_root("~/here") == tmp_path / "here"
    assert data_root(None) == data_root("") == tmp_path / "mine"
    monkeypatch.delenv("GOODFIT_DATA")
    assert data_root(None) == tmp_path / ".cache" / "goodfit" / "data"


def test_the_list_says_what_is_on_this_disk(mnist):
    root, _ = mnist
    rows = {row["name"]: row for row in list_named(root)}
    assert rows["mnist"] == {
        "name": "mnist",
        "title": "handwritten digits",
        "task": "classification",
        "classes": 10,
        "train": 60_000,
        "test": 10_000,
        "shape": (1, 28, 28),
        "on_disk": True,
    }
    assert rows["digits"]["test"] is None
    assert {name for name, row in rows.items() if row["on_disk"]} == {"digits", "mnist"}
    (root / "MNIST/raw/t10k-labels-idx1-ubyte").unlink()
    assert not next(row for row in list_named(root) if row["name"] == "mnist")["on_disk"]


def test_the_list_imports_neither_torch_nor_torchvision():
    program = (
        "import sys; from goodfit.data.named import list_named; list_named(); print({'torch', 'numpy'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_the_table_agrees_with_torchvision():
    for name, entry in NAMED.items():
        assert len(set(entry.classes)) == len(entry.classes), name
        if entry.source:
            assert issubclass(getattr(datasets, entry.source), torch.utils.data.Dataset)
    for name, entry in NAMED.items():
        if entry.source == "EMNIST":
            split = entry.splits["train"].arguments["split"]
            assert [label for label in datasets.EMNIST.classes_split_dict[split] if label != "N/A"] == list(entry.classes), name
    for name in ("fashion-mnist", "kmnist"):
        assert getattr(datasets, NAMED[name].source).classes == list(NAMED[name].classes)


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "mean", "std", "first", "per_class"),
    [
        ("mnist", 0.1307, 0.3081, 5, [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]),
        ("fashion-mnist", 0.2860, 0.3530, 9, [1000] * 10),
    ],
)
def test_the_real_sets_are_the_published_ones(real_data, name, mean, std, first, per_class):
    raw = read_named(name, real_data, download=False)
    train, test = raw.parts["train"], raw.parts["test"]
    assert (len(train.inputs), len(test.inputs)) == (60_000, 10_000)
    pixels = train.inputs.double() / 255
    assert (round(pixels.mean().item(), 4), round(pixels.std().item(), 4)) == (mean, std)
    assert train.targets[0] == first
    assert test.targets.bincount().tolist() == per_class
