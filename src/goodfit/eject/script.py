"""A run as one plain program: the sections put together, in reading order."""

import ast
import textwrap

from goodfit.artefacts.run import Run
from goodfit.eject.checking import check_names
from goodfit.eject.data import DataSection, data_section
from goodfit.eject.evaluation import evaluation_section
from goodfit.eject.facts import learning_rates_fit, read_session
from goodfit.eject.knowledge import Knowledge, know
from goodfit.eject.layout import docstring, statements
from goodfit.eject.main import main_section, step_lines
from goodfit.eject.model import model_section
from goodfit.eject.places import PLACE, places
from goodfit.eject.signatures import class_lines, function_head
from goodfit.eject.sources import class_tree, constant_source, docstring_sentence, function_tree
from goodfit.eject.specialize import Function
from goodfit.eject.values import CannotWriteError, literal, name
from goodfit.errors import ConfigError
from goodfit.models.outputs import in_float32, prediction_of
from goodfit.session import Session
from goodfit.training.ema import MovingAverage
from goodfit.training.muon import Muon
from goodfit.training.own import OwnCode

__all__ = ["write_program"]

# What a name in the program comes from, in the order of the imports.
IMPORTS = {
    "argparse": "import argparse",
    "copy": "import copy",
    "math": "import math",
    "os": "import os",
    "random": "import random",
    "OrderedDict": "from collections import OrderedDict",
    "Callable": "from collections.abc import Callable",
    "Iterable": "from collections.abc import Iterable",
    "Mapping": "from collections.abc import Mapping",
    "Sequence": "from collections.abc import Sequence",
    "blake2b": "from hashlib import blake2b",
    "Path": "from pathlib import Path",
    "Any": "from typing import Any",
    "np": "import numpy as np",
    "timm": "import timm",
    "torch": "import torch",
    "F": "import torch.nn.functional as F",
    "load_file": "from safetensors.torch import load_file",
    "save_file": "from safetensors.torch import save_file",
    "pl": "import polars as pl",
    "Image": "from PIL import Image",
    "ImageOps": "from PIL import ImageOps",
    "load_digits": "from sklearn.datasets import load_digits",
    "Tensor": "from torch import Tensor",
    "nn": "from torch import nn",
    "Optimizer": "from torch.optim import Optimizer",
    "Dataset": "from torch.utils.data import Dataset",
    "default_collate": "from torch.utils.data import default_collate",
    "datasets": "from torchvision import datasets",
    "library": "from torchvision import models as library",
}
PACKAGES = {"sklearn": "scikit-learn", "torchvision": "torchvision", "timm": "timm", "polars": "polars", "PIL": "pillow"}
LIBRARY = 13  # of these are Python's own


def write_program(run: Run, own: OwnCode | None = None) -> str:
    """Return the program of a run; raise ConfigError for what it is not built for, and CodeNeededError without the user's code."""
    session = read_session(run, own or OwnCode())
    if not learning_rates_fit(run, session):
        raise ConfigError(
            f"{str(run.path)!r} was given more epochs when it was resumed, which bent its learning rates; no plain program "
            "repeats that: train it anew for as long, and eject that run"
        )
    try:
        return _program(run, session)
    except CannotWriteError as error:
        raise ConfigError(f"eject of this run is not built yet: {error}") from error


def _program(run: Run, session: Session) -> str:
    known = know(session)
    known.metrics = run.metrics
    data = data_section(known)
    of_data = len(known.specializer.functions)
    step = step_lines(known)
    evaluation = evaluation_section(known, data)
    model = model_section(known)
    main = main_section(known, run, data, step)
    functions = [_function(title, function) for title, function in known.specializer.functions.items()]
    verbatim = _verbatim(known, "\n".join(sum(functions, [*evaluation, *main])))
    sections = [*functions[:of_data], data.functions, *functions[of_data:], *verbatim, *places(known)]
    sections += [model, evaluation, main]
    body = "\n\n\n".join("\n".join(lines).strip("\n") for lines in sections if lines)
    constants = _constants(known, body)
    imports = _imports(known, f"{constants}\n{body}")
    end = 'if __name__ == "__main__":\n    main()\n'
    program = f"{_heading(known, run, data, imports, PLACE in body)}\n{imports}\n\n{constants}\n\n\n{body}\n\n\n{end}"
    check_names(program)
    return program


