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
    ├── NotFiniteError  the same, while there is still a way back
    └── OutOfMemoryError  a step that the device has too little memory for, while there is one

Interrupted             a stop by signal; exit 128 + its number
"""

import json
import re
from collections.abc import Iterable
from contextlib import ContextDecorator
from difflib import get_close_matches
from functools import partial

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
    "OutOfMemoryError",
    "RunError",
    "in_python",
    "in_python_words",
    "kind_of",
    "unknown_name",
]


MAX_LISTED = 40  # names in a message, which has to stay a line that can be read
MAX_NAME = 60  # characters of a name in it, which may come out of a file

# What a message calls by the command line's words: what it says for Python already, a command, settings, or a flag.
COMMAND_WORDS = re.compile(
    r"--[\w-]+( [^\s,]+)?, in Python (?P<said>\w+=)"
    r"|goodfit resume (?P<run>'[^']*'|\S*\w)(?P<epochs> --epochs N)?"
    r"|(?P<command>goodfit [a-z]+( --[a-z]+| [A-Z.]+)*)"
    r"|(?P<settings>(--set ('[^']*'|\S*[^\s,;)]) ?)+)"
    r"|--(?P<flag>batch-size|data-root|data|device|epochs|lr|model|out|target|trust-pickle|val)\b"
    r"(?P<value>(?<=--model) '[^']*'|(?<=--model) \S*[^\s,;)]| full\b| \d+| [A-Z]+\b)?"
)


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
        what = f"the model is code of your own, {name}, which no file can bring: name it with --model {name}, in Python model="
        if name.startswith("torch."):  # such as a Sequential with a part of one's own, or a layer alone
            what = (
                f"the model is torch's {name.rpartition(':')[2]}, not stored as layers: give a function that builds it, with "
                "--model FILE.py:FUNCTION, in Python model="
            )
        super().__init__(what)
        self.name = name


class DeviceError(InputError):
    """A device or precision that this machine does not have."""


class RunError(GoodfitError):
    """A run that was started and could not go on."""


class DivergedError(RunError):
    """The loss or the weights are no longer finite."""


class NotFiniteError(RunError):
    """The loss or the weights are no longer finite; the run can go back and leave the step out."""


class OutOfMemoryError(RunError):
    """A step for which the device has too little memory; the run can go back and take fewer examples at a time."""


class Interrupted(BaseException):
    """A signal asked the program to stop; `signum` is its number, `saved` whether a checkpoint was written."""

    def __init__(self, signum: int, saved: bool = False) -> None:
        super().__init__(signum, saved)
        self.signum = signum
        self.saved = saved


def kind_of(value: object) -> str:
    """Return what a value is, such as "a Tensor" or "an int"."""
    name = type(value).__name__
    return f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}"


def unknown_name(kind: str, name: str, choices: Iterable[str]) -> str:
    """Return the message for an unknown `kind` of thing, with the nearest known names."""
    known = sorted(choices)
    name = name if len(name) <= MAX_NAME else f"{name[:MAX_NAME]}..."
    near = get_close_matches(name, known, n=2, cutoff=0.5)
    listed = ", ".join(known[:MAX_LISTED]) + (", ..." if len(known) > MAX_LISTED else "")
    hint = f"did you mean {' or '.join(near)}?" if near else f"choose from: {listed}"
    return f"unknown {kind} {name!r}; {hint}"


def in_python(message: str, **instead: str) -> str:
    """Return a message that speaks of the command line as it is said in Python: `--set train.clip=1` as a keyword, and so on.

    `instead` holds what to say of a flag that the function at hand has no such keyword for: out="path=".
    """
    return COMMAND_WORDS.sub(partial(_keyword, instead), message)


class _InPythonWords(ContextDecorator):
    def __init__(self, instead: dict[str, str]) -> None:
        self._instead = instead

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, GoodfitError):
            error.args = (in_python(str(error), **self._instead),)
            error.__traceback__ = None  # the package's own frames, which say nothing to the user


def in_python_words(**instead: str) -> _InPythonWords:
    """Let an error name keywords where the command line has flags, and the user's frames alone; `instead` is for `in_python`."""
    return _InPythonWords(instead)


def _keyword(instead: dict[str, str], found: re.Match[str]) -> str:
    name = (found["said"] or found["flag"] or "").rstrip("=").replace("-", "_")
    if name in instead:
        return instead[name]
    if found["said"]:
        return found["said"]
    if found["command"]:
        return found["command"]
    if found["run"]:
        return f"goodfit.resume({_quoted(found['run'])}{', epochs=N' if found['epochs'] else ''})"
    if found["settings"]:
        pairs = [text.strip("' ").partition("=") for text in found["settings"].split("--set ")[1:]]
        after = " " if found["settings"].endswith(" ") else ""
        return "settings={" + ", ".join(f'"{key}": {_literal(value)}' for key, _, value in pairs) + "}" + after
    return f"{name}={_literal(found['value'].strip()) if found['value'] else 'True' if name == 'trust_pickle' else ''}"


def _literal(text: str) -> str:
    """Return the value of a flag as Python writes it; what stands for a value, such as N or DIR, stays."""
    if text in ("true", "false"):
        return text.capitalize()
    stands = text == "..." or re.fullmatch(r"[A-Z]+|-?[\d.e-]+|[\[{\"].*", text)
    return text if stands else _quoted(text)


def _quoted(text: str) -> str:
    return json.dumps(text.strip("'"), ensure_ascii=False)
