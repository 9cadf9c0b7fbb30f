"""Data sets of PyTorch and torchvision that goodfit knows by their exact type, read into stores without being called.

What is recognised gives the model the same numbers as its own `__getitem__`, to the rounding of float32, and the same targets;
what is not is left to its own code.
"""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Subset, TensorDataset

from goodfit.data.compose import Composed, read_compose
from goodfit.data.dataset import Part, RawData, SplitName, Task
from goodfit.data.folder import read_samples
from goodfit.data.image_transform import ImageTransform, fit_image_transform
from goodfit.data.images import Geometry, Mode, opened
from goodfit.data.targets import check_classes, read_targets
from goodfit.data.tensor_transform import TensorTransform, as_float32, fit_tensor_transform
from goodfit.data.transforms import Transform
from goodfit.errors import DataError

__all__ = ["Recognized", "class_names", "fits", "read_labels", "recognize", "to_raw_data"]

Known = dict[int, "Recognized | None"]  # by the id of the data set
Decode = Callable[[Path, Sequence[str], int | Geometry], Tensor | None]

DIGITS = tuple("0123456789")
SAMPLE = 64  # pictures whose sizes are looked at before all are decoded
MOST_SHOWN = 4  # of the numbers of a list in a message
MAX_SHARE = 4  # of the memory, which a store may take a quarter of


@dataclass(frozen=True)
class Layout:
    """How a data set of torchvision holds its pictures: the order of the dimensions of `data`, and where the labels are."""

    order: str
    labels: str = "targets"
    classes: tuple[str, ...] | None = None  # None: its own attribute


# As of torchvision 0.29: each gives PIL.Image.fromarray(data[index]) and int(labels[index]).
LAYOUTS = {
    "MNIST": Layout("NHW", classes=DIGITS),  # its own are "0 - zero" and so on
    "FashionMNIST": Layout("NHW"),
    "KMNIST": Layout("NHW"),
    "EMNIST": Layout("NHW"),
    "QMNIST": Layout("NHW", classes=DIGITS),
    "USPS": Layout("NHW", classes=DIGITS),
    "SEMEION": Layout("NHW", "labels", DIGITS),
    "CIFAR10": Layout("NHWC"),
    "CIFAR100": Layout("NHWC"),
    "SVHN": Layout("NCHW", "labels", DIGITS),
    "STL10": Layout("NCHW", "labels"),
}


@dataclass(frozen=True)
class Recognized:
    """A data set as rows of a store.

    `inputs` is (M, ...) uint8 pictures or float32 numbers, `targets` (M, ...) as the data set gives them, `rows` (N,) int64
    its examples in their order, None for all. `transform` is the one it brings, None where goodfit is to fit one.
    """

    inputs: Tensor
    targets: Tensor
    transform: ImageTransform | TensorTransform | None
    rows: Tensor | None = None
    names: Sequence[str] | None = None  # of the store
    classes: tuple[str, ...] | None = None  # None: told from the targets
    settings: dict[str, Any] = field(default_factory=dict)  # configuration values that its random steps mean
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.inputs) if self.rows is None else len(self.rows)

    @property
    def fit(self) -> Callable[..., Transform]:
        """What makes the transform: (inputs, rows, mean=None, std=None) -> Transform; see `RawData.fit`."""
        if self.transform is None:
            return fit_image_transform
        return partial(_given, self.transform)

    def select(self, indices: Sequence[int]) -> "Recognized | None":
        """Return some of the examples, of the same store; None where there is no such example, or too many for the memory."""
        chosen = torch.as_tensor(indices, dtype=torch.int64).reshape(-1)
        if not len(chosen) or chosen.min() < -len(self) or chosen.max() >= len(self):
            return None
        if not fits(len(chosen) * self.inputs[0].nbytes):
            return None
        chosen = chosen % len(self)  # as lists count from their end
        return replace(self, rows=chosen if self.rows is None else self.rows[chosen])

    def gathered(self) -> "Recognized":
        """Return the same examples as all rows of a store of their own."""
        if self.rows is None:
            return self
        names = None if self.names is None else [self.names[row] for row in self.rows.tolist()]
        return replace(self, inputs=self.inputs[self.rows], targets=self.targets[self.rows], rows=None, names=names)


