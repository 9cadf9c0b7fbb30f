"""Class folders: `<class>/*.jpg`, or `train/<class>/*.jpg` with `val` and `test` beside `train`.

Their pictures are a memory-mapped store where they fit on the disk decoded, else PictureFiles.
"""

import math
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from goodfit.data.cache import DecodedPictures, allowed_bytes, cache_directory, decode_pictures
from goodfit.data.dataset import Part, RawData, SplitName
from goodfit.data.image_transform import ImageTransform, fit_image_transform
from goodfit.data.images import FORMATS, SUFFIXES, Geometry, printable
from goodfit.data.picture_files import PictureFiles
from goodfit.data.survey import Survey
from goodfit.data.targets import check_classes
from goodfit.errors import DataError
from goodfit.inputs import SelfTest, drawn_batch

__all__ = ["SPLIT_NAMES", "find_pictures", "read_folder", "read_samples"]

SPLIT_NAMES: dict[str, SplitName] = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
CLUTTER = {"thumbs.db", "desktop.ini", "__macosx"}  # left by file managers, like names that begin with a dot

Classes = dict[str, list[str]]  # the names of each class's pictures, relative to the data folder


def read_folder(
    path: Path,
    *,
    image_size: int = 0,
    skip_bad: bool = False,
    processes: int = 0,
    budget: int | None = None,
    timeout: float = 60.0,
    progress: Callable[[int, int], None] | None = None,
    transform: ImageTransform | None = None,
    self_test: SelfTest | None = None,
) -> RawData:
    """Read the pictures below `path`; the folders that they lie in are their classes.

    `image_size` is the side of the square that they become (0: see `choose_geometry`); where a trained model's `transform`
    is given they take its form, and need not have all its classes. A picture that cannot be read is an error unless
    `skip_bad`. `processes`, `budget` (bytes), `timeout` (seconds) and `progress` are those of `decode_pictures`;
    `self_test` is shown the form of the pictures before they are decoded. Raises DataError.
    """
    ignored: Counter[str] = Counter()
    parts = _list_parts(path, ignored)
    classes = _check_parts(path, parts, to_train=transform is None)
    found = decode_pictures(
        path,
        [name for part in parts.values() for name in _names(part)],
        wanted=transform.geometry if transform else image_size,
        num_training=len(_names(parts.get("train", {}))),
        processes=processes,
        budget=budget,
        timeout=timeout,
        progress=progress,
        self_test=_on_drawn(self_test, classes),
        or_survey=True,
    )
    notes = ["left out: " + ", ".join(f"{kind} ({count})" for kind, count in sorted(ignored.items()))] if ignored else []
    if found.unreadable:
        notes.append(_skip(found.unreadable, skip_bad))
        parts = {split: _without(part, found.unreadable) for split, part in parts.items()}
        _check_parts(path, parts, to_train=transform is None)
    store: Tensor | PictureFiles
    if isinstance(found, Survey):
        notes.append(_stay_in_files(found, budget))
        names = [name for part in parts.values() for name in _names(part)]
        store = PictureFiles(path.absolute(), names, found, processes, timeout)
    else:
        store = _map_pixels(found)
    loaded = _load_parts(parts, classes, store)
    return RawData(path.resolve().name, "classification", classes, loaded, fit_image_transform, tuple(notes))


def read_samples(
    root: Path,
    names: Sequence[str],
    wanted: int | Geometry,
    *,
    processes: int = 0,
    budget: int | None = None,
    timeout: float = 60.0,
    progress: Callable[[int, int], None] | None = None,
    self_test: SelfTest | None = None,
) -> Tensor | None:
    """Return the pictures `root/name` in their order: (N, C, H, W) uint8, memory-mapped.

    The arguments are those of `decode_pictures` and `read_folder`. Raises DataError for a picture that cannot be read; where
    an exact geometry is wanted, returns None for that and for a picture of another size.
    """
    decoded = decode_pictures(
        root,
        names,
        wanted=wanted,
        num_training=len(names),
        processes=processes,
        budget=budget,
        timeout=timeout,
        progress=progress,
        self_test=_on_drawn(self_test),
    )
    assert isinstance(decoded, DecodedPictures)
    if not decoded.unreadable:
        return _map_pixels(decoded)
    if isinstance(wanted, Geometry) and wanted.exact:
        return None
    first, count = next(iter(decoded.unreadable)), len(decoded.unreadable)
    more = f" ({count - 1} more cannot be read either)" if count > 1 else ""
    raise DataError(f"{decoded.unreadable[first]}{more}; replace what is damaged, or remove it")


