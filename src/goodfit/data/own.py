"""Data sets, DataLoaders and iterables of the user's own, read into stores where goodfit knows them, else as they are."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    default_collate,
)

from goodfit.data.compose import read_compose
from goodfit.data.dataset import Part, RawData, SplitName, Task
from goodfit.data.examples import TARGET_NAMES, Examples, Labels, Progress, Sampling, rows_of_batch
from goodfit.data.folder import SPLIT_NAMES, read_samples
from goodfit.data.given_transform import fit_given_transform
from goodfit.data.hugging_face import as_tensors, is_hugging_face
from goodfit.data.image_transform import ImageTransform
from goodfit.data.iterables import IterableReader
from goodfit.data.reading import Collate, MapReader, Workers
from goodfit.data.recognize import Decode, Recognized, class_names, read_labels, recognize, to_raw_data
from goodfit.data.samplers import list_batches
from goodfit.data.tensor_transform import as_array
from goodfit.data.transforms import Transform
from goodfit.errors import DataError, kind_of
from goodfit.inputs import SelfTest, tensors

__all__ = ["describe_inputs", "is_own", "read_own"]

SPLITS: tuple[SplitName, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class Given:
    """One part as it was given."""

    name: str
    data_set: Any  # map-style, or to be iterated
    collate: Collate = default_collate
    workers: Workers = field(default_factory=Workers)
    sampling: Sampling = field(default_factory=Sampling)
    batch_size: int | None = None  # of its DataLoader
    is_whole: bool = False  # no examples may be taken out of it
    gives_batches: bool = False
    notes: tuple[str, ...] = ()

    @property
    def is_map(self) -> bool:
        """Whether examples can be read by their index."""
        return _is_map(self.data_set) and not self.gives_batches

    @property
    def is_plain(self) -> bool:
        """Whether all that matters is which examples there are: goodfit's own loader gives the same."""
        return self.is_map and self.collate is default_collate and self.sampling == Sampling()

    def examples(self) -> Examples:
        """Return what reads the examples."""
        if self.is_map:
            data_set = as_tensors(self.data_set) if is_hugging_face(self.data_set) else self.data_set
            return Examples(MapReader(self.name, data_set, self.collate, self.workers), self.sampling)
        return Examples(IterableReader(self.name, self.data_set, self.gives_batches, self.collate), Sampling(shuffles=False))


def is_own(data: Any) -> bool:
    """Whether `data` is a data set, a loader or an iterable, or holds one for a split, rather than arrays."""
    if isinstance(data, Mapping):
        return any(is_own(part) for part in data.values())
    if isinstance(data, tuple | list):
        return len(data) != 2 and bool(data) and isinstance(data[0], tuple | dict)
    is_array = isinstance(data, str | bytes | Tensor) or hasattr(data, "__array__")
    return not is_array and (hasattr(data, "__getitem__") or hasattr(data, "__iter__"))


def read_own(
    data: Any,
    task: Task | None = None,
    classes: Sequence[str] | None = None,
    *,
    is_ready: bool | None = None,
    timeout: float = 60.0,
    decode: Decode = read_samples,
    progress: Progress | None = None,
    self_test: SelfTest | None = None,
) -> RawData:
    """Read a data set, a DataLoader or an iterable, or a mapping of them for train, val and test.

    `classes` are those of a trained model; `is_ready` says that it was trained on what the data's own code prepares (True),
    or on what goodfit does (False). `timeout` is for the DataLoader's processes, `decode` reads picture files, and
    `self_test` is shown the first batch of what has to be read through for its labels. Raises DataError for data that are
    empty, cannot be read, or cannot be learned from.
    """
    parts = {SPLIT_NAMES.get(name, name): part for name, part in data.items()} if isinstance(data, Mapping) else {"train": data}
    if not set(parts) <= set(SPLITS) or ("train" not in parts and classes is None):
        raise DataError(
            f"the data have the parts {', '.join(map(repr, parts))}; give 'train', and 'val' and 'test' if there are any"
        )
    given = {split: _take(split, parts[split], timeout) for split in SPLITS if split in parts}
    first = next(iter(given.values()))
    pictures = None if is_ready else decode  # which their own code prepares
    raw = _recognized(given, first.name, task, classes, pictures)
    if raw is None and is_ready is False:
        raise DataError(
            f"{first.name} prepares its examples by its own code, and the model prepares its inputs itself; "
            "give data of the kind that it was trained on"
        )
    if raw is None:
        raw = _as_they_are(given, first.name, task, classes, pictures, progress, self_test)
    settings, notes = dict(raw.settings), raw.notes
    train = given.get("train")
    if train:
        notes = (*notes, *train.notes)
        if train.batch_size:
            settings["train.batch_size"] = train.batch_size
        if train.is_whole and "val" not in given:
            settings["data.val"] = 0.0
            why = "has an order of its own, so no examples are taken out of it to validate on"
            notes = (*notes, f"{train.name} {why}: the curve is on test; give some with val=")
        if train.is_whole and "test" not in given and classes is None:
            raise DataError(
                f"{train.name} has an order of its own, so no examples are taken out of it to test on; give them with test="
            )
    return replace(raw, settings=settings, notes=notes)


