"""JSON out of files that may be hostile: what would take far more memory or time than its size says is not read."""

import json
from collections.abc import Callable
from math import isfinite
from pathlib import Path
from typing import Any, NoReturn

__all__ = ["MAX_HEADER", "check_tensor_table", "parse_finite", "parse_json"]

# A part, such as a number or a name, takes up to 60 bytes when read, and a list or an object as much as four. A model of
# 10,000 tensors has some 240,000 parts in its header, and of a million examples that a step left out each is one.
MAX_PARTS = 1_200_000
MAX_HEADER = 16 << 20  # bytes of a safetensors header
LONGEST_INTEGER = 20  # characters


def parse_json(text: str, **options: Callable[[Any], object]) -> Any:
    """Return what `text` says, with the options of `json.loads`; raise ValueError if it has too many parts."""
    if text.count(",") + text.count('":') + 4 * (text.count("[") + text.count("{")) > MAX_PARTS:
        raise ValueError("it has more parts than such a file can need")
    return json.loads(text, **options)  # type: ignore[arg-type]


def parse_finite(text: str) -> Any:
    """Do the same where every number has to be finite and no integer beyond 64 bits."""
    return parse_json(text, parse_constant=_refuse, parse_int=_integer, parse_float=_finite)


def check_tensor_table(path: Path) -> None:
    """Raise ValueError for a safetensors file whose list of tensors takes far more memory than a real one."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > MAX_HEADER:
            raise ValueError(f"the header of {path.name} says that it has {size} bytes")
        parse_json(file.read(size).decode())


def _integer(text: str) -> int:
    return int(text) if len(text) <= LONGEST_INTEGER else _refuse(text)


def _finite(text: str) -> float:
    number = float(text)
    return number if isfinite(number) else _refuse(text)


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"{text:.20} is no number that a run can have")
