"""A user's own data set as a place to read batches from: what its batches mean, and the targets of all its examples."""

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Subset

from goodfit.data.iterables import IterableReader
from goodfit.data.reading import MapReader, Workers, listed
from goodfit.data.samplers import list_batches
from goodfit.data.targets import advice_on
from goodfit.errors import DataError, kind_of
from goodfit.inputs import Inputs, apply, tensors

__all__ = ["TARGET_NAMES", "Examples", "Labels", "Progress", "Sampling", "rows_of_batch", "separate"]

TARGET_NAMES = ("label", "labels", "target", "targets", "y")  # of a dict's entry
STORED_TARGETS = ("targets", "labels", "y")  # of a data set's attribute
READ_AT_ONCE = 64  # examples, where the targets are learned

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Sampling:
    """How batches are made of the examples: by goodfit's own order, or by a sampler of the user's."""

    shuffles: bool = True
    drop_last: bool = False
    batch_sampler: Iterable[list[int]] | None = None  # the user's own, which is used as it is

    @property
    def order(self) -> str:
        """What the user's order is, empty for goodfit's: each epoch shuffled anew, with every example once."""
        if self.batch_sampler is not None:
            return "that of a sampler"
        if not self.shuffles:
            return "every epoch alike"
        return "the last short batch left out" if self.drop_last else ""


@dataclass(frozen=True, eq=False)
class Labels:
    """The numbers that a data set gives as labels, and the class that each one means."""

    values: Tensor  # (K,) ascending
    classes: Tensor  # (K,) int64 class index

    def lookup(self, labels: Tensor, indices: Sequence[int], name: str) -> Tensor:
        """Return the class indices (N,) of the labels (N,) of examples; raise DataError for a label that is unknown."""
        places = torch.searchsorted(self.values, labels.to(self.values.dtype)).clamp_(max=len(self.values) - 1)
        wrong = self.values[places] != labels
        if wrong.any():
            at = int(wrong.int().argmax())
            known = ", ".join(map(str, self.values[:10].tolist())) + (", ..." if len(self.values) > 10 else "")
            raise DataError(
                f"{name}: example {indices[at]} has the label {labels[at].item()}, and the labels are {known}; correct it"
            )
        return self.classes[places]