def _take(split: SplitName, part: Any, timeout: float) -> Given:
    """Say what a part is; raise DataError if it is empty or nothing that can be read."""
    if isinstance(part, tuple | list) and not is_own(part):
        if len(part) != 2:
            raise DataError(f"{split} is {kind_of(part)} of {len(part)}; give a pair (X, y), a data set or a DataLoader")
        part = TensorDataset(*(torch.from_numpy(as_array(values, split).copy()) for values in part))
    if isinstance(part, DataLoader):
        found = _take_loader(split, part, timeout)
    elif is_own(part):
        found = _take_alone(part)
    else:
        raise DataError(f"{split} is {kind_of(part)}; give a data set, a DataLoader, or a pair (X, y)")
    if found.is_map:
        if not len(found.data_set):
            raise DataError(f"{found.name} has no examples for {split}; add some, or name other data")
        return found
    if not hasattr(found.data_set, "__iter__") and not isinstance(found.data_set, IterableDataset):
        raise DataError(f"{found.name} has no __len__; define it, so that it is known which examples there are")
    if hasattr(found.data_set, "__next__"):
        raise DataError(f"{found.name} can be read only once; give an object whose __iter__ begins anew, or a list")
    note = f"{found.name} can only be read in its own order, from its start"
    if not (hasattr(found.data_set, "state_dict") and hasattr(found.data_set, "load_state_dict")):
        note += ": a resumed run reads again what came before"
    return replace(found, is_whole=True, notes=(*found.notes, note))


def _take_alone(part: Any) -> Given:
    """Take what comes in no DataLoader: a data set, a list or an iterable of examples, or of whole batches."""
    name = _name(part)
    begins_anew = isinstance(part, list | tuple) or (
        hasattr(part, "__iter__") and not _is_map(part) and not hasattr(part, "__next__")
    )
    rows = 0
    if begins_anew:
        with closing(IterableReader(name, part, gives_batches=True).read_all(1)) as items:
            rows = next((rows_of_batch(item, name) for item in items), 0)
    if not rows:
        return Given(name, part)
    note = f"{name} gives whole batches, the first of {rows} examples: each is taken as it is"
    return Given(name, part, gives_batches=True, batch_size=rows, notes=(note,))


def _take_loader(split: SplitName, loader: "DataLoader[Any]", timeout: float) -> Given:
    """Take a DataLoader apart: data set, collate function, processes, and how it chooses the examples."""
    name, batch_size = _name(loader.dataset), loader.batch_size
    if isinstance(loader.dataset, IterableDataset) or type(loader).__iter__ is not DataLoader.__iter__:
        return Given(name, loader, gives_batches=True, batch_size=batch_size)
    if loader.batch_sampler is None:
        raise DataError(
            f"{name} is in a DataLoader with batch_size=None; give it a batch_size, or a sampler of batches as batch_sampler="
        )
    workers = Workers(
        loader.num_workers,
        loader.worker_init_fn,
        loader.multiprocessing_context,
        loader.prefetch_factor,
        loader.timeout or timeout,
    )
    found = Given(name, loader.dataset, loader.collate_fn, workers, batch_size=batch_size)
    if split != "train":
        return _restricted(found, loader)
    count, sampler = len(loader.dataset), loader.sampler  # type: ignore[arg-type]
    own_sampling = Sampling(batch_sampler=loader.batch_sampler)
    if batch_size is None:
        sizes = [len(batch) for batch in replace(found, sampling=own_sampling).examples().own_batches]
        if not sizes:
            raise DataError(f"{name} comes in a DataLoader whose batch_sampler gives no batches; correct it")
        return replace(found, sampling=own_sampling, batch_size=max(sizes), is_whole=True)
    if loader.drop_last and count < batch_size:
        raise DataError(
            f"{name} comes in a DataLoader that gives no batches: it has {count} examples, batch_size={batch_size} and "
            "drop_last=True; give it smaller batches"
        )
    sampling = Sampling(drop_last=loader.drop_last)
    if type(sampler) is SubsetRandomSampler:
        return replace(_restricted(found, loader), sampling=sampling, is_whole=True)
    if type(sampler) is RandomSampler and not sampler.replacement and sampler.num_samples == count:
        return replace(found, sampling=sampling)
    if type(sampler) is SequentialSampler:
        note = f"{name} comes in a DataLoader that does not shuffle, and every epoch has its order; give it shuffle=True"
        return replace(found, sampling=replace(sampling, shuffles=False), notes=(note,))
    return replace(found, sampling=own_sampling, is_whole=True)


