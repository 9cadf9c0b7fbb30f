"""What is known of a value that is made of known ones, and what of a program has no effect."""

import ast
import inspect
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from goodfit.eject.values import Code, Row, Static, Value, lift

__all__ = [
    "WHOLE",
    "as_row",
    "as_static",
    "binary",
    "chosen",
    "compared",
    "defaults",
    "is_length",
    "is_method_of_data",
    "is_of_ours",
    "is_plain",
    "is_whole",
    "joined",
    "prune",
    "same",
    "unary",
    "with_short_end",
]

WHOLE = slice(None)  # stands for all examples of a batch
FOLDS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
    ast.FloorDiv: lambda a, b: a // b,
    ast.Mod: lambda a, b: a % b,
    ast.Pow: lambda a, b: a**b,
    ast.RShift: lambda a, b: a >> b,
    ast.BitOr: lambda a, b: a | b,
    ast.Eq: lambda a, b: a == b,
    ast.NotEq: lambda a, b: a != b,
    ast.Lt: lambda a, b: a < b,
    ast.LtE: lambda a, b: a <= b,
    ast.Gt: lambda a, b: a > b,
    ast.GtE: lambda a, b: a >= b,
    ast.Is: lambda a, b: a is b,
    ast.IsNot: lambda a, b: a is not b,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}
HARMLESS = {
    "float",
    "len",
    "detach",
    "zeros",
    "ones_like",
    "zeros_like",
    "cat",
    "append",
    "address",
    "generator",
    "list",
    "float32",
    "prediction_of",
}


def joined(items: Sequence[Value], is_list: bool) -> Value:
    """Return a tuple or list of what is known of its parts."""
    if items and all(isinstance(item, Static) and item.node is None for item in items):
        values = [item.value for item in items if isinstance(item, Static)]
        return Static(values if is_list else tuple(values))
    return Row(tuple(items), is_list)


def as_row(value: Static) -> Value:
    """Return a known tuple or list as one of known parts."""
    if isinstance(value.value, tuple | list):
        return Row(tuple(item if isinstance(item, Value) else Static(item) for item in value.value))
    return value


def as_static(items: Sequence[Value]) -> Value:
    """Return a list of known parts as one value."""
    return joined(list(items), True)


def binary(left: Value, operator: ast.operator, right: Value) -> Value:
    """Return what an operator makes of two values; what has a name in the program keeps it there."""
    if isinstance(right, Static) and type(right.value) is int and right.value == 0 and isinstance(operator, ast.Sub):
        return left
    if isinstance(left, Static) and isinstance(right, Static):
        folded = FOLDS[type(operator)](left.value, right.value)
        is_named = left.node is not None or right.node is not None or isinstance(operator, ast.Div)
        return Static(folded, ast.BinOp(lift(left), operator, lift(right)) if is_named else None)
    if (
        isinstance(right, Static)
        and type(right.value) in (int, float)
        and right.value == 1
        and isinstance(operator, ast.Div | ast.Mult)
    ):
        return left
    if isinstance(left, Code) and ast.unparse(left.node) == "torch.zeros(())" and isinstance(operator, ast.Add):
        return right
    return Code(ast.BinOp(lift(left), operator, lift(right)))


def unary(operator: ast.unaryop, operand: Value) -> Value:
    """Return what an operator makes of a value; no batch and no split is empty."""
    if isinstance(operand, Code) and isinstance(operator, ast.Not) and is_length(operand.node):
        return Static(False)
    if isinstance(operand, Static):
        if isinstance(operator, ast.Not):
            return Static(not operand.value)
        folded = -operand.value if isinstance(operator, ast.USub) else +operand.value
        return Static(folded, ast.UnaryOp(operator, operand.node) if operand.node else None)
    return Code(ast.UnaryOp(operator, lift(operand)))


def compared(left: Value, operator: ast.cmpop, right: Value) -> Value:
    """Return a comparison, decided if both sides are known, or if it is with None or asks for a step before the first."""
    if isinstance(left, Static) and isinstance(right, Static):
        return Static(FOLDS[type(operator)](left.value, right.value))
    if isinstance(operator, ast.Is | ast.IsNot) and isinstance(right, Static) and right.value is None:
        return Static(isinstance(operator, ast.IsNot))
    if isinstance(operator, ast.Lt) and isinstance(right, Static) and right.value == 0 and ast.unparse(lift(left)) == "step":
        return Static(False)
    return Code(ast.Compare(lift(left), [operator], [lift(right)]))


def is_length(node: ast.expr) -> bool:
    """Whether it is the number of something."""
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "len"


def is_whole(value: Value) -> bool:
    """Whether an index takes everything."""
    if isinstance(value, Code) and isinstance(value.node, ast.Slice):
        return value.node.lower is None and value.node.upper is None and value.node.step is None
    return isinstance(value, Static) and value.value == WHOLE


def is_plain(value: Value) -> bool:
    """Whether nothing has to be computed for it."""
    return isinstance(value, Static) or (isinstance(value, Code) and isinstance(value.node, ast.Name))


def is_of_ours(thing: Any) -> bool:
    """Whether it is an object of the package that can be called."""
    kind = type(thing)
    return kind.__module__.startswith("goodfit.") and isinstance(vars(kind).get("__call__"), FunctionType)


