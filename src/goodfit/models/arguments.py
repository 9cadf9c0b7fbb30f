"""A model's own arguments: the keyword-only parameters of its builder, whose annotations say what is allowed."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import Parameter, signature
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from goodfit.errors import ConfigError, unknown_name

__all__ = ["Builder", "Count", "Fraction", "Range", "check_arguments", "default_arguments"]

Builder = Callable[..., Any]  # (input_shape, num_outputs, *, own arguments) -> nn.Module


@dataclass(frozen=True)
class Range:
    """The numbers from `low` on that lie below `high`."""

    low: float
    high: float = math.inf

    def __str__(self) -> str:
        return f"of at least {self.low:g}" + (f" and below {self.high:g}" if self.high < math.inf else "")


Count = Annotated[int, Range(1)]
Fraction = Annotated[float, Range(0, 1)]


def default_arguments(builder: Builder) -> dict[str, Any]:
    """Return a builder's own arguments with their defaults, as JSON values."""
    return {key: _as_json(parameter.default) for key, parameter in _parameters(builder).items()}


def check_arguments(model: str, builder: Builder, given: Mapping[str, object]) -> dict[str, Any]:
    """Return `given` as JSON values; raise ConfigError for a key, type or value that the builder does not take."""
    parameters = _parameters(builder)
    for key, value in given.items():
        if key not in parameters:
            raise ConfigError(f"model.{key} = {value!r}: {unknown_name(f'argument of {model}', key, parameters)}")
        kind = parameters[key].annotation
        if not _is_allowed(value, kind):
            raise ConfigError(f"model.{key} = {value!r} is not possible for {model}; it must be {_description(kind)}")
    return {key: _as_json(value) for key, value in given.items()}


def _parameters(builder: Builder) -> dict[str, Parameter]:
    return {key: each for key, each in signature(builder).parameters.items() if each.kind is Parameter.KEYWORD_ONLY}


def _as_json(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _is_allowed(value: Any, kind: Any) -> bool:
    parts = get_args(kind)
    if get_origin(kind) is Annotated:
        base, limits = parts
        return _is_allowed(value, base) and limits.low <= value < limits.high
    if get_origin(kind) in (Union, UnionType):
        return any(_is_allowed(value, part) for part in parts)
    if get_origin(kind) is Literal:
        return isinstance(value, str) and value in parts
    if get_origin(kind) is Sequence:
        return isinstance(value, list | tuple) and all(_is_allowed(item, parts[0]) for item in value)
    # The exact type, because True is an int in Python but no width.
    return type(value) in ((int, float) if kind is float else (kind,))


def _description(kind: Any) -> str:
    parts = get_args(kind)
    if get_origin(kind) is Annotated:
        return f"{_description(parts[0])} {parts[1]}"
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(_description(part) for part in parts)
    if get_origin(kind) is Literal:
        return " or ".join(repr(part) for part in parts)
    if get_origin(kind) is Sequence:
        return f"a list of which each is {_description(parts[0])}"
    return {int: "a whole number", float: "a number", bool: "true or false"}[kind]
