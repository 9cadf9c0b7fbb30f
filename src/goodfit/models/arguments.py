"""A model's own arguments: the keyword-only parameters of its builder, whose annotations say what is allowed."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import Parameter, signature
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from goodfit.errors import ConfigError, unknown_name

__all__ = [
    "Builder",
    "Count",
    "Example",
    "Fraction",
    "Range",
    "check_arguments",
    "default_arguments",
    "describe_kind",
    "is_allowed",
    "needed_arguments",
]

MAX_LENGTH = 16  # of a list among a torch layer's arguments
NAMES: dict[Any, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}

Builder = Callable[..., Any]  # (input_shape, num_outputs, *, own arguments) -> nn.Module


@dataclass(frozen=True)
class Range:
    """The numbers from `low` on that lie below `high`."""

    low: float
    high: float = math.inf

    def __str__(self) -> str:
        return f"of at least {self.low:g}" + (f" and below {self.high:g}" if self.high < math.inf else "")


@dataclass(frozen=True)
class Example:
    """A value to show, in the spelling of `--set`, where the kind alone says too little."""

    text: str

    def __str__(self) -> str:
        return f"such as {self.text}"


Count = Annotated[int, Range(1)]
Fraction = Annotated[float, Range(0, 1)]


def default_arguments(builder: Builder) -> dict[str, Any]:
    """Return a builder's own arguments with their defaults, as JSON values."""
    needed = needed_arguments(builder)
    return {key: _as_json(parameter.default) for key, parameter in _parameters(builder).items() if key not in needed}


def needed_arguments(builder: Builder) -> dict[str, str]:
    """Return the arguments that have no default, and what each must be."""
    parameters = _parameters(builder).items()
    return {key: describe_kind(each.annotation) for key, each in parameters if each.default is Parameter.empty}


def check_arguments(model: str, builder: Builder, given: Mapping[str, object]) -> dict[str, Any]:
    """Return `given` as JSON values; raise ConfigError for a key, type or value that the builder does not take, or lacks."""
    parameters = _parameters(builder)
    for key, value in given.items():
        if key not in parameters:
            raise ConfigError(f"model.{key} = {value!r}: {unknown_name(f'argument of {model}', key, parameters)}")
        kind = parameters[key].annotation
        if not is_allowed(value, kind):
            raise ConfigError(f"model.{key} = {value!r} is not possible for {model}; it must be {describe_kind(kind)}")
    for key, kind in needed_arguments(builder).items():
        if key not in given:
            raise ConfigError(f"{model} needs model.{key}, {kind}; give it by --set 'model.{key}=...'")
    return {key: _as_json(value) for key, value in given.items()}


def _parameters(builder: Builder) -> dict[str, Parameter]:
    return {key: each for key, each in signature(builder).parameters.items() if each.kind is Parameter.KEYWORD_ONLY}


def _as_json(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def is_allowed(value: Any, kind: Any) -> bool:
    """Whether `value` is one that the annotation `kind` allows; None never is, as TOML has none."""
    parts = get_args(kind)
    if get_origin(kind) is Annotated:
        base, note = parts
        return is_allowed(value, base) and (isinstance(note, Example) or note.low <= value < note.high)
    if get_origin(kind) in (Union, UnionType):
        return any(is_allowed(value, part) for part in parts)
    if get_origin(kind) is Literal:
        return isinstance(value, str) and value in parts
    if get_origin(kind) is Sequence:
        return isinstance(value, list | tuple) and all(is_allowed(item, parts[0]) for item in value)
    if get_origin(kind) is Mapping:
        return isinstance(value, dict)
    if get_origin(kind) in (list, tuple):  # as torch's layers have them, and of any length or of one
        kinds = parts if _length(kind) else parts[:1] * min(MAX_LENGTH, len(value) if isinstance(value, list) else 0)
        return isinstance(value, list) and len(value) == len(kinds) and all(map(is_allowed, value, kinds))
    if kind is float and type(value) in (int, float):
        return bool(-math.inf < value < math.inf)  # JSON has no others
    # The exact type, because True is an int in Python but no width.
    return type(value) is kind and value is not None


def _length(kind: Any) -> int:
    """Return the length that a list must have, 0 for any."""
    parts = get_args(kind)
    return len(parts) if get_origin(kind) is tuple and Ellipsis not in parts else 0


def describe_kind(kind: Any) -> str:
    """Return what an annotation allows, in words that go on "it must be"."""
    parts = get_args(kind)
    if get_origin(kind) is Annotated:
        return f"{describe_kind(parts[0])} {parts[1]}"
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(describe_kind(part) for part in parts if part in NAMES or get_origin(part))
    if get_origin(kind) is Literal:
        return " or ".join(repr(part) for part in parts)
    if get_origin(kind) in (Sequence, list, tuple):
        return f"a list{f' of {_length(kind)}' if _length(kind) else ''} of which each is {describe_kind(parts[0])}"
    return "a table" if get_origin(kind) is Mapping else NAMES[kind]
