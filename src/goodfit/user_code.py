"""Code that is not ours: how it is named, read, and blamed in one line with its own frames of the traceback."""

import inspect
import sys
import traceback
from dataclasses import dataclass
from hashlib import sha256
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import FrameType, FunctionType, ModuleType, TracebackType
from typing import Any, TypeVar

from goodfit.errors import GoodfitError, ModelError, unknown_name

__all__ = ["Source", "blame", "check_not_imported", "code_name", "is_code", "level_of_user", "load_code", "said", "source_of"]

E = TypeVar("E", bound=GoodfitError)

IMPORTING: list[str] = []  # files of the user's that are being run for what they define

MAX_SOURCE = 1 << 18  # characters of a class that a model file shows
LIBRARIES = ("goodfit", "torch", "torchvision", "contextlib", "importlib", "_frozen_importlib")


@dataclass(frozen=True)
class Source:
    """The text of a class or function, for the reader's eyes: it is never run; and its SHA-256."""

    sha256: str
    text: str


def is_code(name: str) -> bool:
    """Whether `name` is one that `code_name` gives: of code that runs only when the user names it."""
    return ":" in name


def code_name(thing: Any) -> str:
    """Return what a class or function is called from outside, such as "net.py:Net"; no path of this machine."""
    module = sys.modules.get(thing.__module__)
    file = getattr(module, "__file__", None)
    in_one_file = file is not None and "." not in thing.__module__
    return f"{Path(file).name if in_one_file and file else thing.__module__}:{thing.__qualname__}"


def source_of(thing: Any) -> Source | None:
    """Return the text that defines a class or function, None where there is none to be read (a notebook's class)."""
    try:
        text = inspect.getsource(thing)
    except (OSError, TypeError):
        return None
    return Source(sha256(text.encode()).hexdigest(), text) if len(text) <= MAX_SOURCE else None


def load_code(name: str) -> Any:
    """Run the file of "path/net.py:Net" and return what it defines under that name; raise ModelError where it does not."""
    path_text, _, attribute = name.rpartition(":")
    path = Path(path_text)
    if path.suffix != ".py" or not path.is_file():
        raise ModelError(f"there is no Python file {path_text!r}; name a class in a file, such as --model net.py:Net")
    module = _run(path.resolve())
    found = getattr(module, attribute, None)
    if found is None:
        names = [key for key, value in vars(module).items() if isinstance(value, type | FunctionType) and key[0] != "_"]
        raise ModelError(f"{path_text}: {unknown_name('class or function', attribute, names)}")
    return found


def check_not_imported() -> None:
    """Raise ModelError where a file of the user's does its work while it is run for what it defines."""
    if IMPORTING:
        raise ModelError(
            f"{IMPORTING[-1]} is run for the model that it defines, and calls goodfit itself; put that call behind "
            'if __name__ == "__main__": or the model into a file of its own'
        )


def _run(path: Path) -> ModuleType:
    """Import a file as `python file.py` would, with its folder first on the path; the same file is run once."""
    name = f"goodfit_code_{path.stem}_{sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = spec_from_file_location(name, path)
    assert spec
    assert spec.loader
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    module = sys.modules[name] = module_from_spec(spec)
    IMPORTING.append(path.name)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        if isinstance(error, GoodfitError):
            raise
        raise blame(
            ModelError(f"{path.name} cannot be imported: {said(error)}; it must run by itself: python {path.name}"), error
        ) from error
    finally:
        IMPORTING.pop()
    return module


def said(error: BaseException) -> str:
    """Return an exception's kind and the first line of what it says."""
    first = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def blame(error: E, cause: BaseException) -> E:
    """Return `error`, caused by an exception of the user's code, whose traceback keeps the user's frames alone."""
    frames = _own_frames(cause.__traceback__)
    rebuilt: TracebackType | None = None
    for frame in reversed(frames):
        rebuilt = TracebackType(rebuilt, frame.tb_frame, frame.tb_lasti, frame.tb_lineno)
    error.__cause__ = cause.with_traceback(rebuilt)
    error.frames = "".join(traceback.format_tb(rebuilt))
    return error


def level_of_user() -> int:
    """Return the `stacklevel` with which the caller's warning points to the line of the user's that led to it."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back and _is_library(frame):
        level, frame = level + 1, frame.f_back
    return level


def _is_library(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0] in LIBRARIES


def _own_frames(first: TracebackType | None) -> list[TracebackType]:
    frames = []
    while first:
        if not _is_library(first.tb_frame):
            frames.append(first)
        first = first.tb_next
    return frames