@dataclass(frozen=True, eq=False)
class Examples:
    """Examples that the user's code reads, and prepares for the model.

    A batch is (inputs, targets), more inputs before the targets, or a dict with the targets under one of TARGET_NAMES.
    """

    reader: MapReader | IterableReader
    sampling: Sampling = field(default_factory=Sampling)
    labels: Labels | None = None  # None for numbers to predict

    def __len__(self) -> int:
        return len(self.reader)

    @property
    def name(self) -> str:
        """What the data set is called."""
        return self.reader.name

    @property
    def source(self) -> Any:
        """The user's own object that the examples come from."""
        return self.reader.data_set if isinstance(self.reader, MapReader) else self.reader.source

    @property
    def can_be_split(self) -> bool:
        """Whether any of the examples may be left out: not where the order is the user's own, or only one pass gives it."""
        return isinstance(self.reader, MapReader) and self.sampling.batch_sampler is None

    def stream(
        self, batches: Sequence[Sequence[int]], seed: int = 0, epoch: int = 0
    ) -> Generator[tuple[Inputs, Tensor], None, None]:
        """Give inputs and targets of each index batch, in order: class indices int64, or values float32.

        An example depends on (seed, epoch, index) alone. Raises DataError for what the data set cannot give, and RunError
        where a process that reads dies or takes too long.
        """
        with closing(self._read(batches, seed, epoch)) as read:
            for indices, (inputs, targets) in zip(batches, read, strict=True):
                yield inputs, self.labels.lookup(targets, indices, self.name) if self.labels else targets.float()

    @cached_property
    def first(self) -> Inputs:
        """The inputs of the first example, as a batch of one."""
        return self.head(range(len(self)), 1)[0]

    @cached_property
    def own_batches(self) -> list[Tensor]:
        """The index batches that the user's own sampler gives when it is first asked."""
        assert self.sampling.batch_sampler is not None
        return list_batches(self.sampling.batch_sampler, len(self), self.name, seed=0, epoch=0)

    def head(self, rows: Sequence[int], count: int, seed: int = 0) -> tuple[Inputs, Tensor]:
        """Return inputs and targets of the first `count` of `rows`, read in this process."""
        examples = self._here()
        with closing(examples.stream(examples.reader.in_order(rows, count)[:1], seed)) as batches:
            inputs, targets = next(batches)
        return apply(lambda tensor: tensor[:count], inputs), targets[:count]

    def reordered(self, places: Tensor) -> "Examples":
        """Return the same with class number k as number places[k]."""
        assert self.labels
        return replace(self, labels=replace(self.labels, classes=places[self.labels.classes]))

    def measured(
        self, progress: Progress | None = None, self_test: Callable[[Inputs], None] | None = None
    ) -> tuple["Examples", Tensor]:
        """Return the examples with their number known, and their targets (N,) as the data set gives them.

        Targets that the data set holds in an attribute are taken where they are those of its examples; otherwise all examples
        are read once, and `self_test` is shown the inputs of the first batch. Raises DataError for targets that are no numbers.
        """
        stored = _stored_targets(self.reader.data_set) if isinstance(self.reader, MapReader) else None
        if stored is not None and self._agree(stored):
            return self, stored
        found: list[Tensor] = []
        total, done = len(self), 0
        with closing(self._read_all()) as batches:
            for inputs, targets in batches:
                if self_test and not found:
                    self_test(inputs)
                found.append(targets)
                done += len(targets)
                if progress:
                    progress("reading labels", done, max(total, done))
        if not done:
            raise DataError(f"{self.name} has no examples; add some, or name other data")
        targets = torch.cat(found)
        if isinstance(self.reader, MapReader):
            return self, targets
        reader = self.reader.measured([len(some) for some in found])
        own = [list(batch) for batch in reader.in_order(range(done), READ_AT_ONCE)] if reader.gives_batches else None
        return replace(self, reader=reader, sampling=replace(self.sampling, batch_sampler=own)), targets

    def _here(self) -> "Examples":
        """The same without processes to read them."""
        return replace(self, reader=replace(self.reader, workers=Workers())) if isinstance(self.reader, MapReader) else self

    def _agree(self, stored: Tensor) -> bool:
        """Whether the first, the middle and the last example have these targets."""
        places = sorted({0, len(self) // 2, len(self) - 1})
        given = [targets for _, targets in self._here()._read([[place] for place in places], 0, 0)]
        return len(stored) == len(self) and torch.equal(torch.cat(given).double(), stored[places].double())

    def _read_all(self) -> Generator[tuple[Inputs, Tensor], None, None]:
        if isinstance(self.reader, MapReader):
            yield from self._read(self.reader.in_order(range(len(self)), READ_AT_ONCE), 0, 0)
            return
        with closing(self.reader.read_all(READ_AT_ONCE)) as batches:
            for batch in batches:
                yield separate(batch, self.name)

    def _read(self, batches: Sequence[Sequence[int]], seed: int, epoch: int) -> Generator[tuple[Inputs, Tensor], None, None]:
        with closing(self.reader.read(batches, seed, epoch)) as collated:
            for indices, batch in zip(batches, collated, strict=True):
                inputs, targets = separate(batch, f"{self.name}, {listed(indices)}")
                if len(targets) != len(indices):
                    raise DataError(
                        f"{self.name} gives {len(targets)} examples for the {len(indices)} of the batch of {listed(indices)}; "
                        "let the collate function keep every example, and leave out of the data set what cannot be used"
                    )
                yield inputs, targets


def separate(batch: Any, name: str) -> tuple[Inputs, Tensor]:
    """Tell inputs from targets in a collated batch; raise DataError where it is of none of the forms."""
    inputs: Any = None
    targets: Any = None
    if isinstance(batch, Mapping):
        keys = [key for key in batch if key in TARGET_NAMES]
        if len(keys) == 1:
            inputs, targets = {key: value for key, value in batch.items() if key not in keys}, batch[keys[0]]
    elif isinstance(batch, Sequence) and not isinstance(batch, str) and len(batch) >= 2:
        inputs, targets = (batch[0] if len(batch) == 2 else batch[:-1]), batch[-1]
    found = _inputs(inputs)
    if found is not None and isinstance(targets, list | tuple) and targets and isinstance(targets[0], str):
        raise DataError(
            f"{name} gives the label {targets[0]!r:.80}, and a class is a whole number; give its place in a list of the classes"
        )
    if found is None or not isinstance(targets, Tensor):
        raise DataError(
            f"{name} gives batches of {_describe(batch)}; give (inputs, target), several inputs before the target, or a dict "
            f"with the target under one of {', '.join(TARGET_NAMES)}: all of them numbers or tensors"
        )
    lengths = {len(tensor) if tensor.ndim else 0 for tensor in (*tensors(found), targets)}
    if len(lengths) != 1:
        raise DataError(f"{name} gives batches of {_describe(batch)}; give every tensor one row for each example")
    if targets.ndim == 2 and targets.shape[1] == 1:
        targets = targets[:, 0]
    if targets.ndim == 2 and all(tensor.shape[:2] == targets.shape for tensor in tensors(found)):
        raise DataError(
            f"{name} gives a batch of {targets.shape[1]} for each example; give single ones, or an iterable of the batches"
        )
    if targets.ndim != 1 or targets.is_complex():
        raise DataError(
            f"{name} gives targets of shape {tuple(targets.shape)}; {advice_on(targets.numpy())} "
            "(what mixes or smooths labels is train.label_smoothing, augment.mixup and augment.cutmix)"
        )
    return found, targets.long() if targets.dtype == torch.bool else targets


def rows_of_batch(item: Any, name: str) -> int:
    """Return the number of examples of an iterable's item that is a batch: two or more rows, and a target for each; else 0."""
    try:
        inputs, targets = separate(item, name)
    except DataError:
        return 0
    return len(targets) if len(targets) > 1 and all(tensor.ndim > 1 for tensor in tensors(inputs)) else 0


def _inputs(value: Any) -> Inputs | None:
    """Return what can be a model's inputs; a tuple of one tensor is that tensor."""
    if isinstance(value, Tensor):
        return value
    parts = list(value.values()) if isinstance(value, Mapping) else value
    if not isinstance(parts, tuple | list) or not parts or not all(isinstance(part, Tensor) for part in parts):
        return None
    if isinstance(value, Mapping):
        return dict(value)
    return tuple(parts) if len(parts) > 1 else parts[0]


def _describe(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {_describe(part)}" for key, part in value.items()) + "}"
    if isinstance(value, tuple | list) and len(value) <= 8 and any(isinstance(part, Tensor | tuple | list) for part in value):
        return "(" + ", ".join(map(_describe, value)) + ")"
    if isinstance(value, tuple | list) and value:
        return f"{kind_of(value)} of {type(value[0]).__name__}"
    return kind_of(value)


def _stored_targets(data_set: Any) -> Tensor | None:
    """Return the targets that a data set holds as an attribute, if it has no code that changes them."""
    if isinstance(data_set, Subset):
        whole = _stored_targets(data_set.dataset)
        return whole[list(data_set.indices)] if whole is not None else None
    if getattr(data_set, "target_transform", None) is not None:
        return None
    for name in STORED_TARGETS:
        values = getattr(data_set, name, None)
        if isinstance(values, list | Tensor) or hasattr(values, "__array__"):
            try:
                targets = torch.as_tensor(values)
            except (TypeError, ValueError, RuntimeError):
                continue
            if targets.ndim == 1 and not targets.is_complex():
                return targets.long() if targets.dtype == torch.bool else targets
    return None