def _on_drawn(self_test: SelfTest | None, classes: Sequence[str] = ()) -> Callable[[Geometry], None] | None:
    return (lambda geometry: self_test(classes, drawn_batch(geometry.shape))) if self_test else None


def find_pictures(path: Path) -> list[Path]:
    """Return the picture files below the folder `path`, sorted by name, without hidden ones."""
    return [path / name for name in sorted(_walk(path, "", Counter()))]


def _list_parts(path: Path, ignored: Counter[str]) -> dict[SplitName, Classes]:
    """Return the pictures of each split; all are "train" where there are no split folders. Count what is left out."""
    folders = _split_folders(path)
    if not folders:
        return {"train": _list_classes(path, "", ignored)}
    for name in _entries(path)[0]:
        if name not in folders.values():
            ignored[f"pictures in {name}, which is no split"] += sum(1 for _ in _walk(path / name, "", Counter()))
    return {split: _list_classes(path, f"{folders[split]}/", ignored) for split in ("train", "val", "test") if split in folders}


def _split_folders(path: Path) -> dict[SplitName, str]:
    """Return the folder of each split, or nothing where the folders are classes, one of which may well be "train"."""
    folders = _entries(path)[0]
    splits = [name for name in folders if name.casefold() in SPLIT_NAMES]
    found = {SPLIT_NAMES[name.casefold()]: name for name in splits}
    if len(splits) < len(folders) and not ("train" in found and len(found) > 1):
        return {}
    if len(found) < len(splits):
        raise DataError(
            f"{str(path)!r} has a split twice: {', '.join(splits)}; keep one folder for each of train, val and test"
        )
    return found


def _list_classes(path: Path, prefix: str, ignored: Counter[str]) -> Classes:
    """Return the pictures of each class folder in `path/prefix`; raise DataError unless all of them have some."""
    folder = path / prefix
    names, files = _entries(folder)
    classes = {name: sorted(_walk(folder / name, f"{prefix}{name}/", ignored)) for name in names}
    loose = sum(_is_picture(name) for name in files)
    if not any(classes.values()):
        has = f"{loose} picture{'s' * (loose > 1)} but no class folders" if loose else f"no pictures ({', '.join(FORMATS)})"
        raise DataError(
            f"{str(folder)!r} holds {has}; put them in one folder per class, such as {str(folder / 'cat' / '1.jpg')!r}"
        )
    empty = [name for name, pictures in classes.items() if not pictures]
    if empty:
        raise DataError(
            f"the class folder {str(folder / empty[0])!r} holds no pictures ({', '.join(FORMATS)}); fill or remove it"
        )
    if not prefix and len(names) == 1 and _entries(folder / names[0])[0]:
        raise DataError(
            f"{str(path)!r} holds one folder only; perhaps the class folders are in {str(folder / names[0])!r}: name that"
        )
    if loose:
        ignored["pictures outside the class folders"] += loose
    return classes


def _check_parts(path: Path, parts: dict[SplitName, Classes], *, to_train: bool) -> tuple[str, ...]:
    """Return the classes, those of the training split; raise DataError where the splits disagree or cannot be learned from."""
    for split, part in parts.items():
        if not _names(part):
            raise DataError(f"no picture of {split} in {str(path)!r} can be read; replace the files")
    if not to_train:
        return tuple(sorted({name for part in parts.values() for name in part}))
    if "train" not in parts:
        raise DataError(f"{str(path)!r} has {' and '.join(parts)} but no train folder; add it, or name the folder of one split")
    train = parts["train"]
    for split, part in parts.items():
        missing, extra = sorted(train.keys() - part.keys()), sorted(part.keys() - train.keys())
        if missing or extra:
            differences = [f"{split} has no {_list(missing)}"] * bool(missing) + [f"train has no {_list(extra)}"] * bool(extra)
            raise DataError(
                f"the class folders in {str(path)!r} disagree: {' and '.join(differences)}; give every split the same"
            )
    # With all three splits at hand none is taken from the training split, so one example of a class is enough.
    check_classes(list(train), [len(pictures) * (2 if len(parts) == 3 else 1) for pictures in train.values()])
    return tuple(train)


