"""What a data set is: splits of stored examples, the classes, the fitted transform, and a fingerprint."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from torch import Tensor

    from goodfit.data.examples import Examples
    from goodfit.data.picture_files import PictureFiles
    from goodfit.data.transforms import Transform

__all__ = ["Dataset", "Part", "RawData", "Split", "SplitName", "TargetScale", "Task", "fingerprint"]

Task = Literal["classification", "regression"]
SplitName = Literal["train", "val", "test"]

MOST_ROWS = 50  # of a table in a notebook

EXAMPLES = 16  # that the fingerprint holds of data which the user's own code reads


@dataclass(frozen=True)
class Part:
    """One part of the data as its reader found it: a folder, a file, or one half of a named data set.

    `inputs` is whatever `RawData.fit` and `Transform.encode` take, indexable by a list of rows; `targets` is (N,) int64
    class indices or (N,) float32 values; `names` says where each example came from ("cat/3.jpg", "f.csv:7").
    """

    inputs: Any
    targets: "Tensor"
    names: Sequence[str] | None = None


@dataclass(frozen=True)
class RawData:
    """Data as read, before splitting: `parts` holds "train", and "val" and "test" where the data bring their own.

    `fit` makes the transform from the inputs of the training part and the rows of it that are training examples.
    """

    name: str
    task: Task
    classes: tuple[str, ...]  # empty for a regression
    parts: dict[SplitName, Part]
    fit: "Callable[[Any, Tensor], Transform]"
    notes: tuple[str, ...] = ()  # what the user should be told once, such as skipped pictures
    settings: dict[str, Any] = field(default_factory=dict)  # configuration values that the data bring: {"augment.flip": True}


@dataclass(frozen=True)
class Split:
    """Examples of one split: rows of a shared store, which is never copied.

    `inputs` is (M, ...) uint8 pictures or float32 numbers, pictures that stay in their files, or M examples that the user's own
    code reads; `rows` (N,) int64 says which of them belong to the split, and `targets` (N,) follows `rows`.
    """

    inputs: "Tensor | PictureFiles | Examples"
    targets: "Tensor"
    rows: "Tensor"
    names: Sequence[str] | None = None  # of the store, so names[rows[i]] is example i

    def __len__(self) -> int:
        return len(self.rows)

    def name(self, index: int) -> str:
        """Say where example `index` of the split came from."""
        row = int(self.rows[index])
        return self.names[row] if self.names is not None else f"example {row}"


@dataclass(frozen=True)
class TargetScale:
    """Mean and deviation of a regression's training targets, in the target's unit; a model predicts in these terms."""

    mean: float = 0.0
    std: float = 1.0

    def to_unit(self, outputs: "Tensor") -> "Tensor":
        """Turn a model's outputs into values in the target's unit, in double precision where the device has it."""
        from goodfit.devices import sum_dtype

        return outputs.to(sum_dtype(outputs.device)) * self.std + self.mean

    def from_unit(self, targets: "Tensor") -> "Tensor":
        """Turn targets into what a model should put out, float32."""
        return (targets - self.mean) / self.std


@dataclass(frozen=True)
class Dataset:
    """Labelled data ready for training: encoded parts, and the splits that were chosen from them."""

    name: str
    task: Task
    classes: tuple[str, ...]
    transform: "Transform"
    parts: dict[SplitName, Part]  # their inputs encoded: what a Split has
    splits: dict[SplitName, Split]
    notes: tuple[str, ...] = ()

    @property
    def train(self) -> Split:
        """The training split."""
        return self.splits["train"]

    @property
    def num_outputs(self) -> int:
        """How many numbers a model of these data gives per example: one per class, or one value."""
        return len(self.classes) or 1

    def _repr_html_(self) -> str:
        """Return a table of how many examples each split has, in all and of each class; a notebook shows it."""
        from goodfit.html import table

        splits = {name: self.splits[name] for name in get_args(SplitName) if name in self.splits}
        rows = [["all", *(f"{len(split):,}" for split in splits.values())]]
        for index, name in enumerate(self.classes[:MOST_ROWS]):
            rows.append([name, *(f"{int((split.targets == index).sum()):,}" for split in splits.values())])
        left_out = len(self.classes) - MOST_ROWS
        more = f"; {left_out:,} more classes are left out" if left_out > 0 else ""
        return table(rows, ["examples", *splits], f"{self.name}: {self.task} from inputs of {self.transform.input_shape}{more}")

    @cached_property
    def target_scale(self) -> TargetScale:
        """The scale of a regression's targets; the identity for classes and for a constant target."""
        if self.task == "classification":
            return TargetScale()
        targets = self.train.targets.double()
        return TargetScale(float(targets.mean()), float(targets.std(correction=0)) or 1.0)

    @cached_property
    def fingerprint(self) -> str:
        """The same for the same data, however they are split: see `fingerprint`."""
        return fingerprint(self.task, self.classes, self.parts)


def fingerprint(task: Task, classes: tuple[str, ...], parts: dict[SplitName, Part]) -> str:
    """Return a SHA-256 over task, classes, and the encoded inputs and targets of every part.

    Pictures count by their own digests, which those that stay in their files are known by. Of inputs that the user's own code
    reads it holds the first few.
    """
    import torch

    from goodfit.data.picture_files import PictureFiles
    from goodfit.inputs import tensors

    digest = sha256(repr((task, classes)).encode())
    for name, part in sorted(parts.items()):
        is_store = isinstance(part.inputs, torch.Tensor | PictureFiles)
        inputs = [part.inputs] if is_store else tensors(part.inputs.head(range(len(part.inputs)), EXAMPLES)[0])
        for store in inputs:
            digest.update(f"{name} {tuple(store.shape)} {store.dtype}".encode())
        digest.update(_bytes(part.targets))
        for store in inputs:
            if isinstance(store, PictureFiles):
                digest.update(store.survey.digests.data)
            elif store.dtype == torch.uint8 and store.ndim == 4:
                for picture in store.flatten(1).numpy():
                    digest.update(sha256(picture.data).digest())
            else:
                digest.update(_bytes(store))
    return digest.hexdigest()


def _bytes(tensor: "Tensor") -> memoryview:
    import torch

    return tensor.contiguous().view(torch.uint8).numpy().data
