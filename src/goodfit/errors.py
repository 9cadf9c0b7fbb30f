"""The only errors a user sees: one line each, saying the thing, its value and the next step.

GoodfitError
├── InputError          exit 2: what was asked for cannot be done
│   ├── ConfigError     a key, flag or value
│   ├── DataError       the data set, its files or its labels
│   ├── ModelError      an architecture, its arguments or its weights
│   ├── FileError       a model file, checkpoint or run folder
│   ├── CodeNeededError a model that is code of the user's own, which has not been named again
│   └── DeviceError     a device or precision that is not here
└── RunError            exit 1: a run that was started and failed
    ├── DivergedError   the loss or the weights are no longer finite
    └── NotFiniteError  the same, while there is still a way back

Interrupted             a stop by signal; exit 128 + its number
"""

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = [
    "CodeNeededError",
    "ConfigError",
    "DataError",
    "DeviceError",
    "DivergedError",
    "FileError",
    "GoodfitError",
    "InputError",
    "Interrupted",
    "ModelError",
    "NotFiniteError",
    "RunError",
    "unknown_name",
]


MAX_LISTED = 40  # names in a message, which has to stay a line that can be read
MAX_NAME = 60  # characters of a name in it, which may come out of a file


class GoodfitError(Exception):
    """Base of every error that goodfit raises on purpose; `frames` are those of the user's own code, if that failed."""

    exit_code = 1
    frames = ""


class InputError(GoodfitError):
    """Bad usage or bad input: nothing was started."""

    exit_code = 2


class ConfigError(InputError):
    """A configuration key or value that cannot be used."""


class DataError(InputError):
    """Data that cannot be read, or cannot be learned from."""


class ModelError(InputError):
    """A model that cannot be built, or does not fit the data."""


class FileError(InputError):
    """A model file, checkpoint or run folder that is damaged, foreign or in the way."""


class CodeNeededError(FileError):
    """A model that is code of the user's own, `name`, which runs only when the user names it."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"the model is code of your own, {name}, which no file can bring: name it with --model {name}, in Python model="
        )
        self.name = name


class DeviceError(InputError):
    """A device or precision that this machine does not have."""


class RunError(GoodfitError):
    """A run that was started and could not go on."""


class DivergedError(RunError):
    """The loss or the weights are no longer finite."""


class NotFiniteError(RunError):
    """The loss or the weights are no longer finite; the run can go back and leave the step out."""


class Interrupted(BaseException):
    """A signal asked the program to stop; `signum` is its number, `saved` whether a checkpoint was written."""

    def __init__(self, signum: int, saved: bool = False) -> None:
        super().__init__(signum, saved)
        self.signum = signum
        self.saved = saved


def unknown_name(kind: str, name: str, choices: Iterable[str]) -> str:
    """Return the message for an unknown `kind` of thing, with the nearest known names."""
    known = sorted(choices)
    name = name if len(name) <= MAX_NAME else f"{name[:MAX_NAME]}..."
    near = get_close_matches(name, known, n=2, cutoff=0.5)
    listed = ", ".join(known[:MAX_LISTED]) + (", ..." if len(known) > MAX_LISTED else "")
    hint = f"did you mean {' or '.join(near)}?" if near else f"choose from: {listed}"
    return f"unknown {kind} {name!r}; {hint}"