def to_raw_data(
    parts: Mapping[SplitName, Recognized], name: str, task: Task | None = None, classes: Sequence[str] | None = None
) -> RawData:
    """Put recognised parts together; `task` overrules what the targets look like, `classes` are those of a trained model.

    Raises DataError for parts whose transforms or classes differ, and for targets that cannot be learned from.
    """
    if "train" not in parts and classes is None:
        raise DataError(f"{name} has {', '.join(parts)} but no training examples; add the set to train on")
    _check_transforms(name, parts)
    whole = {split: part.gathered() for split, part in parts.items()}
    given = {split: part.targets.reshape(-1) for split, part in whole.items()}
    named = {split: part.classes for split, part in whole.items() if part.classes}
    task, names, targets, reason = read_labels(name, given, named, task, classes)
    notes = dict.fromkeys(note for part in whole.values() for note in part.notes)
    drawing = [split for split, part in parts.items() if split != "train" and part.settings]
    if drawing:
        notes |= {f"the random steps in the transform of {' and '.join(drawing)} are left out: only training draws": None}
    first = whole["train"] if "train" in whole else next(iter(whole.values()))
    loaded = {split: Part(part.inputs, targets[split], part.names) for split, part in whole.items()}
    settings = whole["train"].settings if "train" in whole else {}
    return RawData(name, task, tuple(names), loaded, first.fit, (*notes, *filter(None, [reason])), settings)


def recognize(data_set: Any, known: Known | None = None, decode: Decode = read_samples) -> Recognized | None:
    """Return what is in `data_set`, or None for a type, a transform or a size that goodfit does not repeat.

    `known` holds what was recognised before, so that subsets of one data set share its store; `decode` reads picture files.
    Raises DataError for numbers that are not finite, for pictures that cannot be read, and for a Normalize that does not fit.
    """
    known = {} if known is None else known
    if id(data_set) not in known:
        known[id(data_set)] = _recognize(data_set, known, decode)
    return known[id(data_set)]


def _recognize(data_set: Any, known: Known, decode: Decode) -> Recognized | None:
    kind = type(data_set)
    if kind is TensorDataset:
        return _recognize_tensors(data_set.tensors)
    if kind is Subset:
        whole = recognize(data_set.dataset, known, decode)
        return whole.select(data_set.indices) if whole else None
    if kind is ConcatDataset:
        return _concatenate([recognize(part, known, decode) for part in data_set.datasets])
    from goodfit.data.hugging_face import is_hugging_face, recognize_hugging_face

    if is_hugging_face(data_set):
        return recognize_hugging_face(data_set)
    name = kind.__name__
    if not kind.__module__.startswith("torchvision.datasets.") or name not in {*LAYOUTS, "ImageFolder", "DatasetFolder"}:
        return None
    from torchvision import datasets

    if getattr(datasets, name, None) is not kind or data_set.target_transform is not None:
        return None
    composed = read_compose(data_set.transform)
    if composed.unread:
        return None
    if name in LAYOUTS:
        return _recognize_pictures(data_set, LAYOUTS[name], composed)
    return _recognize_folder(data_set, composed, decode)


def class_names(data_set: Any) -> tuple[str, ...] | None:
    """Return the names that a data set has for its classes, those of digits being "0" to "9"; None for one that has none."""
    layout = LAYOUTS.get(type(data_set).__name__) if type(data_set).__module__.startswith("torchvision.datasets.") else None
    classes = (layout.classes if layout else None) or getattr(data_set, "classes", None)
    if not isinstance(classes, list | tuple) or not classes or not all(isinstance(name, str) for name in classes):
        return None
    return tuple(classes)


def _recognize_tensors(tensors: Sequence[Tensor]) -> Recognized | None:
    """Read (X, y): float numbers (N, F, ...) as they are, uint8 pictures (N, 1 or 3, H, W) as numbers from 0 to 255."""
    if len(tensors) != 2 or any(tensor.layout is not torch.strided or not tensor.numel() for tensor in tensors):
        return None
    inputs, targets = (tensor.detach().cpu() for tensor in tensors)
    if inputs.ndim < 2 or targets.shape not in (inputs.shape[:1], (len(inputs), 1)) or targets.is_complex():
        return None
    if inputs.is_floating_point():
        shape = tuple(inputs.shape[1:])
        same = TensorTransform(shape, (0.0,) * shape[0], (1.0,) * shape[0])
        return Recognized(as_float32(inputs, "the first tensor of the TensorDataset"), targets, same)
    if inputs.dtype == torch.uint8 and inputs.ndim == 4 and inputs.shape[1] in (1, 3):
        _, channels, height, width = inputs.shape
        numbers = (0.0,) * channels, (1 / 255,) * channels
        note = "the uint8 pictures reach the model as numbers from 0 to 255, as their TensorDataset gives them; (X, y) centres them"
        return Recognized(
            inputs.contiguous(),
            targets,
            ImageTransform("L" if channels == 1 else "RGB", height, width, *numbers),
            notes=(note,),
        )
    return None  # whole numbers, such as those an embedding looks up


