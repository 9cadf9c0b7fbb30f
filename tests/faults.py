"""Faults at every operation on files: the n-th write, fsync, rename, removal or making of a folder fails or kills."""

import errno
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import pytest

OPERATIONS = ("fsync", "replace", "rename", "unlink", "mkdir", "rmdir")


class Faults:
    """Counts operations on files, and calls `strike` instead of the n-th, or half-way through it where it is a write."""

    def __init__(self, n: int, strike: Callable[[], None]) -> None:
        self.left = n
        self.strike = strike
        self.struck = ""

    def count(self, name: str) -> bool:
        self.left -= 1
        if self.left == 0:
            self.struck = name
        return self.left == 0


class FaultyFile:
    """A file, each write to which is counted."""

    def __init__(self, file: BinaryIO, faults: Faults) -> None:
        self._file = file
        self._faults = faults

    def write(self, data: Any) -> int:
        if self._faults.count("write"):
            view = memoryview(data).cast("B")
            self._file.write(view[: len(view) // 2])
            self._file.flush()
            self._faults.strike()
        return self._file.write(data)

    def __enter__(self) -> "FaultyFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@contextmanager
def faulty(n: int, strike: Callable[[], None]) -> Iterator[Faults]:
    """Let the n-th operation on files strike, for the length of the block."""
    faults = Faults(n, strike)
    open_path = pathlib.Path.open

    def opened(path: pathlib.Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        file = open_path(path, mode, *arguments, **options)
        return FaultyFile(file, faults) if "b" in mode and ("w" in mode or "a" in mode) else file

    def counted(name: str) -> Callable[..., Any]:
        real = getattr(os, name)

        def operation(*arguments: Any, **options: Any) -> Any:
            if faults.count(name):
                faults.strike()
            return real(*arguments, **options)

        return operation

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pathlib.Path, "open", opened)
        for name in OPERATIONS:
            patch.setattr(os, name, counted(name))
        patch.setattr(shutil.rmtree, "avoids_symlink_attacks", False, raising=False)
        yield faults


@contextmanager
def read_only_disk() -> Iterator[None]:
    """Let whatever writes fail, for the length of the block, as on a disk that has become read-only."""
    open_path = pathlib.Path.open

    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    def opened(path: pathlib.Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        return (refuse if {"w", "a"} & set(mode) else open_path)(path, mode, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pathlib.Path, "open", opened)
        for name in OPERATIONS:
            patch.setattr(os, name, refuse)
        yield


def killed_at(n: int, work: Callable[[], None]) -> bool:
    """Do `work` in a child that is killed, as by SIGKILL, at its n-th operation; return whether it was."""
    child = os.fork()
    if child == 0:
        try:
            with faulty(n, lambda: os._exit(9)):
                work()
        except BaseException:  # noqa: BLE001
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, 9), "the child ended with an error of its own"
    return code == 9
