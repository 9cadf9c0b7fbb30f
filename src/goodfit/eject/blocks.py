"""Statements of a function that is specialised: what is decided goes, what is left is written to a list."""

import ast
from collections.abc import Sequence
from contextlib import nullcontext
from importlib import import_module
from typing import TYPE_CHECKING, Any

from torch import Tensor

from goodfit.eject.folding import WHOLE, as_row, as_static, chosen, is_length, is_plain
from goodfit.eject.values import CannotWriteError, Code, Frame, Row, Static, Value, lift, name

if TYPE_CHECKING:
    from goodfit.eject.specialize import Specializer

__all__ = ["give_name", "is_float32", "run_block"]


def run_block(specializer: "Specializer", body: Sequence[ast.stmt], frame: Frame, out: list[ast.stmt]) -> Value | None:
    """Specialise statements into `out`; return the value of a `return` that is reached, if one is."""
    for node in body:
        start = len(out)
        given = _statement(specializer, node, frame, out)
        if len(out) > start and not isinstance(node, ast.If | ast.With | ast.Match):
            out[start].before = [*getattr(node, "before", []), *getattr(out[start], "before", [])]  # type: ignore[attr-defined]
            out[-1].after = getattr(out[-1], "after", "") or getattr(node, "after", "")  # type: ignore[attr-defined]
        if given is not None:
            return given
    return None


def _statement(  # noqa: C901  a case for each kind
    specializer: "Specializer", node: ast.stmt, frame: Frame, out: list[ast.stmt]
) -> Value | None:
    match node:
        case ast.Return(value):
            given = specializer.value(value, frame, out) if value else Static(None)
            if frame.keeps_returns:
                out.append(ast.Return(lift(given)))
            return given
        case ast.Assign([target], value):
            _assign(specializer, target, specializer.value(value, frame, out), frame, out)
        case ast.AnnAssign(target, _, value) if value:
            _assign(specializer, target, specializer.value(value, frame, out), frame, out)
        case ast.AugAssign(target, operator, value):
            place = specializer.value(target, frame, out)
            out.append(ast.AugAssign(lift(place), operator, lift(specializer.value(value, frame, out))))  # type: ignore[arg-type]
        case ast.Expr(ast.Constant()) | ast.Assert() | ast.Pass():
            pass
        case ast.Expr(value):
            given = specializer.value(value, frame, out)
            if isinstance(given, Code):
                out.append(ast.Expr(given.node))
        case ast.If():
            return _if(specializer, node, frame, out)
        case ast.For(target, iterable, inner):
            _for(specializer, target, specializer.value(iterable, frame, out), inner, frame, out)
        case ast.While(test, inner):
            _settle(inner, frame, out)
            residual: list[ast.stmt] = []
            condition = lift(specializer.value(test, frame, out))
            run_block(specializer, inner, frame, residual)
            out.append(ast.While(condition, residual, []))
        case ast.With([item], inner):
            context = specializer.value(item.context_expr, frame, out)
            if isinstance(context, Static) and isinstance(context.value, nullcontext):
                return run_block(specializer, inner, frame, out)
            inside: list[ast.stmt] = []
            given_inside = run_block(specializer, inner, frame, inside)
            out.append(ast.With([ast.withitem(lift(context))], inside))
            return given_inside
        case ast.Try(inner):  # what the handlers do is to say an error in goodfit's words
            return run_block(specializer, inner, frame, out)
        case ast.Match(subject, cases):
            known = specializer.value(subject, frame, out)
            assert isinstance(known, Static)
            return run_block(specializer, chosen(known.value, cases), frame, out)
        case ast.Import() | ast.ImportFrom():
            _import(node, frame)
        case ast.FunctionDef():
            raise CannotWriteError(f"{node.name} is a function inside another")
        case _:
            raise CannotWriteError(f"{type(node).__name__} is not written")
    return None


def _import(node: ast.Import | ast.ImportFrom, frame: Frame) -> None:
    for alias in node.names:
        title = alias.asname or alias.name.partition(".")[0]
        if isinstance(node, ast.ImportFrom):
            found = _member(node.module or "", alias.name)
        else:
            found = import_module(alias.name if alias.asname else title)
        frame.names[title] = Static(found, name(title))


def _member(module: str, title: str) -> Any:
    """Return what `from module import title` gives: an attribute, or a module of its own, which may not be imported yet."""
    found = import_module(module)
    return getattr(found, title) if hasattr(found, title) else import_module(f"{module}.{title}")


def _assign(specializer: "Specializer", target: ast.expr, value: Value, frame: Frame, out: list[ast.stmt]) -> None:
    match target:
        case ast.Name(title):
            frame.names[title] = give_name(specializer, title, value, out)
        case ast.Tuple(targets):
            _unpack(specializer, targets, value, frame, out)
        case ast.Attribute(owner, attribute):
            holder = specializer.value(owner, frame, out)
            place = specializer.attributes.get((id(holder.value), attribute)) if isinstance(holder, Static) else None
            if place is None and isinstance(holder, Static):
                raise CannotWriteError(f"{attribute} of {type(holder.value).__name__} has no name in the program")
            node = lift(place) if place else ast.Attribute(lift(holder), attribute, ast.Load())
            if not (isinstance(value, Static) and value.value is WHOLE):
                out.append(ast.Assign([node], lift(value)))
        case ast.Subscript(owner, index):
            holder, key = specializer.value(owner, frame, out), specializer.value(index, frame, out)
            if isinstance(holder, Static) and isinstance(key, Static) and isinstance(holder.value, dict):
                holder.value[key.value] = value.value if isinstance(value, Static) else value
            else:
                out.append(ast.Assign([lift(specializer._subscript(target, frame, out))], lift(value)))
        case _:
            raise CannotWriteError(f"assignment to {ast.unparse(target)}")