def _restricted(found: Given, loader: "DataLoader[Any]") -> Given:
    """Return the examples that a loader's sampler names, each once, in ascending order."""
    own = (
        loader.batch_sampler if loader.batch_size is None else BatchSampler(loader.sampler, loader.batch_size, drop_last=False)
    )
    assert own is not None
    count = len(found.data_set)
    named = list_batches(own, count, found.name, seed=0, epoch=0)
    if not named:
        raise DataError(
            f"{found.name} comes in a DataLoader that gives no examples; give its sampler some, or leave the part out"
        )
    kept = torch.cat(named).unique().tolist()
    return found if len(kept) == count else replace(found, data_set=Subset(found.data_set, kept))


def _recognized(
    given: Mapping[SplitName, Given], name: str, task: Task | None, classes: Sequence[str] | None, decode: Decode | None
) -> RawData | None:
    """Return what is known by its type, None if any part is not, or is pictures and there is no `decode`."""
    if not all(part.is_plain for part in given.values()):
        return None
    known: dict[int, Recognized | None] = {}
    found = {split: recognize(part.data_set, known, decode or (lambda *_: None)) for split, part in given.items()}
    parts = {split: part for split, part in found.items() if part and (decode or part.inputs.dtype != torch.uint8)}
    return to_raw_data(parts, name, task, classes) if len(parts) == len(given) else None


def _as_they_are(
    given: Mapping[SplitName, Given],
    name: str,
    task: Task | None,
    classes: Sequence[str] | None,
    decode: Decode | None,
    progress: Progress | None,
    self_test: SelfTest | None,
) -> RawData:
    """Keep the parts as places to read from; learn how many examples they have, and their targets."""
    tests = {"train": partial(self_test, ())} if self_test else {}  # labels may be other than the names say
    measured = {split: part.examples().measured(progress, tests.get(split)) for split, part in given.items()}
    for examples, found in measured.values():
        _check_targets(examples, found, task)
    read = {split: examples for split, (examples, _) in measured.items()}
    _check_inputs(name, read)
    labels = {split: found for split, (_, found) in measured.items()}
    named = {split: _class_names(part.data_set) for split, part in given.items()}
    known = {split: names for split, names in named.items() if names and not _are_values(labels[split], task)}
    task, names, targets, reason = read_labels(name, labels, known, task, classes)
    reasons = (reason, *(_shortfall(given[split], examples) for split, examples in read.items()))
    parts = {}
    for split, (examples, found) in measured.items():
        if task == "classification":
            examples = replace(examples, labels=_labels(found, targets[split], len(names)))
        parts[split] = Part(examples, targets[split], _names(examples))
    travels = _travelling(given, read, decode) if decode else None
    if travels is None:
        notes = [*reasons, *dict.fromkeys(_note(part) for part in given.values())]
        return RawData(name, task, tuple(names), parts, fit_given_transform, tuple(filter(None, notes)))
    transform, whose = travels
    note = f"{name} is read through its own code for training; what travels with the model is the transform of {whose}"
    return RawData(name, task, tuple(names), parts, lambda *_: transform, tuple(filter(None, (*reasons, note))))


def _are_values(targets: Tensor, task: Task | None) -> bool:
    """Whether targets are numbers to predict, so that names of classes beside them are of no use."""
    return task == "regression" or (task is None and targets.is_floating_point())


def _shortfall(part: Given, examples: Examples) -> str:
    """Say where an iterable gives another number of items than its length promises."""
    if part.is_map or not hasattr(part.data_set, "__len__"):
        return ""
    try:
        promised = len(part.data_set)
    except TypeError:  # a DataLoader has a length, its iterable data set none
        return ""
    assert isinstance(examples.reader, IterableReader)
    found, unit = (len(examples.reader.sizes), "batches") if part.gives_batches else (len(examples), "examples")
    return f"{part.name} has a length of {promised} and gives {found} {unit}: these are an epoch" if promised != found else ""


