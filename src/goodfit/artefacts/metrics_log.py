"""metrics.jsonl: a line per record, appended; its length goes into checkpoints, so that resume can cut it back."""

import json
import math
import os
from pathlib import Path
from typing import Any

from goodfit.artefacts.records import Record
from goodfit.errors import FileError, RunError

__all__ = ["MetricsLog", "read_metrics"]


class MetricsLog:
    """Appends records to `path`, which is first cut back to `length` bytes; a shorter file stays as it is."""

    def __init__(self, path: Path, length: int = 0) -> None:
        self.path = path
        self._file = path.open("ab")
        self._file.truncate(min(length, path.stat().st_size))
        self._file.seek(0, os.SEEK_END)  # where it was before the cut, `length` would speak of bytes that are gone

    def observe(self, record: Record) -> None:
        """Append one line; raise RunError where the disk does not take it."""
        line = json.dumps({key: _finite(value) for key, value in record.to_json().items()}, allow_nan=False)
        try:
            self._file.write(line.encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise RunError(f"cannot write {str(self.path)!r}: {error.strerror}; free space and resume") from error

    def length(self) -> int:
        """Make what was written durable and return the file's length in bytes."""
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _finite(value: Any) -> Any:
    """JSON knows only finite numbers: null stands for the rest."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a metrics.jsonl; a last line that is not whole is left out, any other is a FileError."""
    if not path.exists():
        return []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
        records = [json.loads(line) for line in lines[:-1]]
    except (ValueError, RecursionError) as error:
        raise FileError(f"{str(path)!r} holds a line that is not JSON: {error}; remove it") from error
    for number, record in enumerate(records, start=1):
        if not (isinstance(record, dict) and "event" in record):
            raise FileError(f"{str(path)!r} holds a line that is no record, line {number}; remove it")
    return records