def _recognize_pictures(data_set: Any, layout: Layout, composed: Composed) -> Recognized | None:
    """Read a data set that holds its pictures in memory."""
    labels = getattr(data_set, layout.labels)
    if labels is None or not len(labels) or (labels := torch.as_tensor(labels)).shape[0] != len(data_set.data):
        return None
    if labels.ndim == 2 and getattr(data_set, "compat", False):
        labels = labels[:, 0]  # QMNIST has the writer and more beside the class
    pixels = torch.as_tensor(data_set.data)
    if pixels.dtype != torch.uint8 or pixels.ndim != len(layout.order) or labels.ndim != 1 or labels.min() < 0:
        return None
    pixels = pixels.unsqueeze(1) if layout.order == "NHW" else pixels.movedim(layout.order.index("C"), 1)
    _, channels, height, width = pixels.shape
    mode: Mode = "L" if channels == 1 else "RGB"
    if not composed.repeats(mode, height, width):
        return None
    classes = class_names(data_set)
    read = partial(Recognized, targets=labels.to(torch.int64), classes=classes, settings=composed.settings)
    if composed.mean is None:
        return read(pixels.contiguous(), transform=None)
    transform = composed.image_transform(mode, height, width)
    resized = replace(composed, crop=None).output_size(height, width)
    if resized == (height, width) and transform.input_shape == (channels, height, width):
        return read(pixels.contiguous(), transform=transform)
    if not fits(len(pixels) * math.prod(transform.input_shape)):
        return None
    return read(transform.encode(list(pixels)), transform=transform)  # a list: a batch could pass for a resized one


def _recognize_folder(data_set: Any, composed: Composed, decode: Decode) -> Recognized | None:
    """Read the pictures of an ImageFolder as its default loader does."""
    from torchvision import get_image_backend
    from torchvision.datasets.folder import default_loader, pil_loader

    if data_set.loader not in (default_loader, pil_loader) or get_image_backend() != "PIL" or not data_set.samples:
        return None
    root = Path(data_set.root).absolute()
    names = [os.path.relpath(path, data_set.root) for path, _ in data_set.samples]
    wanted: int | Geometry = 0
    transform = None
    if composed.mean is not None:
        fixed = composed.crop is not None or len(composed.resize or ()) == 2
        size = (1, 1) if fixed else _common_size(root, names, composed)
        if size is None or not composed.repeats("RGB", *size):
            return None
        transform = composed.image_transform("RGB", *size, plain=True)
        wanted = transform.geometry._replace(resize=transform.resize or (), exact=not fixed)
    inputs = decode(root, names, wanted)
    if inputs is None:
        return None
    targets = torch.tensor([target for _, target in data_set.samples])
    classes = tuple(data_set.classes)
    return Recognized(inputs, targets, transform, names=names, classes=classes, settings=composed.settings)


