"""The proof that a program knows every name that it uses, and that no variable hides a function that it calls."""

import ast
import builtins
from collections.abc import Iterator

from goodfit.eject.values import CannotWriteError

__all__ = ["check_names"]


def check_names(program: str) -> None:
    """Raise CannotWriteError for a name that nothing defines, and for a variable of the same name as a function called."""
    module = ast.parse(program)
    functions = {node.name for node in module.body if isinstance(node, ast.FunctionDef)}
    known = {*dir(builtins), *_defined(module), "__doc__", "__name__"}
    for function in (node for node in ast.walk(module) if isinstance(node, ast.FunctionDef)):
        own = {*_stored(function), *_arguments(function)}
        called = {node.func.id for node in ast.walk(function) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
        hidden = own & called & functions
        if hidden:
            raise CannotWriteError(f"{min(hidden)} is a function of the program, and a variable in {function.name}")
        used = {node.id for node in ast.walk(function) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
        unknown = used - own - known
        if unknown:
            raise CannotWriteError(f"{min(unknown)} in {function.name} is not known to the program")


def _defined(module: ast.Module) -> Iterator[str]:
    """Give the names that a module defines."""
    for node in module.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from ((alias.asname or alias.name).partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.Assign):
            yield from _stored(node)


def _stored(node: ast.AST) -> Iterator[str]:
    yield from (each.id for each in ast.walk(node) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store))


def _arguments(function: ast.FunctionDef) -> Iterator[str]:
    yield from (each.arg for each in ast.walk(function) if isinstance(each, ast.arg))
