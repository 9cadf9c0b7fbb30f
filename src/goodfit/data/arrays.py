"""Data held in arrays: tensors, arrays and lists in memory, or the arrays of an .npz file."""

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import ZipFile, ZipInfo

import numpy as np
import torch
from torch import Tensor

from goodfit.data.dataset import Part, RawData, SplitName, Task
from goodfit.data.image_transform import fit_image_transform
from goodfit.data.targets import check_classes, encode_classes, read_targets
from goodfit.data.tensor_transform import as_array, as_float32, fit_tensor_transform
from goodfit.errors import DataError, kind_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["read_arrays", "read_npz"]

SPLITS: tuple[SplitName, ...] = ("train", "val", "test")
INPUT_NAMES = ("x", "images")  # in any case, alone or as x_train, train_x, ...
TARGET_NAMES = ("y", "labels")
SMALL = 1 << 30  # bytes that any .npz may unpack to
MAX_RATIO = 100  # beyond that, how many times its size

Pairs = Mapping[SplitName, tuple[Any, Any]]


def read_arrays(data: Any, task: Task | None = None, classes: Sequence[str] | None = None, name: str = "memory") -> RawData:
    """Read a pair (X, y), or {"train": (X, y), "val": ..., "test": ...} of them: tensors, arrays or nested lists.

    uint8 X of shape (N, H, W), (N, C, H, W) or (N, H, W, C) with 1 or 3 channels are pictures; any other numbers (N, ...)
    become float32. y is (N,). `classes` are those of a trained model, which y must then belong to. Raises DataError for what
    is not such a pair, for numbers that are not finite, and for lengths or shapes that differ.
    """
    parts = data if isinstance(data, Mapping) else {"train": data}
    if not parts or not set(parts) <= set(SPLITS):
        raise DataError(f"{name} has the parts {list(parts)}; give a pair (X, y), or a dict of pairs for train, val and test")
    for split, pair in parts.items():
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise DataError(f"{name}: {split} is {kind_of(pair)}; give a pair (X, y) of tensors, arrays or lists")
    return _raw_data(name, {split: (parts[split][0], parts[split][1]) for split in SPLITS if split in parts}, task, classes)


def read_npz(path: Path, task: Task | None = None, classes: Sequence[str] | None = None, target: str | None = None) -> RawData:
    """Read the arrays X and y of an .npz file, x_train, y_train, x_test and y_test, or the same with images and labels.

    `target` is the name of the targets where it is another; an array `classes` of text names the classes that whole-number
    targets count. See `read_arrays` for the rest. Nothing in the file can run code. Raises DataError for a file that is
    damaged, holds Python objects, or would unpack to more than MAX_RATIO times its size.
    """
    try:
        with ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            layout = _find_pairs(path, members, target)
            wanted = {name for pair in layout.values() for name in pair} | ({"classes"} & members.keys())
            _check_size(path, [members[name] for name in wanted])
            arrays = {name: _read_member(archive, members[name]) for name in wanted}
    except DataError:
        raise
    except Exception as error:  # a damaged archive can raise nearly anything
        reason = (str(error) or type(error).__name__).partition("\n")[0]
        raise DataError(f"{str(path)!r} cannot be read as an .npz ({reason:.200}); make it anew with numpy.savez") from error
    pairs = {split: (arrays[inputs], arrays[targets]) for split, (inputs, targets) in layout.items()}
    return _raw_data(path.name, pairs, task, classes, arrays.get("classes"))


def _find_pairs(path: Path, names: Iterable[str], target: str | None) -> dict[SplitName, tuple[str, str]]:
    """Return the names of the inputs and targets of each split that is there."""
    known = {name.lower(): name for name in names}

    def pick(words: Sequence[str], split: SplitName) -> str | None:
        forms = [form for word in words for form in (f"{word}_{split}", f"{split}_{word}")]
        return next((known[form] for form in [*forms, *(words if split == "train" else ())] if form in known), None)

    targets = (target.lower(),) if target else TARGET_NAMES
    found = {split: (pick(INPUT_NAMES, split), pick(targets, split)) for split in SPLITS}
    pairs = {split: (x, y) for split, (x, y) in found.items() if x and y}
    alone = [x or y for x, y in found.values() if bool(x) != bool(y)]
    if alone or not pairs:
        problem = (
            f"has {alone[0]!r} without its counterpart" if alone else f"has the arrays {', '.join(known.values()) or 'none'}"
        )
        raise DataError(
            f"{str(path)!r} {problem}; goodfit reads X and y, x_train, y_train, x_test and y_test, or images and labels"
        )
    return pairs


def _check_size(path: Path, members: Iterable[ZipInfo]) -> None:
    declared, size = sum(info.file_size for info in members), path.stat().st_size
    if declared > max(SMALL, MAX_RATIO * size):
        raise DataError(f"{str(path)!r} has {size:,} bytes and would unpack to {declared:,}; it is damaged or meant to do harm")


