"""The house rules that a program can check: imports go downward, files and functions stay short, importing does nothing."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import goodfit

SOURCE = Path(goodfit.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60

# Bottom first; a module may import its own layer's siblings and everything below.
LAYERS = (
    ("errors", "user_code", "inputs", "randomness", "files", "html", "signals", "config", "distributed", "memory", "devices"),
    ("data", "models"),
    ("training", "evaluation"),
    ("artefacts",),
    (
        "rehearsal",
        "planning",
        "session",
        "trial",
        "recovery",
        "fitting",
        "verification",
        "workflows",
        "testing",
        "prediction",
        "conversion",
        "plots",
        "eject",
        "display",
        "api",
        "cli",
        "__init__",
        "__main__",
    ),
)
LAYER_OF = {name: number for number, names in enumerate(LAYERS) for name in names}
SEPARATE = {("data", "models"), ("models", "data"), ("training", "evaluation"), ("evaluation", "training")}

ALLOWED_AT_TOP = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)


def room(path: Path) -> str:
    """The first part of a module's place: `data` for data/folder.py, `errors` for errors.py."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported_rooms(path: Path) -> Iterator[str]:
    for node in ast.walk(tree(path)):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module] if node.module != "goodfit" else [f"goodfit.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "goodfit" and len(parts) > 1:
                yield parts[1]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_go_downward(path: Path) -> None:
    here = room(path)
    for there in imported_rooms(path):
        assert LAYER_OF[there] <= LAYER_OF[here], f"{here} may not import {there}, which lies above it"
        assert (here, there) not in SEPARATE or (here, there) == ("training", "evaluation"), (
            f"{here} and {there} are neighbours"
        )


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_files_and_functions_are_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_FILE_LINES
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            length = node.end_lineno - node.lineno + 1
            assert length <= MAX_FUNCTION_LINES, f"{node.name} has {length} lines"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_importing_does_nothing(path: Path) -> None:
    for node in tree(path).body:
        is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        is_guard = isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "__name__ == '__main__'")
        assert is_docstring or is_guard or isinstance(node, ALLOWED_AT_TOP), f"line {node.lineno} runs at import"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_public_names_are_listed_and_documented(path: Path) -> None:
    module = tree(path)
    assert ast.get_docstring(module), "a module says in a line what it is for"
    if path.name == "__main__.py":
        return
    listed = next(
        (
            ast.literal_eval(node.value)
            for node in module.body
            if isinstance(node, ast.Assign | ast.AnnAssign)
            and node.value is not None
            and ast.unparse(node.targets[0] if isinstance(node, ast.Assign) else node.target) == "__all__"
        ),
        None,
    )
    assert listed is not None, "a module lists its public names in __all__"
    assert listed == sorted(listed, key=lambda name: (not name.isupper(), not name[0].isupper(), name))
    for node in module.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name in listed:
            assert ast.get_docstring(node), f"{node.name} is public and has no docstring"
