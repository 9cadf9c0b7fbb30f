"""Classes, the heads of functions, types and formatted texts, as a program writes them."""

import ast
import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from goodfit.eject.layout import WIDTH, docstring, expression, statements
from goodfit.eject.values import Code, Static, Value

__all__ = ["annotation_text", "class_lines", "function_head", "joined_text", "parameters_of", "written_parameter"]


def class_lines(tree: ast.ClassDef) -> list[str]:
    """Return a class whose body is a docstring and methods."""
    bases = f"({', '.join(map(expression, tree.bases))})" if tree.bases else ""
    lines = [f"class {tree.name}{bases}:"]
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            lines += ["", *(f"    @{expression(each)}" for each in node.decorator_list)]
            parameters = [_with_type(*parameter) for parameter in parameters_of(node)]
            lines += function_head(node.name, parameters, expression(node.returns) if node.returns else "", "    ")
            start = 1 if ast.get_docstring(node) else 0
            lines += docstring(ast.get_docstring(node) or "", "        ")
            lines += statements(node.body[start:], 2)
        else:
            lines += docstring(ast.get_docstring(tree) or "", "    ")
    return lines


def function_head(title: str, parameters: Sequence[str], returns: str, indent: str = "") -> list[str]:
    """Return the lines that begin a function: on one line, else its parameters on another, else each on its own."""
    end = f") -> {returns}:" if returns else "):"
    line = f"{indent}def {title}({', '.join(parameters)}{end}"
    if len(line) <= WIDTH:
        return [line]
    inside = [f"{indent}    {', '.join(parameters)}"]
    if len(inside[0]) > WIDTH:
        inside = [f"{indent}    {parameter}," for parameter in parameters]
    return [f"{indent}def {title}(", *inside, f"{indent}{end}"]


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
    if default == "None":  # if the run gave it nothing it would be known
        return f"{first}: {annotation.removesuffix(' | None')}"
    return _with_type(parameter, annotation)


def _with_type(parameter: str, annotation: str) -> str:
    first, _, default = parameter.partition(" = ")
    return (f"{first}: {annotation}" if annotation else first) + (f" = {default}" if default else "")
