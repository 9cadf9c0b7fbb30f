"""Data sets known by name: one literal table, read from torchvision's own file layout and downloaded through it."""

import math
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from goodfit.data.dataset import Part, RawData, SplitName, Task
from goodfit.errors import DataError, unknown_name

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from goodfit.inputs import SelfTest

__all__ = ["NAMED", "NamedDataset", "NamedSplit", "data_root", "list_named", "read_named"]

Arrays = tuple[Any, Any]  # uint8 pictures (N, H, W) or (N, C, H, W), and N labels: numpy's or torch's
DOWNLOAD_TIMEOUT = 30.0  # seconds without a byte, after which a download has failed


@dataclass(frozen=True)
class NamedSplit:
    """A split as published: its examples, its files below the data root, and torchvision's arguments for it."""

    size: int
    files: tuple[str, ...]
    arguments: dict[str, Any]


@dataclass(frozen=True)
class NamedDataset:
    """A data set as published: `source` is its class in torchvision.datasets, `reader` a key of READERS."""

    title: str
    reader: str
    source: str
    shape: tuple[int, int, int]  # (C, H, W)
    classes: tuple[str, ...]
    splits: dict[SplitName, NamedSplit]
    first_label: int = 0  # the number of the first class in the files
    transposed: bool = False  # published lying on their side
    task: Task = "classification"

    def is_on_disk(self, root: Path) -> bool:
        """Whether every file is below `root`; none is opened."""
        return all((root / file).exists() for split in self.splits.values() for file in split.files)


def _mnist(folder: str) -> dict[SplitName, NamedSplit]:
    return {
        "train": NamedSplit(60_000, _idx_files(f"{folder}/raw/train"), {"train": True}),
        "test": NamedSplit(10_000, _idx_files(f"{folder}/raw/t10k"), {"train": False}),
    }


def _emnist(split: str, train: int, test: int) -> dict[SplitName, NamedSplit]:
    return {
        "train": NamedSplit(train, _idx_files(f"EMNIST/raw/emnist-{split}-train"), {"split": split, "train": True}),
        "test": NamedSplit(test, _idx_files(f"EMNIST/raw/emnist-{split}-test"), {"split": split, "train": False}),
    }


def _idx_files(prefix: str, labels: str = "labels-idx1-ubyte") -> tuple[str, ...]:
    return (f"{prefix}-images-idx3-ubyte", f"{prefix}-{labels}")


GREY_28 = (1, 28, 28)
COLOUR_32 = (3, 32, 32)
DIGITS = tuple("0123456789")
CAPITALS = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
LETTERS = tuple("abcdefghijklmnopqrstuvwxyz")
MERGED = DIGITS + CAPITALS + tuple("abdefghnqrt")  # the other small letters look like their capitals
CLOTHES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
STL10_CLASSES = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")
CIFAR100_CLASSES = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
    caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish
    forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle
    mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
    possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
    sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale willow_tree
    wolf woman worm
