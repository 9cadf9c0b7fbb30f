"""Checkpoints: a RunState on disk, whole or not there.

`checkpoints/step-<n>/` holds `state.safetensors` and `state.json`; `manifest.json`, with the size and SHA-256 of both and
of itself, is written last. A folder without a right manifest is not a checkpoint.
"""

import json
import shutil
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from goodfit.artefacts.document import check_tensor_table, parse_finite
from goodfit.artefacts.host_copy import HostCopy
from goodfit.artefacts.tensor_file import data_chunks, header
from goodfit.errors import FileError, RunError
from goodfit.files import Buffer, file_sha256, sync_folder, write_atomically
from goodfit.training.state import RunState

__all__ = [
    "Checkpoint",
    "Snapshot",
    "find_checkpoints",
    "newest_checkpoint",
    "newest_step",
    "remove_old",
    "save_checkpoint",
    "whole_checkpoints",
]

FORMAT = 1
MAX_MANIFEST = 1 << 14  # characters; a real one has some 400
FILES = ("state.safetensors", "state.json")
BEFORE = ".before"  # ends the name of a whole checkpoint while another of its step is written


class _DamagedError(FileError):
    """A checkpoint that is not whole; the one before may be."""


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint on disk; `seconds` is how long the run had been training."""

    path: Path
    step: int
    seconds: float

    def restore(self, state: RunState) -> None:
        """Load this checkpoint into `state`; raise FileError if it does not fit."""
        try:
            check_tensor_table(self.path / "state.safetensors")
            values = parse_finite((self.path / "state.json").read_text(encoding="ascii"))
            state.load(load_file(self.path / "state.safetensors"), values)
        except (OSError, OverflowError, RecursionError, ValueError, SafetensorError) as error:
            raise FileError(
                f"cannot read the checkpoint {str(self.path)!r}: {error!s:.300}; was it changed by hand?"
            ) from error


@dataclass(frozen=True)
class Snapshot:
    """A copy of a RunState, which later steps do not change; `seconds` is how long the run had been training."""

    step: int
    seconds: float
    tensors: dict[str, Tensor] = field(repr=False)
    values: dict[str, Any] = field(repr=False)

    @classmethod
    def take(cls, state: RunState, seconds: float, copy: HostCopy, now: Container[str] | None = None) -> "Snapshot":
        """Copy `state` into the buffers of `copy`; the next snapshot taken with them overwrites this one.

        Where `now` is given, the tensors with other names are copied by `copy.finish`.
        """
        return cls(state.step, seconds, copy.take(state.tensors(), now), deepcopy(state.values()))


def save_checkpoint(folder: Path, snapshot: Snapshot) -> Checkpoint:
    """Write `snapshot` into `folder`/step-<n>; raise RunError where the disk does not take it."""
    path = folder / f"step-{snapshot.step}"
    contents: dict[str, list[Buffer]] = {
        "state.safetensors": [header(snapshot.tensors), *data_chunks(snapshot.tensors)],
        "state.json": [json.dumps(snapshot.values, indent=1, allow_nan=False).encode()],
    }
    before = path.with_name(path.name + BEFORE)
    with _saying(path):
        for place in (path, before):
            if place.is_symlink():
                place.unlink()  # else the files would be written wherever it leads
        if _is_whole(path):  # one of the same step, such as from before its evaluation: it stays until this one is whole
            _remove(before)
            path.replace(before)
        path.mkdir(parents=True, exist_ok=True)
        (path / "manifest.json").unlink(missing_ok=True)
    for name, pieces in contents.items():
        write_atomically(path / name, pieces)
    files = {name: _listed(pieces) for name, pieces in contents.items()}
    manifest: dict[str, Any] = {"format": FORMAT, "step": snapshot.step, "files": files, "clock": {"seconds": snapshot.seconds}}
    manifest["sha256"] = _manifest_sha256(manifest)
    write_atomically(path / "manifest.json", json.dumps(manifest, indent=1))
    with _saying(path):
        sync_folder(folder)
    for other in find_checkpoints(folder):
        # Later ones were damaged, so that the run went back behind them.
        if _step(other) > snapshot.step or other.name.endswith(BEFORE):
            _remove(other)
    return Checkpoint(path, snapshot.step, snapshot.seconds)


def _is_whole(path: Path) -> bool:
    try:
        _verify(path)
    except FileError:
        return False
    return True


@contextmanager
def _saying(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(f"cannot write the checkpoint {str(path)!r}: {error.strerror}; free space and resume") from error


def _listed(pieces: Iterable[Buffer]) -> dict[str, Any]:
    """Return a file's size and checksum, as the manifest has them."""
    digest, size = sha256(), 0
    for piece in pieces:
        digest.update(piece)
        size += len(piece)
    return {"bytes": size, "sha256": digest.hexdigest()}