def _list(names: Sequence[str]) -> str:
    more = [f"{len(names) - 5} more"] * (len(names) > 5)
    return ", ".join([*map(repr, names[:5]), *more])


def _skip(unreadable: dict[str, str], skip_bad: bool) -> str:
    """Return the note on pictures that are left out, or raise DataError naming the first."""
    first, count = next(iter(unreadable)), len(unreadable)
    if skip_bad:
        return f"{count} unreadable picture{'s' * (count > 1)} skipped, the first: {printable(first)}"
    more = f" ({count - 1} more cannot be read either)" if count > 1 else ""
    raise DataError(f"{unreadable[first]}{more}; --set data.skip_bad=true goes on without {'them' if more else 'it'}")


def _stay_in_files(survey: Survey, budget: int | None) -> str:
    """Say that the pictures are not kept decoded, why, and what would change that."""
    _, height, width = survey.geometry.shape
    needed, allowed = survey.count * math.prod(survey.geometry.shape), allowed_bytes(cache_directory(), budget)
    return (
        f"{survey.count} pictures of {height} x {width} pixels take {needed / 1e9:.3g} GB decoded, and {allowed / 1e9:.3g} GB are "
        "allowed: they are read from their files in each epoch; to decode them once, allow more with "
        f"--set data.budget={math.ceil(needed / 1e8) / 10:g}"
    )


def _without(part: Classes, unreadable: dict[str, str]) -> Classes:
    return {name: [picture for picture in pictures if picture not in unreadable] for name, pictures in part.items()}


def _names(part: Classes) -> list[str]:
    return [name for pictures in part.values() for name in pictures]


def _load_parts(parts: dict[SplitName, Classes], classes: Sequence[str], store: Tensor | PictureFiles) -> dict[SplitName, Part]:
    """Return the parts as consecutive rows of the store of all pictures."""
    start, loaded = 0, dict[SplitName, Part]()
    for split, part in parts.items():
        names = _names(part)
        counts = torch.tensor([len(part.get(name, ())) for name in classes])
        targets = torch.repeat_interleave(torch.arange(len(classes)), counts)
        loaded[split] = Part(store[start : start + len(names)], targets, names)
        start += len(names)
    return loaded


def _map_pixels(decoded: DecodedPictures) -> Tensor:
    """Return the pixels (N, C, H, W) as a view of the file, which nobody may write to."""
    pixels = np.memmap(decoded.file, np.uint8, "r", shape=(decoded.count, *decoded.geometry.shape))
    with warnings.catch_warnings():
        # A private writable mapping would not need this, but Linux refuses one that is larger than the memory.
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        return torch.from_numpy(pixels)


def _walk(folder: Path, prefix: str, ignored: Counter[str], above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[str]:
    """Yield the names of the pictures below `folder`, links followed, with `prefix`; count the other files by suffix."""
    status = folder.stat()
    place = (status.st_dev, status.st_ino)
    if place in above:
        raise DataError(f"{str(folder)!r} is a link to a folder that it lies in; remove it")
    folders, files = _entries(folder)
    for name in files:
        if _is_picture(name):
            yield prefix + name
        else:
            suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122  60,000 names
            ignored[f"{suffix} files" if suffix else "files without a suffix"] += 1
    for name in folders:
        yield from _walk(folder / name, f"{prefix}{name}/", ignored, above | {place})


def _entries(folder: Path) -> tuple[list[str], list[str]]:
    """Return the names of the folders and of the files in `folder`, sorted and without hidden ones."""
    folders, files = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name.casefold() in CLUTTER:
                    continue
                if entry.is_dir():
                    folders.append(entry.name)
                elif entry.is_file() or entry.is_symlink():  # not a pipe, on which reading would wait for ever
                    files.append(entry.name)
    except OSError as error:
        raise DataError(f"the folder {str(folder)!r} cannot be read: {error.strerror}") from error
    return sorted(folders), sorted(files)


def _is_picture(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES  # noqa: PTH122  60,000 names