"""

NAMED = {
    "digits": NamedDataset(
        "handwritten digits, with scikit-learn", "digits", "", (1, 8, 8), DIGITS, {"train": NamedSplit(1_797, (), {})}
    ),
    "mnist": NamedDataset("handwritten digits", "idx", "MNIST", GREY_28, DIGITS, _mnist("MNIST")),
    "fashion-mnist": NamedDataset("clothes", "idx", "FashionMNIST", GREY_28, CLOTHES, _mnist("FashionMNIST")),
    "kmnist": NamedDataset(
        "cursive Japanese",
        "idx",
        "KMNIST",
        GREY_28,
        ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
        _mnist("KMNIST"),
    ),
    "qmnist": NamedDataset(
        "MNIST with 50,000 more test digits",
        "idx",
        "QMNIST",
        GREY_28,
        DIGITS,
        {
            "train": NamedSplit(60_000, _idx_files("QMNIST/raw/qmnist-train", "labels-idx2-int"), {"train": True}),
            "test": NamedSplit(60_000, _idx_files("QMNIST/raw/qmnist-test", "labels-idx2-int"), {"train": False}),
        },
    ),
    "emnist": NamedDataset(
        "digits and letters, balanced", "idx", "EMNIST", GREY_28, MERGED, _emnist("balanced", 112_800, 18_800), transposed=True
    ),
    "emnist-balanced": NamedDataset(
        "the same as emnist", "idx", "EMNIST", GREY_28, MERGED, _emnist("balanced", 112_800, 18_800), transposed=True
    ),
    "emnist-bymerge": NamedDataset(
        "digits and letters", "idx", "EMNIST", GREY_28, MERGED, _emnist("bymerge", 697_932, 116_323), transposed=True
    ),
    "emnist-byclass": NamedDataset(
        "digits, capitals and small letters",
        "idx",
        "EMNIST",
        GREY_28,
        DIGITS + CAPITALS + LETTERS,
        _emnist("byclass", 697_932, 116_323),
        transposed=True,
    ),
    "emnist-letters": NamedDataset(
        "letters", "idx", "EMNIST", GREY_28, LETTERS, _emnist("letters", 124_800, 20_800), first_label=1, transposed=True
    ),
    "emnist-digits": NamedDataset(
        "handwritten digits", "idx", "EMNIST", GREY_28, DIGITS, _emnist("digits", 240_000, 40_000), transposed=True
    ),
    "usps": NamedDataset(
        "digits on envelopes",
        "torchvision",
        "USPS",
        (1, 16, 16),
        DIGITS,
        {
            "train": NamedSplit(7_291, ("usps.bz2",), {"train": True}),
            "test": NamedSplit(2_007, ("usps.t.bz2",), {"train": False}),
        },
    ),
    "semeion": NamedDataset(
        "handwritten digits",
        "torchvision",
        "SEMEION",
        (1, 16, 16),
        DIGITS,
        {"train": NamedSplit(1_593, ("semeion.data",), {})},
    ),
    "cifar10": NamedDataset(
        "things and animals",
        "cifar",
        "CIFAR10",
        COLOUR_32,
        CIFAR10_CLASSES,
        {
            "train": NamedSplit(50_000, tuple(f"cifar-10-batches-py/data_batch_{number}" for number in range(1, 6)), {}),
            "test": NamedSplit(10_000, ("cifar-10-batches-py/test_batch",), {}),
        },
    ),
    "cifar100": NamedDataset(
        "things and animals",
        "cifar",
        "CIFAR100",
        COLOUR_32,
        tuple(CIFAR100_CLASSES.split()),
        {
            "train": NamedSplit(50_000, ("cifar-100-python/train",), {}),
            "test": NamedSplit(10_000, ("cifar-100-python/test",), {}),
        },
    ),
    "svhn": NamedDataset(
        "house numbers",
        "torchvision",
        "SVHN",
        COLOUR_32,
        DIGITS,
        {
            "train": NamedSplit(73_257, ("train_32x32.mat",), {"split": "train"}),
            "test": NamedSplit(26_032, ("test_32x32.mat",), {"split": "test"}),
        },
    ),
    "stl10": NamedDataset(
        "things and animals",
        "torchvision",
        "STL10",
        (3, 96, 96),
        STL10_CLASSES,
        {
            "train": NamedSplit(5_000, ("stl10_binary/train_X.bin", "stl10_binary/train_y.bin"), {"split": "train"}),
            "test": NamedSplit(8_000, ("stl10_binary/test_X.bin", "stl10_binary/test_y.bin"), {"split": "test"}),
        },
    ),
}


def data_root(root: Path | str | None) -> Path:
    """Return where named data sets lie: `root`, else GOODFIT_DATA, else the folder goodfit/data in the user's cache."""
    chosen = root or os.environ.get("GOODFIT_DATA") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "goodfit" / "data"
    return Path(chosen).expanduser()


def list_named(root: Path | str | None = None) -> list[dict[str, Any]]:
    """Return a row per data set: name, title, task, classes, train and test examples, shape, and whether it is on this disk.

    A set without a test split of its own has None for `test`.
    """
    folder = data_root(root)
    return [
        {
            "name": name,
            "title": entry.title,
            "task": entry.task,
            "classes": len(entry.classes),
            "train": entry.splits["train"].size,
            "test": entry.splits["test"].size if "test" in entry.splits else None,
            "shape": entry.shape,
            "on_disk": entry.is_on_disk(folder),
        }
        for name, entry in NAMED.items()
    ]


def read_named(
    name: str, root: Path | str | None = None, download: bool = True, self_test: "SelfTest | None" = None
) -> RawData:
    """Read the data set `name` as uint8 pictures (N, C, H, W), fetching it first where it is not below `root`.

    `self_test` is shown the form of the pictures before. Raises DataError for an unknown name, for data that are absent and
    cannot be fetched, and for damaged files.
    """
    from goodfit.data.image_transform import fit_image_transform
    from goodfit.inputs import drawn_batch

    if name not in NAMED:
        raise DataError(unknown_name("data set", name, NAMED))
    entry, folder = NAMED[name], data_root(root)
    if self_test:
        self_test(entry.classes, drawn_batch(entry.shape))
    notes = () if entry.is_on_disk(folder) else (_download(name, folder, allowed=download),)
    parts = {part: _read_part(entry, folder, split) for part, split in entry.splits.items()}
    return RawData(name, entry.task, entry.classes, parts, fit_image_transform, notes)


def _download(name: str, root: Path, *, allowed: bool) -> str:
    """Fetch a data set through torchvision, which shows its progress on stderr; return what the user should know of it."""
    entry = NAMED[name]
    first = next(file for split in entry.splits.values() for file in split.files)
    advice = f"name the folder of its files with --data-root DIR (DIR/{first} and so on, as torchvision has them)"
    if not allowed:
        raise DataError(f"{name} is not in {str(root)!r}; {advice}, or --set data.download=true")
    try:
        with _socket_timeout():
            _download_with_torchvision(entry, root)
    except Exception as error:
        where = f"{name} is not in {str(root)!r} and cannot be downloaded"
        raise DataError(f"{where} ({_last_line(error)}); connect to a network, or {advice}") from error
    if not entry.is_on_disk(root):
        raise DataError(f"{name} was downloaded to {str(root)!r}, but {first} and its like are not there; {advice}")
    return f"{name} was downloaded to {str(root)!r}"


