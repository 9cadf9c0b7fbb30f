"""metrics.jsonl: a line per record, appended; its length goes into checkpoints, so that resume can cut it back."""

import json
import math
from pathlib import Path
from typing import Any

from goodfit.artefacts.records import BackRecord, Record, TroubleRecord
from goodfit.errors import FileError
from goodfit.files import PatientFile

__all__ = ["MetricsLog", "read_metrics"]


class MetricsLog:
    """Appends records to `path`, which is first cut back to `length` bytes; a shorter file stays as it is."""

    def __init__(self, path: Path, length: int = 0) -> None:
        self._file = PatientFile(path)
        self._file.cut(length)

    def observe(self, record: Record) -> None:
        """Append one line, or cut back what no longer holds; what a full disk does not take is written later."""
        if isinstance(record, BackRecord):
            self._file.cut(record.log_length)
        elif not isinstance(record, TroubleRecord):
            line = json.dumps({key: _finite(value) for key, value in record.to_json().items()}, allow_nan=False)
            self._file.write(line.encode() + b"\n")

    @property
    def length(self) -> int:
        """The bytes of all records so far."""
        return self._file.length

    def sync(self) -> None:
        """Make every record durable; raise RunError where the disk does not take them."""
        self._file.sync()

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
