"""Writing files so that a crash leaves the old one or the new one, never half of either."""

import errno
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from threading import Lock

from goodfit.errors import FileError, RunError

Buffer = bytes | memoryview
UNFINISHED = ".goodfit-new"  # ends the name of a folder that is being made
DAY = 86_400  # seconds

__all__ = [
    "Buffer",
    "PatientFile",
    "check_new_file",
    "check_new_folder",
    "file_sha256",
    "new_folder",
    "sync_folder",
    "write_atomically",
]


def write_atomically(path: Path, content: str | bytes | Iterable[Buffer]) -> None:
    """Replace `path` by `content`, whole or in pieces: temporary file beside it, fsync, rename, fsync of the folder.

    Raises RunError, naming the file, where the disk does not take it, and FileError for text that is not UTF-8, such as
    a file name of other bytes; the old file is then untouched.
    """
    pieces = _pieces(content, path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        advice = "choose another --out" if error.errno == errno.ENOENT else "free space or choose another --out"
        raise RunError(f"cannot write {str(path)!r}: {error.strerror}; {advice}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _pieces(content: str | bytes | Iterable[Buffer], path: Path) -> Iterable[Buffer]:
    if isinstance(content, str):
        return [_encode(content, path)]
    return [content] if isinstance(content, bytes) else content


def _encode(text: str, path: Path) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        line = text[: error.end].splitlines()[-1] + text[error.end :].partition("\n")[0]
        raise FileError(f"{line!r} is not UTF-8, as {path.name} must be; rename the file or folder") from error


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable; a no-op where folders cannot be opened (Windows)."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_new_file(path: Path) -> None:
    """Raise FileError if `path` exists, or the folder that it is to lie in does not."""
    if path.exists():
        raise FileError(f"the output {str(path)!r} exists; choose another --out")
    if not path.parent.is_dir():
        raise FileError(f"there is no folder {str(path.parent)!r} for the output {path.name}; choose another --out")


def check_new_folder(path: Path) -> None:
    """Raise FileError if `path` exists and is not an empty folder."""
    if path.is_dir() and any(path.iterdir()):
        raise FileError(f"the output folder {str(path)!r} exists and is not empty; choose another --out")
    if path.exists() and not path.is_dir():
        raise FileError(f"the output {str(path)!r} exists and is a file; choose another --out")


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes `path` by one rename, or vanishes if the block fails.

    An existing empty folder is replaced. Raises FileError if `path` exists and is not empty, or cannot be made or filled.
    """
    check_new_folder(path)
    missing = [parent for parent in path.parents if not parent.exists()]
    folder = path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_unfinished(path.parent)
        with tempfile.TemporaryDirectory(UNFINISHED, f".{path.name}.", path.parent, ignore_cleanup_errors=True) as temporary:
            folder = Path(temporary) / "new"
            folder.mkdir()
            yield folder
            sync_folder(folder)
            folder.replace(path)
            sync_folder(path.parent)
    except OSError as error:
        raise FileError(f"cannot make the output folder {str(path)!r}: {error.strerror}; choose another --out") from error
    except RunError as error:  # a file in it could not be written, and nothing has been started
        raise FileError(str(error).replace(str(folder), str(path))) from error
    finally:
        for parent in missing:  # what a failure leaves empty
            with suppress(OSError):
                parent.rmdir()


def _remove_unfinished(parent: Path) -> None:
    """Remove the folders that processes were making in `parent` when they were killed, a day ago or more."""
    for left in parent.glob(f".*{UNFINISHED}"):
        with suppress(OSError):  # another process removes it too, or has just finished it
            if time.time() - left.stat().st_mtime > DAY:
                shutil.rmtree(left, ignore_errors=True)


class PatientFile:
    """A file that is appended to; what a full disk does not take is kept, and written as soon as it can be."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("ab", buffering=0)
        self._lock = Lock()  # the thread that saves calls `sync`
        self._unwritten = b""

    def write(self, data: bytes) -> None:
        """Append `data`, now or later."""
        with self._lock, suppress(OSError):  # `sync` says what is wrong
            self._unwritten += data
            self._write()

    def _write(self) -> None:
        while self._unwritten:
            self._unwritten = self._unwritten[self._file.write(self._unwritten) :]

    def cut(self, length: int) -> None:
        """Forget what follows the first `length` bytes; a shorter file stays as it is."""
        with self._lock:
            self._unwritten = b""
            self._file.truncate(min(length, self.path.stat().st_size))
            self._file.seek(0, os.SEEK_END)

    @property
    def length(self) -> int:
        """The bytes of all that was to be written."""
        with self._lock:
            return self._file.tell() + len(self._unwritten)

    def sync(self) -> None:
        """Make everything durable; raise RunError where the disk does not take it."""
        try:
            with self._lock:
                self._write()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise RunError(f"cannot write {str(self.path)!r}: {error.strerror}; free space and resume") from error

    def close(self) -> None:
        """Write what the disk takes, and close the file."""
        with self._lock, suppress(OSError):
            self._write()
        self._file.close()


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    digest = sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
