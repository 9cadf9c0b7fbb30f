"""What is known of a value while a function is specialised: all of it, how it is written, or what it is made of."""

import ast
import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

import torch

from goodfit.errors import kind_of

__all__ = ["CannotWriteError", "Code", "Frame", "Row", "Static", "Value", "lift", "literal", "name", "parse"]

ALIASES = {"torch": "torch", "torch.nn.functional": "F", "torch.nn": "nn", "numpy": "np", "math": "math"}


class CannotWriteError(Exception):
    """A value that no program text gives back."""


@dataclass(frozen=True)
class Static:
    """A value that is known now; `node` is how the program writes it, if not as a literal."""

    value: Any
    node: ast.expr | None = None


@dataclass(frozen=True)
class Code:
    """A value that only the program will know."""

    node: ast.expr


@dataclass(frozen=True)
class Row:
    """A tuple, or list, of which the parts are known apart."""

    items: "tuple[Value, ...]"
    is_list: bool = False


Value = Static | Code | Row


@dataclass
class Frame:
    """The names of one function while it is specialised; `keeps_returns` where the result is a function, too."""

    names: dict[str, Value]
    scope: Mapping[str, Any]  # its module's names, and those of the functions around it
    keeps_returns: bool = False


def name(text: str) -> ast.expr:
    """Return the expression of a name."""
    return ast.Name(text, ast.Load())


def parse(text: str) -> ast.expr:
    """Return the tree of an expression."""
    return ast.parse(text, mode="eval").body


def lift(value: Value) -> ast.expr:
    """Return the expression that gives a value in the program; raise CannotWriteError where there is none."""
    match value:
        case Code(node):
            return node
        case Row(items, is_list):
            nodes = [lift(item) for item in items]
            return ast.List(nodes, ast.Load()) if is_list else ast.Tuple(nodes, ast.Load())
        case Static(known, node):
            return node or literal(known)


def literal(value: Any) -> ast.expr:
    """Return the expression of plain data, or of something of torch under its usual name."""
    if value is ... or ((isinstance(value, bool | int | str | bytes | None)) and not isinstance(value, enum.Enum)):
        return ast.UnaryOp(ast.USub(), ast.Constant(-value)) if type(value) is int and value < 0 else ast.Constant(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            return parse(f"float({str(value)!r})")
        return ast.Constant(value) if value >= 0 else ast.UnaryOp(ast.USub(), ast.Constant(-value))
    if isinstance(value, tuple | list):
        nodes = [literal(item) for item in value]
        return ast.Tuple(nodes, ast.Load()) if isinstance(value, tuple) else ast.List(nodes, ast.Load())
    if isinstance(value, dict):
        return ast.Dict([literal(key) for key in value], [literal(item) for item in value.values()])
    if isinstance(value, torch.dtype | torch.memory_format):
        return parse(str(value))
    if isinstance(value, torch.device):
        return name("DEVICE")
    if isinstance(value, ModuleType) and value.__name__ in ALIASES:
        return name(ALIASES[value.__name__])
    if isinstance(value, type | FunctionType | BuiltinFunctionType):
        return _named(value)
    raise CannotWriteError(f"{kind_of(value)} cannot be written as code")


def _named(value: Any) -> ast.expr:
    """Return the name of a class or function of torch, as short as people write it."""
    places = {"nn": torch.nn, "F": torch.nn.functional, "torch.optim": torch.optim, "torch": torch}
    title = str(getattr(value, "__qualname__", value))
    for place, module in places.items():
        if getattr(module, title, None) is value:
            return parse(f"{place}.{title}")
    raise CannotWriteError(f"{value.__module__}.{title} cannot be written as code")