def _travelling(
    given: Mapping[SplitName, Given], measured: Mapping[SplitName, Examples], decode: Decode
) -> tuple[Transform, SplitName] | None:
    """Return the preprocessing of pictures that are tested or validated on, if goodfit does the same; and whose it is.

    Training examples may be changed at random by the user's own code: what is done to pictures at prediction is this.
    """
    held_out: tuple[SplitName, ...] = ("test", "val")
    for split in held_out:
        found = recognize(given[split].data_set, {}, decode) if split in given and given[split].is_plain else None
        if found is None or not isinstance(found.transform, ImageTransform):
            continue
        first = measured[split].first
        stored = found.inputs[found.rows[:1]] if found.rows is not None else found.inputs[:1]
        if isinstance(first, Tensor) and first.shape[1:] == found.transform.input_shape:
            same = torch.allclose(found.transform.normalize(stored), first.float(), atol=1e-5)
            return (found.transform, split) if same else None
    return None


def _note(part: Given) -> str:
    """Say that the preprocessing stays behind, because of which code, and how it can be made to come along."""
    transform = getattr(_innermost(part.data_set), "transform", None)
    unread = read_compose(transform).unread if transform is not None else ()
    because = f" ({', '.join(unread)})" if unread else ""
    return (
        f"{part.name} prepares its examples by its own code{because}, which the model file does not hold: predict from what "
        "that code gives"
    )


def _names(examples: Examples) -> Sequence[str] | None:
    """Name the examples of a subset as those of the whole."""
    reader = examples.reader
    is_subset = isinstance(reader, MapReader) and isinstance(reader.data_set, Subset)
    return [f"example {reader.place(index)}" for index in range(len(examples))] if is_subset else None


def _labels(found: Tensor, indices: Tensor, count: int) -> Labels:
    """Tell which class each label means: the one that it counts, if all do."""
    if torch.equal(found.double(), indices.double()):
        return Labels(torch.arange(count), torch.arange(count))
    values, places = found.unique(return_inverse=True)
    return Labels(values, torch.zeros(len(values), dtype=torch.int64).scatter_(0, places, indices))


def _check_targets(examples: Examples, targets: Tensor, task: Task | None) -> None:
    whole = not targets.is_floating_point()
    wrong = targets < 0 if whole else ~targets.isfinite()
    if wrong.any() and not (whole and task == "regression"):
        index = int(wrong.int().argmax())
        wish = "a class, counted from 0 (for numbers to predict: data.task='regression')" if whole else "a finite number"
        raise DataError(
            f"{examples.name}: example {examples.reader.place(index)} has the target {targets[index].item()}, "
            f"which is not {wish}; correct it, or leave it out"
        )


def _check_inputs(name: str, parts: Mapping[SplitName, Examples]) -> None:
    """Raise DataError where the parts' first examples are not of one kind."""
    kinds = {split: describe_inputs(examples) for split, examples in parts.items()}
    if len(set(kinds.values())) > 1:
        listed = ", ".join(f"{split} {kind}" for split, kind in kinds.items())
        raise DataError(f"{name} has parts of different kinds: {listed}; give every part examples of one shape and type")


def describe_inputs(examples: Examples) -> str:
    """Say what the inputs of an example are, such as "image: uint8 (3, 32, 32)"."""
    first = examples.first
    shapes = [f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape[1:])}" for tensor in tensors(first)]
    names = [f"{name}: " for name in first] if isinstance(first, dict) else [""] * len(shapes)
    return ", ".join(name + shape for name, shape in zip(names, shapes, strict=True))


def _name(data_set: Any) -> str:
    return type(_innermost(data_set)).__name__


def _innermost(data_set: Any) -> Any:
    """Return what a loader or subsets are made of."""
    while isinstance(data_set, Subset | DataLoader):
        data_set = data_set.dataset
    return data_set


def _class_names(data_set: Any) -> tuple[str, ...] | None:
    """Return the names that a data set has for its classes; Hugging Face keeps them in the feature of the labels."""
    data_set = _innermost(data_set)
    if getattr(data_set, "target_transform", None) is not None:
        return None  # which makes other labels of them
    features = getattr(data_set, "features", None)
    labels = [features[name] for name in TARGET_NAMES if name in features] if isinstance(features, Mapping) else []
    named = next((getattr(feature, "names", None) for feature in labels), None)
    return class_names(data_set) or (tuple(named) if named else None)


def _is_map(data_set: Any) -> bool:
    return hasattr(data_set, "__getitem__") and hasattr(data_set, "__len__") and not isinstance(data_set, IterableDataset)