def _common_size(root: Path, names: Sequence[str], composed: Composed) -> tuple[int, int] | None:
    """Return the height and width that a few of the pictures have, None where they would come out with several."""
    sizes, results = [], set()
    for name in names[:: -(-len(names) // SAMPLE)]:
        with opened(root / name, name) as image:
            sizes.append((image.height, image.width))
            results.add(composed.output_size(*sizes[-1]))
    return sizes[0] if len(results) == 1 else None


def _concatenate(parts: Sequence[Recognized | None]) -> Recognized | None:
    """Return the examples of several data sets as one, if they are of one kind."""
    first = parts[0]
    if first is None:
        return None
    stores: list[Recognized] = []
    for part in parts:
        if part is None or any(getattr(part, name) != getattr(first, name) for name in ("transform", "classes", "settings")):
            return None
        if (part.inputs.shape[1:], part.targets.shape[1:]) != (first.inputs.shape[1:], first.targets.shape[1:]):
            return None
        stores.append(part)
    if not fits(sum(len(part) * part.inputs[0].nbytes for part in stores)):
        return None
    stores = [part.gathered() for part in stores]
    names = None if first.names is None else [name for part in stores for name in part.names or ()]
    inputs, targets = (torch.cat([getattr(part, which) for part in stores]) for which in ("inputs", "targets"))
    return replace(first, inputs=inputs, targets=targets, rows=None, names=names)


def fits(num_bytes: int) -> bool:
    """Whether so much may be held in memory."""
    if not hasattr(os, "sysconf"):  # Windows
        return True
    return num_bytes <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // MAX_SHARE


def _given(
    transform: ImageTransform | TensorTransform, inputs: Tensor, rows: Tensor, mean: Any = None, std: Any = None
) -> Transform:
    """Return the transform that the data set brings, with the configuration's mean and deviation in place of its own."""
    mean, std = transform.mean if mean is None else mean, transform.std if std is None else std
    if isinstance(transform, TensorTransform):
        return fit_tensor_transform(inputs, rows, mean, std)
    made = fit_image_transform(inputs, rows, mean, std)
    return replace(transform, mean=made.mean, std=made.std)


def _check_transforms(name: str, parts: Mapping[SplitName, Recognized]) -> None:
    """Raise DataError where the fixed part of the parts' transforms is not the same."""
    (first, one), *others = ((split, part.transform) for split, part in parts.items())
    for split, other in others:
        if one != other:
            raise DataError(
                f"{name}: {first} has {_differences(one, other)}, and {split} has {_differences(other, one)}; give them the same "
                f"transform, but for random steps: what a model was trained on is what it can be tested on"
            )


def _differences(transform: Transform | None, other: Transform | None) -> str:
    """Say what `transform` has other than `other`."""
    if transform is None:
        return "no transform"
    own, theirs = transform.to_json(), other.to_json() if other else {}
    return ", ".join(f"{key} {_short(own.get(key))}" for key in own | theirs if own.get(key) != theirs.get(key))


def _short(value: Any) -> str:
    return f"of {len(value)} numbers" if isinstance(value, list) and len(value) > MOST_SHOWN else str(value)


def read_labels(
    name: str,
    targets: Mapping[SplitName, Tensor],
    named: Mapping[SplitName, Sequence[str]],
    task: Task | None,
    classes: Sequence[str] | None,
) -> tuple[Task, Sequence[str], dict[SplitName, Tensor], str]:
    """Return the task, the classes, the targets of each part as (N,) indices or values, and why they are read so.

    `targets` are those that the data sets give, `named` what they call their classes, `classes` those of a trained model.
    Raises DataError for targets that fit neither, or cannot be learned from.
    """
    if len(set(named.values())) > 1:
        lists = " and ".join(f"{split} {', '.join(names)[:200]}" for split, names in named.items())
        raise DataError(f"{name}: the parts have different classes, {lists}; give them the same")
    if named and task == "regression":
        raise DataError(f"{name} has classes, and data.task = 'regression' is for numbers to predict; leave it out")
    counts = not any(
        values.is_floating_point() or values.dtype == torch.bool or values.min() < 0 for values in targets.values()
    )
    names: Sequence[str] | None = next(iter(named.values()), None)
    if names is None and counts and task != "regression":
        names = _name_counts(targets, classes)
    if names is None:
        return _infer_targets(name, targets, task, classes)
    for split, values in targets.items():
        if not counts or values.max() >= len(names):
            raise DataError(f"{name}: {split} has the class {values.max()}, and there are {len(names)}: count them from 0")
    if classes is None:
        # With a test part at hand none is taken from the training part, so one example of a class is enough.
        number = torch.bincount(targets["train"]) * (2 if "test" in targets else 1)
        present = number.nonzero().flatten().tolist()
        check_classes([names[place] for place in present], number[present].tolist())
    return "classification", names, {split: values.to(torch.int64) for split, values in targets.items()}, ""


def _name_counts(targets: Mapping[SplitName, Tensor], classes: Sequence[str] | None) -> Sequence[str] | None:
    """Name classes that are counted from 0 by their numbers, or by a trained model's classes if those are no numbers.

    Return None for numbers that cannot be counts of classes: they are more than the examples.
    """
    top = max(int(values.max()) for values in targets.values())
    numbers = [str(number) for number in range(top + 1)]
    if classes is not None:
        return classes if top < len(classes) and not set(numbers) & set(classes) else None
    return numbers if top < len(targets["train"]) else None


def _infer_targets(
    name: str, targets: Mapping[SplitName, Tensor], task: Task | None, classes: Sequence[str] | None
) -> tuple[Task, Sequence[str], dict[SplitName, Tensor], str]:
    """Read targets as those of arrays are read."""
    reason = ""
    found: dict[SplitName, Tensor] = {}
    if classes is None:
        learned = read_targets(targets["train"], task, locate=lambda row: f"{name}: train, example {row}")
        task, classes, reason, found["train"] = learned.task, learned.classes, learned.reason, learned.values
    for split, values in targets.items():
        if split not in found:
            found[split] = read_targets(values, task, classes, partial("{}: {}, example {}".format, name, split)).values
    return task or "classification", classes, found, reason