def is_method_of_data(called: Any) -> bool:
    """Whether it is a method of text, a tuple, list or dict, which gives the same now as later."""
    return isinstance(getattr(called, "__self__", None), str | tuple | list | dict)


def chosen(subject: Any, cases: Sequence[ast.match_case]) -> Sequence[ast.stmt]:
    """Return the statements of the case that a known value takes."""
    for case in cases:
        if isinstance(case.pattern, ast.MatchValue) and isinstance(case.pattern.value, ast.Constant):
            if case.pattern.value.value == subject:
                return case.body
        elif isinstance(case.pattern, ast.MatchAs) and case.pattern.pattern is None:
            return case.body
    return []


def defaults(called: Any) -> dict[str, Any]:
    """Return what a function takes where nothing is given; of one that is not written in Python nothing is known."""
    if getattr(called, "__text_signature__", None):
        return {}  # to read it is to run it
    try:
        parameters = inspect.signature(called).parameters.values()
    except (TypeError, ValueError):
        return {}
    return {parameter.name: parameter.default for parameter in parameters if parameter.default is not parameter.empty}


def same(value: Any, usual: Any) -> bool:
    """Whether a value is the usual one, of the usual type."""
    return type(value) is type(usual) and not isinstance(value, Tensor | torch.nn.Module) and bool(value == usual)


def prune(body: list[ast.stmt], wanted: Sequence[str] = ()) -> list[ast.stmt]:
    """Leave out what is computed and never used; names of a row that are not used become an underscore."""
    while True:
        module = ast.Module(body, [])
        appended = {
            node.value.func.value.id
            for node in ast.walk(module)
            if isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Call)
            and isinstance(node.value.func, ast.Attribute)
            and node.value.func.attr == "append"
            and isinstance(node.value.func.value, ast.Name)
        }
        loads: dict[str, int] = {}
        for node in ast.walk(module):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                loads[node.id] = loads.get(node.id, 0) + 1
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and _is_harmless(node.value):
                title = node.targets[0].id  # what is made of itself alone is of no use yet
                own = sum(isinstance(each, ast.Name) and each.id == title for each in ast.walk(node.value))
                loads[title] = loads.get(title, 0) - own
        stores = _stored(module)
        for title in stores:
            loads[title] = loads.get(title, 0) - stores[title]
        dead = {title for title in stores if title not in wanted and loads.get(title, 0) <= (1 if title in appended else 0)}
        left = _without_overwritten(_without(body, dead))
        if ast.dump(ast.Module(left, [])) == ast.dump(module):
            return left
        body = left


def with_short_end(body: list[ast.stmt]) -> list[ast.stmt]:
    """Return what is computed last, without giving it a name first."""
    if len(body) < 2 or not (isinstance(body[-2], ast.Assign) and isinstance(body[-1], ast.Return) and body[-1].value):
        return body
    last, result = body[-2], body[-1].value
    if ast.unparse(last.targets[0]) != ast.unparse(result):
        return body
    end = ast.Return(last.value)
    end.before, end.after = getattr(last, "before", []), getattr(last, "after", "")  # type: ignore[attr-defined]
    return with_short_end([*body[:-2], end])


def _stored(module: ast.Module) -> dict[str, int]:
    """Return how often each name is assigned to with a node that says it is loaded: targets here are written as they are read."""
    counts: dict[str, int] = {}
    for node in ast.walk(module):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.For) else []
        for target in targets:
            elements = target.elts if isinstance(target, ast.Tuple) else [target]
            for element in elements:
                if isinstance(element, ast.Name):
                    is_load = isinstance(element.ctx, ast.Load)
                    counts[element.id] = counts.get(element.id, 0) + is_load
    return counts


def _without(body: list[ast.stmt], dead: set[str]) -> list[ast.stmt]:
    left = []
    for node in body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id in dead:
            if _is_harmless(node.value):
                continue
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple):
            names = [
                ast.Name("_", ast.Load()) if isinstance(each, ast.Name) and each.id in dead else each
                for each in node.targets[0].elts
            ]
            node.targets[0].elts[:] = names
        elif isinstance(node, ast.Expr) and ast.unparse(node.value).partition(".append(")[0] in dead:
            continue
        elif isinstance(node, ast.For | ast.While | ast.If | ast.With):
            node.body = _without(node.body, dead)
        left.append(node)
    return left


def _without_overwritten(body: list[ast.stmt]) -> list[ast.stmt]:
    """Leave out what is assigned to a name that the next statement gives another value."""
    left: list[ast.stmt] = []
    for node in body:
        if left and isinstance(node, ast.Assign) and isinstance(left[-1], ast.Assign) and isinstance(node.targets[0], ast.Name):
            title = node.targets[0].id
            uses = any(isinstance(each, ast.Name) and each.id == title for each in ast.walk(node.value))
            if ast.unparse(left[-1].targets[0]) == title and not uses and _is_harmless(left[-1].value):
                left.pop()
        left.append(node)
    return left


def _is_harmless(node: ast.expr) -> bool:
    calls = [each.func for each in ast.walk(node) if isinstance(each, ast.Call)]
    return all((call.id if isinstance(call, ast.Name) else getattr(call, "attr", "")) in HARMLESS for call in calls)