def _heading(known: Knowledge, run: Run, data: DataSection, imports: str, has_places: bool) -> str:
    config = known.session.plan.config
    packages = ", ".join(["torch", "safetensors", *(name for key, name in PACKAGES.items() if key in imports)])
    filled = " when the marked places hold the objects that the run was given" if has_places else ""
    lines = textwrap.wrap(
        f"This is the goodfit run {run.path.name!r} as one program, without goodfit: it needs {packages}. It ends with the run's own "
        f"weights, bit for bit{filled}, on the machine where the run was made, with torch {run.environment.get('torch')}; elsewhere the last "
        "bits may differ. The weights are written to model.safetensors.",
        98,
    )
    place = " --data DIR" if data.option else ""
    title = f"Train {config.model.name} on {data.source}."
    return "\n".join([f'"""{title}', "", *lines, "", f"Run it with: python train.py{place}", '"""', ""])


def _constants(known: Knowledge, body: str) -> str:
    """Return the constants that are used: the run's settings, and those of the package's modules."""
    used = {node.id for node in ast.walk(ast.parse(body)) if isinstance(node, ast.Name)}
    lines = []
    for title, (value, comment) in known.constants.items():
        if title in used:
            node = ast.Assign([name(title)], literal(value))
            node.after = f"# {comment}" if comment else ""  # type: ignore[attr-defined]
            lines += statements([node])
    if known.session.device.type != "cpu":
        lines.append(f'DEVICE = torch.device("{known.session.device}")')
    found = [constant_source(module, title) for title, module in known.specializer.constants.items() if title in used]
    return "\n".join([*lines, *dict.fromkeys(found)])


def _imports(known: Knowledge, text: str) -> str:
    used = {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}
    lines = list(IMPORTS.items())
    standard, others = (
        _sorted_imports([line for title, line in part if title in used]) for part in (lines[:LIBRARY], lines[LIBRARY:])
    )
    own = []
    if known.code_name:
        module, _, attribute = known.code_name.rpartition(":")
        own = ["", f"from {module.removesuffix('.py')} import {attribute}"]
    return "\n".join([*standard, *([""] if standard else []), *others, *own])


def _sorted_imports(lines: list[str]) -> list[str]:
    """Return imports in their usual order, those from one module on one line."""
    modules: dict[str, list[str]] = {}
    for line in sorted(line for line in lines if line.startswith("from")):
        module, _, title = line.partition(" import ")
        modules.setdefault(module, []).append(title)
    plain = sorted(line for line in lines if line.startswith("import"))
    return [*plain, *(f"{module} import {', '.join(titles)}" for module, titles in modules.items())]


def _function(title: str, function: Function) -> list[str]:
    head = function_head(title, function.parameters, function.returns)
    return [*head, *docstring(function.about), *statements(function.body, 1)]


def _verbatim(known: Knowledge, text: str) -> list[list[str]]:
    """Return what is taken over whole: the moving average, Muon, and what the `text` uses to take a module's outputs apart."""
    found = [class_lines(class_tree(MovingAverage))] if known.session.state.ema else []
    found += [class_lines(class_tree(Muon))] if isinstance(known.session.state.optimizer, Muon) else []
    for function, returns in ((prediction_of, "Tensor"), (in_float32, "Any")):
        if f"{function.__name__}(" in text:
            body = [node for node in function_tree(function).body[1:] if not _is_check(node)]
            for node in (inner for statement in body for inner in ast.walk(statement) if isinstance(inner, ast.If)):
                node.body = [inner for inner in node.body if not _is_check(inner)]
            head = f"def {function.__name__}(outputs: Any) -> {returns}:"
            found.append([head, *docstring(docstring_sentence(function)), *statements(body, 1)])
    return found


def _is_check(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and not node.orelse and isinstance(node.body[-1], ast.Raise)