def find_checkpoints(folder: Path) -> list[Path]:
    """Return the folders that claim to be checkpoints, oldest first; a link to a folder elsewhere is none."""
    found = [path for path in folder.glob("step-*") if path.is_dir() and not path.is_symlink()]
    return sorted((path for path in found if _step(path) >= 0), key=lambda path: (_step(path), not path.name.endswith(BEFORE)))


def _step(path: Path) -> int:
    """Return the step that a folder is named for, -1 if it is named for none."""
    number = path.name.removeprefix("step-").removesuffix(BEFORE)
    return int(number) if number.isdecimal() else -1


def newest_step(folder: Path) -> int:
    """Return the step of the newest checkpoint in `folder`, 0 if there is none, without looking into it."""
    found = find_checkpoints(folder)
    return _step(found[-1]) if found else 0


def newest_checkpoint(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """Return the newest complete checkpoint in `folder`, and what is wrong with those that are newer.

    Raises FileError for one that is whole and in the format of a newer goodfit: going back would undo its work.
    """
    damage: list[str] = []
    for path in reversed(find_checkpoints(folder)):
        try:
            return _verify(path), damage
        except _DamagedError as error:
            damage.append(str(error))
    return None, damage


def whole_checkpoints(folder: Path) -> tuple[list[Checkpoint], list[str]]:
    """Return the complete checkpoints in `folder`, oldest first, and what is wrong with the others."""
    whole, damage = [], []
    for path in find_checkpoints(folder):
        try:
            whole.append(_verify(path))
        except _DamagedError as error:
            damage.append(str(error))
    return whole, damage


def _verify(path: Path) -> Checkpoint:
    try:
        with (path / "manifest.json").open(encoding="utf-8", newline="") as file_of_sums:
            text = file_of_sums.read(MAX_MANIFEST)  # what is longer is cut, and so not JSON
        manifest = json.loads(text)
        # Compared as text too, so that a byte that JSON does not care about is noticed like any other.
        if manifest["sha256"] != _manifest_sha256(manifest) or text != json.dumps(manifest, indent=1):
            raise _DamagedError(f"the checkpoint {str(path)!r} is damaged: manifest.json does not match its own SHA-256")
        if manifest["format"] != FORMAT:
            raise FileError(f"the checkpoint {str(path)!r} has format {manifest['format']!r:.40}, not {FORMAT}; update goodfit")
        for name in FILES:
            file, listed = path / name, manifest["files"][name]
            if file.stat().st_size != listed["bytes"] or file_sha256(file) != listed["sha256"]:
                raise _DamagedError(f"the checkpoint {str(path)!r} is damaged: {name} does not match its SHA-256")
        if manifest["step"] != _step(path):
            raise _DamagedError(f"the checkpoint {str(path)!r} holds step {manifest['step']!r:.40}, not that of its name")
        return Checkpoint(path, manifest["step"], float(manifest["clock"]["seconds"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise _DamagedError(f"the checkpoint {str(path)!r} is not complete: {error!s:.200}") from error


def _manifest_sha256(manifest: dict[str, Any]) -> str:
    rest = {key: value for key, value in manifest.items() if key != "sha256"}
    return sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def remove_old(folder: Path, keep: int | Literal["best", "all"], best_step: int | None) -> None:
    """Remove checkpoints beyond the newest `keep`; "best" keeps the newest and the one with the best validation loss."""
    found = find_checkpoints(folder)
    paths = [path for path in found if (path / "manifest.json").is_file()]  # half a checkpoint takes no place of a whole one
    kept = paths[-keep:] if isinstance(keep, int) else paths
    if keep == "best":
        kept = [path for path in paths if path.name == f"step-{best_step}"] + paths[-1:]
    for path in found:
        if path not in kept:
            _remove(path)


def _remove(path: Path) -> None:
    """Remove a checkpoint, the manifest first, so that half a removal leaves none; one that cannot be removed stays."""
    with suppress(OSError):
        (path / "manifest.json").unlink(missing_ok=True)
        shutil.rmtree(path, ignore_errors=True)