def give_name(specializer: "Specializer", title: str, value: Value, out: list[ast.stmt]) -> Value:
    """Return what is known under a name from now on; anything that has to be computed gets that name in the program."""
    if isinstance(value, Static):
        return value
    if isinstance(value, Code) and isinstance(value.node, ast.Name):
        return value
    if isinstance(value, Row) and (len(value.items) == 1 or (all(map(is_plain, value.items)) and not value.is_list)):
        return value
    if isinstance(value, Code) and ast.unparse(value.node) == "torch.zeros(())":
        return value  # which may vanish in a sum
    node = lift(value)
    out.append(ast.Assign([name(title)], node))
    (
        specializer.float32.add
        if ast.unparse(node).endswith(".float()") or is_float32(specializer, node)
        else specializer.float32.discard
    )(title)
    return Code(name(title))


def is_float32(specializer: "Specializer", node: ast.expr) -> bool:
    """Whether it is the call of a module that gives that."""
    return isinstance(node, ast.Call) and ast.unparse(node.func) in specializer.float32


def _unpack(specializer: "Specializer", targets: Sequence[ast.expr], value: Value, frame: Frame, out: list[ast.stmt]) -> None:
    if isinstance(value, Static) and not isinstance(value.value, Tensor):
        value = as_row(value)
    if isinstance(value, Row):
        parts: list[Value] = list(value.items)
        if isinstance(targets[-1], ast.Starred):
            parts = [*parts[: len(targets) - 1], as_static(parts[len(targets) - 1 :])]
        for target, part in zip(targets, parts, strict=True):
            _assign(specializer, target.value if isinstance(target, ast.Starred) else target, part, frame, out)
        return
    titles = [ast.unparse(target) for target in targets]
    out.append(ast.Assign([ast.Tuple([name(title) for title in titles], ast.Store())], lift(value)))
    frame.names |= {title: Code(name(title)) for title in titles}


def _if(specializer: "Specializer", node: ast.If, frame: Frame, out: list[ast.stmt]) -> Value | None:
    test = specializer.value(node.test, frame, out)
    if isinstance(test, Row):
        test = Static(bool(test.items))
    if isinstance(test, Code) and is_length(test.node):
        test = Static(True)  # no batch and no split is empty
    if isinstance(test, Static):
        return run_block(specializer, node.body if test.value else node.orelse, frame, out)
    if not node.orelse and isinstance(node.body[-1], ast.Raise):
        return None  # a check of the input, which the run has passed
    _settle([*node.body, *node.orelse], frame, out)
    sides: list[list[ast.stmt]] = []
    for body in (node.body, node.orelse):
        side: list[ast.stmt] = []
        inner = Frame(dict(frame.names), frame.scope, frame.keeps_returns)
        if run_block(specializer, body, inner, side) is not None and not frame.keeps_returns:
            raise CannotWriteError(f"an early return: if {ast.unparse(test.node)}")
        sides.append(side)
        _settle([*node.body, *node.orelse], inner, side)
    if any(sides):
        out.append(ast.If(test.node, *sides))
    stored = (each for statement in [*node.body, *node.orelse] for each in ast.walk(statement))
    frame.names |= {
        each.id: Code(name(each.id)) for each in stored if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)
    }
    return None


def _for(
    specializer: "Specializer", target: ast.expr, items: Value, body: Sequence[ast.stmt], frame: Frame, out: list[ast.stmt]
) -> None:
    """Write a loop, or its body where there is one turn; what is the same in every turn is no part of the loop."""
    if isinstance(items, Code) and isinstance(target, ast.Tuple):
        target, items = _without_constants(specializer, target, items.node, frame)
    if isinstance(items, Static) and items.node is None and isinstance(items.value, Sequence) and len(items.value) <= 1:
        items = Row(tuple(Static(item) for item in items.value))
    if isinstance(items, Row) and len(items.items) <= 1:
        for item in items.items:
            _assign(specializer, target, item, frame, out)
            run_block(specializer, body, frame, out)
        return
    _settle(body, frame, out)
    for node in ast.walk(target):
        if isinstance(node, ast.Name):
            frame.names[node.id] = Code(name(node.id))
    residual: list[ast.stmt] = []
    run_block(specializer, body, frame, residual)
    out.append(ast.For(target, lift(items), residual, []))


def _without_constants(specializer: "Specializer", target: ast.Tuple, items: ast.expr, frame: Frame) -> tuple[ast.expr, Value]:
    """Take out of a loop over a `zip` what is in `repeated`: a list of equal values."""
    if not (isinstance(items, ast.Call) and ast.unparse(items.func) == "zip"):
        return target, Code(items)
    left = []
    for each, source in zip(target.elts, items.args, strict=True):
        if ast.unparse(source) in specializer.repeated:
            frame.names[ast.unparse(each)] = specializer.repeated[ast.unparse(source)]
        else:
            left.append((each, source))
    return (left[0][0], Code(left[0][1])) if len(left) == 1 else (target, Code(items))


def _settle(body: Sequence[ast.stmt], frame: Frame, out: list[ast.stmt]) -> None:
    """Give a place in the program to what the statements may change, or may not."""
    for node in (inner for statement in body for inner in ast.walk(statement)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id in frame.names:
            value = frame.names[node.id]
            if not (isinstance(value, Code) and ast.unparse(value.node) == node.id):
                out.append(ast.Assign([name(node.id)], lift(value)))
            frame.names[node.id] = Code(name(node.id))
