"""Parameters, types and formatted texts, as a program writes them."""

import ast
import re
from collections.abc import Iterator
from typing import Any, Literal

from goodfit.eject.layout import expression
from goodfit.eject.values import Code, Static, Value

__all__ = ["annotation_text", "joined_text", "parameters_of", "written_parameter"]


def annotation_text(text: str) -> str:
    """Return a type as a program says it that imports no more than it must."""
    text = re.sub(r"NDArray\[[^\[\]]*\]", "np.ndarray", text.strip("'"))
    return {"Inputs": "Tensor", "Image": "Image.Image"}.get(text, text)


def joined_text(value: Value) -> Value:
    """Return a formatted text of which every part is known as the text that it is."""
    parts = value.node.values if isinstance(value, Code) and isinstance(value.node, ast.JoinedStr) else []
    inner = [part.value if isinstance(part, ast.FormattedValue) else part for part in parts]
    texts = [part.value for part in inner if isinstance(part, ast.Constant) and isinstance(part.value, str)]
    return Static("".join(texts)) if len(texts) == len(parts) else value


def parameters_of(tree: ast.FunctionDef) -> Iterator[tuple[str, str]]:
    """Give each parameter as it is written, without its type and with its default, and its type; those without default first."""
    given = tree.args
    defaults: list[ast.expr | None] = [*[None] * (len(given.args) - len(given.defaults)), *given.defaults]
    every = [*zip(given.args, defaults, strict=True), *zip(given.kwonlyargs, given.kw_defaults, strict=True)]
    for parameter, default in sorted(every, key=lambda pair: pair[1] is not None):
        annotation = ast.unparse(parameter.annotation) if parameter.annotation else ""
        yield f"{parameter.arg} = {expression(default)}" if default else parameter.arg, annotation
    if given.vararg:
        yield f"*{given.vararg.arg}", ast.unparse(given.vararg.annotation) if given.vararg.annotation else ""


def written_parameter(parameter: str, annotation: str, function: Any) -> str:
    """Return a parameter with its type, if that is no type of the package's own."""
    first, _, default = parameter.partition(" = ")
    kind = function.__globals__.get(annotation)
    annotation = "str" if getattr(kind, "__origin__", None) is Literal else annotation_text(annotation)
    return f"{first}: {annotation}" + (f" = {default}" if default else "")