def _download_with_torchvision(entry: NamedDataset, root: Path) -> None:
    from torchvision import datasets
    from torchvision.datasets.utils import download_and_extract_archive

    source = getattr(datasets, entry.source)
    if entry.reader == "cifar":  # making the object would unpickle the files
        download_and_extract_archive(source.url, root, filename=source.filename, md5=source.tgz_md5)
        return
    for split in entry.splits.values():
        source(root, download=True, **split.arguments)


@contextmanager
def _socket_timeout() -> Iterator[None]:
    """Let a download fail that hears nothing; torchvision itself would wait for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


def _read_part(entry: NamedDataset, root: Path, split: NamedSplit) -> Part:
    """Read one split and check that its pictures and labels fit each other and the table."""
    import torch

    files = [root / file for file in split.files]
    pixels, labels = READERS[entry.reader](entry, root, split)
    pictures, targets = torch.as_tensor(pixels), torch.as_tensor(labels, dtype=torch.int64) - entry.first_label
    if pictures.shape[1:] not in (entry.shape, entry.shape[1:]) or pictures.dtype != torch.uint8:
        raise _damaged(files, f"{pictures.dtype} {tuple(pictures.shape)} are not pictures of {entry.shape}")
    if targets.shape != pictures.shape[:1] or not len(targets):
        raise _damaged(files, f"{len(pictures)} pictures have {len(targets)} labels")
    if targets.min() < 0 or targets.max() >= len(entry.classes):
        raise _damaged(files, f"the labels are not those of {len(entry.classes)} classes")
    pictures = pictures.view(len(pictures), *entry.shape)
    return Part(pictures.mT.contiguous() if entry.transposed else pictures, targets)


def _damaged(files: Sequence[Path], why: str) -> DataError:
    names = " and ".join(repr(str(file)) for file in files)
    return DataError(f"{names} cannot be used: {why}; delete what is damaged and run again to fetch it anew")


def _read_digits(entry: NamedDataset, root: Path, split: NamedSplit) -> Arrays:  # noqa: ARG001
    import numpy as np
    from sklearn.datasets import load_digits

    digits = load_digits()
    return np.rint(digits.images * (255 / 16)).astype(np.uint8), digits.target


def _read_idx(entry: NamedDataset, root: Path, split: NamedSplit) -> Arrays:  # noqa: ARG001
    pixels, labels = (_read_idx_file(root / file) for file in split.files)
    return pixels, labels[:, 0] if labels.ndim == 2 else labels  # QMNIST has the writer and more beside the class


def _read_idx_file(path: Path) -> "NDArray[Any]":
    """Read an idx file: 0, 0, the type, the number of dimensions, their sizes as big-endian 32 bits, the numbers.

    Torchvision's reader does the same, but importing it costs a second and 160 MB.
    """
    import numpy as np

    types: dict[bytes, Any] = {b"\0\0\x08": np.dtype("u1"), b"\0\0\x0c": np.dtype(">i4")}
    try:
        with path.open("rb") as file:
            start = file.read(4)
            sizes = np.fromfile(file, ">u4", start[-1] if start[:3] in types else 0).tolist()
            values: NDArray[Any] = np.fromfile(file, types.get(start[:3], "u1"))
    except OSError as error:
        raise _damaged([path], f"cannot be read ({error.strerror})") from error
    if not sizes or len(sizes) != start[-1] or values.size != math.prod(sizes):
        raise _damaged([path], "is not a whole idx file")
    return values.astype(values.dtype.newbyteorder("="), copy=False).reshape(sizes)


def _read_cifar(entry: NamedDataset, root: Path, split: NamedSplit) -> Arrays:  # noqa: ARG001
    from goodfit.data.cifar import read_cifar

    return read_cifar(root, split.files)


def _read_with_torchvision(entry: NamedDataset, root: Path, split: NamedSplit) -> Arrays:
    """Read a format that torchvision reads without unpickling: text, MATLAB's matrices or bare bytes, by MD5 if it has one."""
    import numpy as np
    from torchvision import datasets

    try:
        data = getattr(datasets, entry.source)(root, download=False, **split.arguments)
    except Exception as error:  # damaged files make these readers raise nearly anything
        raise _damaged([root / file for file in split.files], _last_line(error).partition(". ")[0]) from error
    return np.ascontiguousarray(data.data), data.labels if hasattr(data, "labels") else data.targets


READERS: dict[str, Callable[[NamedDataset, Path, NamedSplit], Arrays]] = {
    "digits": _read_digits,
    "idx": _read_idx,
    "cifar": _read_cifar,
    "torchvision": _read_with_torchvision,
}
