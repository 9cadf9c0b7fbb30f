"""The source of a function as a syntax tree that has kept its comments."""

import ast
import inspect
import io
import textwrap
import tokenize
from collections.abc import Callable
from functools import cache
from typing import Any

__all__ = ["class_tree", "constant_source", "docstring_sentence", "function_tree", "source_text"]


def source_text(thing: Any) -> str:
    """Return the text that defines a class or function, at the left margin."""
    return textwrap.dedent(inspect.getsource(thing))


@cache
def function_tree(function: Callable[..., Any]) -> ast.FunctionDef:
    """Return a function's tree; a statement's `before` and `after` hold the comments above it and at its end."""
    tree = _commented(source_text(function))
    assert isinstance(tree, ast.FunctionDef)
    return tree


@cache
def class_tree(kind: type) -> ast.ClassDef:
    """Return a class's tree, with the comments of its statements as in `function_tree`."""
    tree = _commented(source_text(kind))
    assert isinstance(tree, ast.ClassDef)
    return tree


def _commented(text: str) -> ast.stmt:
    tree = ast.parse(text).body[0]
    alone, trailing = _comments(text)
    for node in ast.walk(tree):
        if not isinstance(node, ast.stmt):
            continue
        line = node.lineno - 1
        before: list[str] = []
        while line in alone:
            before.insert(0, alone[line])
            line -= 1
        node.before = before  # type: ignore[attr-defined]
        if isinstance(node, ast.Try):
            node.after = ""  # type: ignore[attr-defined]  # at its end there is what a handler says
            continue
        header = node.body[0].lineno - 1 if isinstance(node, ast.For | ast.While | ast.If | ast.With) else node.end_lineno
        node.after = trailing.get(header or 0, "")  # type: ignore[attr-defined]
    return tree


def _comments(text: str) -> tuple[dict[int, str], dict[int, str]]:
    """Return the comments that have a line to themselves and those that end one, by line."""
    alone: dict[int, str] = {}
    trailing: dict[int, str] = {}
    lines = text.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT and not token.string.startswith(("# type:", "# noqa")):
            line = token.start[0]
            is_alone = lines[line - 1].lstrip().startswith("#")
            (alone if is_alone else trailing)[line] = token.string.partition("  # type:")[0]
    return alone, trailing


def docstring_sentence(function: Callable[..., Any]) -> str:
    """Return the first sentence of a function's docstring, on one line."""
    paragraph = " ".join((inspect.getdoc(function) or "").partition("\n\n")[0].split())
    return f"{paragraph.partition('; raise')[0].rstrip('.')}." if paragraph else ""


def constant_source(module: Any, name: str) -> str:
    """Return the statement that gives a module's constant its value, with its comment."""
    lines = inspect.getsource(module).splitlines()
    for node in ast.parse("\n".join(lines)).body:
        if isinstance(node, ast.Assign) and name in ast.unparse(node.targets[0]).strip("()").split(", "):
            line, above = lines[node.lineno - 1], lines[node.lineno - 2]
            code, _, comment = line.partition("  # ")
            if above.startswith("# ") and isinstance(node.targets[0], ast.Tuple):
                return f"{above}\n{line}"
            return line if len(line) <= 100 or not comment else f"# {comment}\n{code}"
    raise AssertionError(f"{module.__name__} has no constant {name}")
