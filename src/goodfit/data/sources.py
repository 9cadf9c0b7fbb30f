"""What a DATA argument can be: a name, a folder, a table, an .npz, or objects in memory; a name beats a path."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from goodfit.config import DataConfig, TransformConfig
from goodfit.data.dataset import Part, RawData, Task
from goodfit.data.examples import Examples
from goodfit.data.picture_files import PictureFiles
from goodfit.data.table import TABLE_SUFFIXES
from goodfit.data.transforms import Transform
from goodfit.errors import ConfigError, DataError
from goodfit.inputs import SelfTest

__all__ = ["Like", "Progress", "is_name", "match_classes", "read_data"]

Progress = Callable[[str, int, int], None]  # what is being done, how much of it is, out of how much

MEMORY = "memory"  # stands in a configuration for data that were given as objects
GIGABYTE = 10**9


@dataclass(frozen=True)
class Like:
    """A trained model's side of the data: what they must be like to be given to it."""

    transform: Transform
    task: Task
    classes: tuple[str, ...]
    target: str | None = None  # the column that it learned


@dataclass(frozen=True)
class Request:
    """What is asked of a reader beside the data."""

    config: DataConfig
    progress: Progress | None = None
    like: Like | None = None
    self_test: SelfTest | None = None

    @property
    def task(self) -> Task | None:
        """The task that is asked for, None if the target is to say."""
        if self.like:
            return self.like.task
        return None if self.config.task == "auto" else self.config.task

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The classes of a trained model."""
        return self.like.classes if self.like else None

    @property
    def decoding(self) -> dict[str, Any]:
        """What `decode_pictures` is asked beside the pictures."""
        return {
            "processes": self.config.processes,
            "budget": round(self.config.budget * GIGABYTE) or None,
            "timeout": self.config.timeout,
            "progress": partial(self.progress, "decoding pictures") if self.progress else None,
            "self_test": self.self_test,
        }


def is_name(data: str) -> bool:
    """Whether `data` is the name of a data set."""
    from goodfit.data.named import NAMED

    return data in NAMED


def read_data(
    data: Any,
    config: DataConfig,
    transform: TransformConfig,
    progress: Progress | None = None,
    like: Like | None = None,
    self_test: SelfTest | None = None,
) -> RawData:
    """Read whatever `data` is; `like` asks for the form and the classes of a trained model.

    Where reading takes long, `self_test` is shown the form of the inputs before, and what it raises ends the reading. Raises
    DataError for data that do not exist, are of no known kind, or cannot be read, and ConfigError for settings that such data
    do not have.
    """
    kind = _kind(data)
    if like is None:
        _check_settings(str(data) if kind != "own" else "a data set", kind, config)
    elif kind == "table" and like.transform.to_json()["kind"] == "image":
        raise DataError(f"{str(data)!r} is a table, and the model was trained on pictures; give data of their kind")
    elif kind in ("name", "folder") and like.transform.to_json()["kind"] != "image":
        raise DataError(
            f"{str(data)!r} holds pictures, and the model was trained on numbers that it was given; give such, prepared as then"
        )
    raw = SOURCES[kind](data, Request(config, progress, like, self_test))
    if like:
        return match_classes(raw, like)
    return replace(raw, fit=_with_overrides(raw, transform))


def _kind(data: Any) -> str:
    """Say which of SOURCES `data` is; raise DataError if it is none."""
    if isinstance(data, str) and data == MEMORY:
        raise DataError("the run's data were given as Python objects; give them again, in Python, as data=")
    if not isinstance(data, str | Path):
        from goodfit.data.own import is_own

        return "own" if is_own(data) else "memory"
    if isinstance(data, str) and is_name(data):
        return "name"
    path = Path(data)
    if not str(data) or not path.exists():
        raise DataError(_not_found(str(data)))
    if path.is_dir():
        return "folder"
    if path.suffix.lower() in TABLE_SUFFIXES:
        return "table"
    if path.suffix.lower() == ".npz":
        return "npz"
    raise DataError(
        f"{str(data)!r} is not a kind of data that goodfit reads; give a folder of class folders, a table "
        f"({' '.join(TABLE_SUFFIXES)}), an .npz, or a name from `goodfit datasets`"
    )


def _check_settings(data: str, kind: str, config: DataConfig) -> None:
    """Raise ConfigError for a setting that would be without effect."""
    if config.target and kind not in ("table", "npz"):
        raise ConfigError(f"data.target = {config.target!r} is for tables, and {data!r} is none; leave it out")
    if config.image_size and kind != "folder":
        raise ConfigError(f"data.image_size = {config.image_size} is for picture folders, and {data!r} is none; leave it out")
    if config.task == "regression" and kind in ("name", "folder"):
        raise ConfigError(f"data.task = 'regression' is for numbers to predict, and {data!r} has classes; leave it out")


def _read_name(data: str, request: Request) -> RawData:
    from goodfit.data.named import read_named

    root = request.config.root
    return read_named(data, Path(root) if root else None, request.config.download, request.self_test)


def _read_folder(data: str | Path, request: Request) -> RawData:
    from goodfit.data.folder import read_folder
    from goodfit.data.image_transform import ImageTransform

    config, like = request.config, request.like
    return read_folder(
        Path(data),
        image_size=config.image_size,
        skip_bad=config.skip_bad,
        transform=like.transform if like and isinstance(like.transform, ImageTransform) else None,
        **request.decoding,
    )


def _read_table(data: str | Path, request: Request) -> RawData:
    from goodfit.data.table import read_table

    target = request.config.target or (request.like.target if request.like else None)
    return read_table(Path(data), target, request.task, request.classes)


def _read_npz(data: str | Path, request: Request) -> RawData:
    from goodfit.data.arrays import read_npz

    return read_npz(Path(data), request.task, request.classes, request.config.target or None)


def _read_memory(data: Any, request: Request) -> RawData:
    from goodfit.data.arrays import read_arrays

    return read_arrays(data, request.task, request.classes)


def _read_own(data: Any, request: Request) -> RawData:
    from goodfit.data.folder import read_samples
    from goodfit.data.own import read_own

    return read_own(
        data,
        request.task,
        request.classes,
        is_ready=_takes_ready_inputs(request.like.transform) if request.like else None,
        timeout=request.config.timeout,
        decode=partial(read_samples, **request.decoding),
        progress=request.progress,
        self_test=request.self_test,
    )


def _takes_ready_inputs(transform: Transform) -> bool:
    """Whether a model was trained on inputs that nothing was done to."""
    from goodfit.data.given_transform import GivenTransform
    from goodfit.data.tensor_transform import TensorTransform

    return isinstance(transform, GivenTransform) or (isinstance(transform, TensorTransform) and transform.is_identity)


# What a DATA argument can be.
SOURCES: dict[str, Callable[[Any, Request], RawData]] = {
    "name": _read_name,
    "folder": _read_folder,
    "table": _read_table,
    "npz": _read_npz,
    "memory": _read_memory,
    "own": _read_own,
}


def _not_found(data: str) -> str:
    """Say what a name or path that leads nowhere may have meant."""
    from difflib import get_close_matches

    from goodfit.data.named import NAMED

    near = get_close_matches(data, NAMED, n=1)
    hint = f"did you mean {near[0]}?" if near else "give a path that exists, or a name from `goodfit datasets`"
    return f"no data set and no path is called {data!r}; {hint}"


def _with_overrides(raw: RawData, transform: TransformConfig) -> Callable[..., Transform]:
    """Return the reader's `fit` with the configuration's mean and deviation in place of the fitted ones."""
    overrides = transform.model_dump(exclude_none=True)
    if not overrides:
        return raw.fit
    if not isinstance(raw.parts["train"].inputs, torch.Tensor | PictureFiles):
        what = "prepares its examples itself" if isinstance(raw.parts["train"].inputs, Examples) else "is a table"
        raise ConfigError(
            f"transform.mean and transform.std are for pictures and tensors, and {raw.name} {what}; leave them out"
        )

    def fit(inputs: Any, rows: torch.Tensor) -> Transform:
        fitted: Transform = raw.fit(inputs, rows, **overrides)
        return fitted

    return fit


def match_classes(raw: RawData, like: Like) -> RawData:
    """Return the data with their classes in the model's order, matched by name; raise DataError for one it does not know."""
    if raw.task != like.task:
        raise DataError(f"{raw.name} is for {raw.task}, and the model was trained for {like.task}; give data of its kind")
    if raw.classes == like.classes:
        return raw
    unknown = sorted(set(raw.classes) - set(like.classes))
    if unknown:
        raise DataError(
            f"{raw.name} has classes that the model does not know: {', '.join(unknown[:5])}; it knows {', '.join(like.classes[:10])}"
        )
    place = torch.tensor([like.classes.index(name) for name in raw.classes])
    parts = {}
    for name, part in raw.parts.items():
        inputs = part.inputs.reordered(place) if isinstance(part.inputs, Examples) else part.inputs
        parts[name] = Part(inputs, place[part.targets], part.names)
    return replace(raw, classes=like.classes, parts=parts)
