"""Running the command line in this process, with output as strict as a pipe's, and making small data for it."""

import io
import json
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from goodfit.cli.main import run_command

QUICK = ("--epochs", "1", "--set", "train.threads=1")
TINY = ("--model", "mlp", "--set", "data.max_train=200", *QUICK)  # of digits: a moment


@dataclass(frozen=True)
class Done:
    """What a command line came to: its exit code and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[Any]:
        """Standard output, every line of which must be a JSON value."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def json(self) -> dict[str, Any]:
        """The one JSON object that is all of standard output."""
        (document,) = self.lines
        assert isinstance(document, dict)
        return document


def goodfit(*arguments: str | Path, encoding: str = "utf-8") -> Done:
    """Run one command line as `goodfit` would in a process of its own."""
    out = io.TextIOWrapper(io.BytesIO(), encoding)
    err = io.TextIOWrapper(io.BytesIO(), encoding, errors="backslashreplace")
    with redirect_stdout(out), redirect_stderr(err):
        code = run_command([str(argument) for argument in arguments])
    written = []
    for stream in (out, err):
        stream.flush()
        written.append(stream.buffer.getvalue().decode(encoding))  # type: ignore[attr-defined]
    return Done(code, *written)


def train(*arguments: str | Path) -> Done:
    """Train, which must succeed."""
    done = goodfit("train", *arguments)
    assert done.code == 0, done.err
    return done


def write_pictures(folder: Path, classes: Sequence[str] = ("cat", "dog"), count: int = 6, side: int = 8) -> Path:
    """Make a folder of grey squares, darker or lighter by class."""
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            shade = 60 * number + 3 * index
            Image.fromarray(np.full((side, side, 3), shade, np.uint8)).save(folder / name / f"{index}.png")
    return folder


def write_table(path: Path, header: str, row: str, count: int = 60) -> Path:
    """Write a table of `count` rows, `row` being a format of the row's number `i` and of `c`, "a" or "b" in turn."""
    rows = [row.format(i=index, c="ab"[index % 2], half=index / 2 + 0.25) for index in range(count)]
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def png_header(width: int, height: int) -> bytes:
    """Return a PNG that says how large it is, and holds nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def listing(folder: Path) -> dict[str, bytes | None]:
    """Return what lies below `folder`: every file that may be read with its content, the rest by name."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() and os.access(path, os.R_OK) else None
        for path in folder.rglob("*")
    }


def torchrun(*arguments: str) -> Done:
    """Run goodfit on two ranks of this machine."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "goodfit"]
    done = subprocess.run([*launch, *arguments], capture_output=True, text=True, timeout=240, check=False)
    return Done(done.returncode, done.stdout, done.stderr)
