"""What a DATA argument can be: a name, a folder, a table, an .npz, or objects in memory; a name beats a path."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from goodfit.config import DataConfig, TransformConfig
from goodfit.data.dataset import Part, RawData, Task
from goodfit.data.transforms import Transform
from goodfit.errors import ConfigError, DataError

__all__ = ["Like", "Progress", "is_name", "match_classes", "read_data"]

Progress = Callable[[str, int, int], None]  # what is being done, how much of it is, out of how much

TABLES = (".csv", ".tsv", ".parquet")
GIGABYTE = 10**9


@dataclass(frozen=True)
class Like:
    """A trained model's side of the data: what they must be like to be given to it."""

    transform: Transform
    task: Task
    classes: tuple[str, ...]
    target: str | None = None  # the column that it learned


def is_name(data: str) -> bool:
    """Whether `data` is the name of a data set."""
    from goodfit.data.named import NAMED

    return data in NAMED


def read_data(
    data: Any, config: DataConfig, transform: TransformConfig, progress: Progress | None = None, like: Like | None = None
) -> RawData:
    """Read whatever `data` is; `like` asks for the form and the classes of a trained model.

    Raises DataError for data that do not exist, are of no known kind, or cannot be read.
    """
    if not isinstance(data, str | Path):
        raw = _read_memory(data, config, like)
    elif isinstance(data, str) and is_name(data):
        from goodfit.data.named import read_named

        raw = read_named(data, Path(config.root) if config.root else None, config.download)
    else:
        raw = _read_path(data, config, progress, like)
    if like:
        return match_classes(raw, like)
    return replace(raw, fit=_with_overrides(raw, transform))


def _read_path(data: str | Path, config: DataConfig, progress: Progress | None, like: Like | None) -> RawData:
    path = Path(data)
    if not path.exists():
        raise DataError(_not_found(str(data)))
    if path.is_dir():
        from goodfit.data.folder import read_folder
        from goodfit.data.image_transform import ImageTransform

        return read_folder(
            path,
            image_size=config.image_size,
            skip_bad=config.skip_bad,
            processes=config.processes,
            budget=round(config.budget * GIGABYTE) or None,
            progress=(lambda done, total: progress("decoding pictures", done, total)) if progress else None,
            transform=like.transform if like and isinstance(like.transform, ImageTransform) else None,
        )
    task = like.task if like else None if config.task == "auto" else config.task
    classes = like.classes if like else None
    if path.suffix.lower() in TABLES:
        from goodfit.data.table import read_table

        return read_table(path, config.target or (like.target if like else None), task, classes)
    if path.suffix.lower() == ".npz":
        from goodfit.data.arrays import read_npz

        return read_npz(path, task, classes, config.target or None)
    raise DataError(
        f"{str(data)!r} is not a kind of data that goodfit reads; give a folder of class folders, a table "
        f"({' '.join(TABLES)}), an .npz, or a name from `goodfit datasets`"
    )


def _read_memory(data: Any, config: DataConfig, like: Like | None) -> RawData:
    from goodfit.data.arrays import read_arrays

    task = like.task if like else None if config.task == "auto" else config.task
    return read_arrays(data, task, like.classes if like else None)


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
    if not isinstance(raw.parts["train"].inputs, torch.Tensor):
        raise ConfigError(
            f"transform.mean and transform.std are for pictures and tensors, and {raw.name} is a table; leave them out"
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
    parts = {name: Part(part.inputs, place[part.targets], part.names) for name, part in raw.parts.items()}
    return replace(raw, classes=like.classes, parts=parts)