def _read_member(archive: ZipFile, info: ZipInfo) -> "NDArray[Any]":
    """Read one array, having compared what its header promises with what the archive holds; ValueError if they differ."""
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    with archive.open(info) as file:
        version = np.lib.format.read_magic(file)
        if version not in readers:
            raise ValueError(f"{info.filename} has the unknown version {version}")
        shape, _, dtype = readers[version](file)
        if dtype.hasobject:
            raise ValueError(f"{info.filename} holds Python objects, which could run code")
        if file.tell() + math.prod(shape) * dtype.itemsize != info.file_size:
            raise ValueError(f"{info.filename} is not as long as its header says")
    with archive.open(info) as file:
        array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    if (
        array.dtype.kind == "U"
        and array.size
        and array.astype(array.dtype.newbyteorder("=")).view(np.uint32).max() > sys.maxunicode
    ):
        raise ValueError(f"{info.filename} holds text that is none")
    return array


def _raw_data(name: str, pairs: Pairs, task: Task | None, classes: Sequence[str] | None, labels: Any = None) -> RawData:
    """Check the pairs and put them together; `classes` are a trained model's, `labels` those that the data name."""
    if "train" not in pairs and classes is None:
        raise DataError(f"{name} has {', '.join(pairs)} but no training examples; add X and y, or x_train and y_train")
    inputs = {split: _read_inputs(x, f"{name}: {split} X") for split, (x, _) in pairs.items()}
    first = next(iter(inputs.values()))
    if any(tensor.shape[1:] != first.shape[1:] or tensor.dtype != first.dtype for tensor in inputs.values()):
        kinds = ", ".join(f"{split} {_describe(tensor)}" for split, tensor in inputs.items())
        raise DataError(f"{name} has parts of different kinds: {kinds}; give every part examples of one shape and type")
    task, classes, targets, reason = _read_all_targets(name, pairs, task, classes, labels)
    for split, values in targets.items():
        if len(values) != len(inputs[split]):
            count = f"{len(inputs[split])} examples and {len(values)} targets"
            raise DataError(f"{name}: {split} has {count}; give one target for each example, in the same order")
    parts = {split: Part(inputs[split], targets[split]) for split in pairs}
    fit = fit_image_transform if first.dtype == torch.uint8 else fit_tensor_transform
    return RawData(name, task, tuple(classes), parts, fit, (reason,) if reason else ())


def _describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _read_inputs(values: Any, what: str) -> Tensor:
    """Return (N, C, H, W) uint8 pictures or (N, ...) float32 numbers."""
    array = as_array(values, what)
    if array.ndim < 2 or not array.size:
        raise DataError(
            f"{what} has shape {array.shape}; give (N, features), (N, H, W) or any (N, ...) with at least one example"
        )
    if array.dtype == np.uint8 and array.ndim == 3:
        array = array[:, None]
    elif array.dtype == np.uint8 and array.ndim == 4 and array.shape[1] not in (1, 3) and array.shape[3] in (1, 3):
        array = array.transpose(0, 3, 1, 2)
    if array.dtype == np.uint8 and array.ndim == 4 and array.shape[1] in (1, 3):
        return torch.from_numpy(np.require(array, requirements=["C", "W"]))
    return as_float32(array, what)


def _read_all_targets(
    name: str, pairs: Pairs, task: Task | None, classes: Sequence[str] | None, labels: Any
) -> tuple[Task, Sequence[str], dict[SplitName, Tensor], str]:
    """Return the task, the classes, the targets of each part, and why they are read so."""
    places = {split: f"{name}: {split} y" for split in pairs}
    if labels is not None and task != "regression":
        named = [str(label) for label in np.ravel(labels)]
        if len(set(named)) < len(named):
            raise DataError(f"{name}: the array classes has a name twice: {', '.join(named[:10])}; name each class once")
        counted = {split: _read_indices(y, named, places[split]) for split, (_, y) in pairs.items()}
        if classes is None:
            check_classes(named, torch.bincount(counted["train"], minlength=len(named)).tolist())
        return "classification", named, counted, ""
    found: dict[SplitName, Tensor] = {}
    reason = ""
    if classes is None:
        learned = read_targets(pairs["train"][1], task, locate=lambda row: f"{places['train']}, row {row}")
        task, classes, reason, found["train"] = learned.task, learned.classes, learned.reason, learned.values
    for split, (_, y) in pairs.items():
        if split not in found:
            found[split] = _match(y, classes, places[split]) if classes else _read_values(y, places[split])
    return task or "classification", classes, found, reason


def _read_indices(y: Any, classes: Sequence[str], what: str) -> Tensor:
    """Read whole numbers that count `classes` from 0."""
    array = as_array(y, what).reshape(-1)
    if array.dtype.kind not in "iu" or not array.size or array.min() < 0 or array.max() >= len(classes):
        raise DataError(f"{what} does not hold whole numbers from 0 to {len(classes) - 1}, one for each of the array classes")
    return torch.from_numpy(array.astype(np.int64))


def _match(y: Any, classes: Sequence[str], what: str) -> Tensor:
    """Read classes by their names, all of which must be among `classes`."""
    names, indices = encode_classes(y)
    unknown = [name for name in names if name not in classes]
    if unknown:
        known = ", ".join(classes[:10]) + (", ..." if len(classes) > 10 else "")
        raise DataError(f"{what} has the class {unknown[0]!r}, which is none of those that are trained on: {known}")
    return torch.tensor([classes.index(name) for name in names])[indices]


def _read_values(y: Any, what: str) -> Tensor:
    """Read the numbers of a regression."""
    values = as_float32(y, what)
    if values.numel() != len(values):
        raise DataError(f"{what} has shape {tuple(values.shape)}; give one number per example, (N,)")
    return values.view(-1)
