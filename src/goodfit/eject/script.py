"""A run as one plain program: the sections put together, in reading order."""

import ast
import textwrap

from goodfit.artefacts.run import Run
from goodfit.eject.checking import check_names
from goodfit.eject.data import DataSection, data_section
from goodfit.eject.evaluation import evaluation_section
from goodfit.eject.facts import learning_rates_fit, read_session
from goodfit.eject.knowledge import Knowledge, know
from goodfit.eject.layout import WIDTH, class_lines, docstring, statements
from goodfit.eject.main import main_section, step_lines
from goodfit.eject.model import model_section
from goodfit.eject.sources import class_tree, constant_source
from goodfit.eject.specialize import Function
from goodfit.eject.values import CannotWriteError, literal, name
from goodfit.errors import ConfigError
from goodfit.session import Session
from goodfit.training.ema import MovingAverage
from goodfit.training.own import OwnCode, OwnLoss

__all__ = ["write_program"]

# What a name in the program comes from, in the order of the imports.
IMPORTS = {
    "argparse": "import argparse",
    "copy": "import copy",
    "math": "import math",
    "os": "import os",
    "random": "import random",
    "OrderedDict": "from collections import OrderedDict",
    "blake2b": "from hashlib import blake2b",
    "Path": "from pathlib import Path",
    "np": "import numpy as np",
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
    "datasets": "from torchvision import datasets",
    "library": "from torchvision import models as library",
}
LIBRARY = 8  # of these are Python's own


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
    sections = [*functions[:of_data], data.functions, *functions[of_data:], _verbatim(known), model, evaluation, main]
    body = "\n\n\n".join("\n".join(lines).strip("\n") for lines in sections if lines)
    constants = _constants(known, body)
    imports = _imports(known, f"{constants}\n{body}")
    end = 'if __name__ == "__main__":\n    main()\n'
    program = f"{_heading(known, run, data, imports)}\n{imports}\n\n{constants}\n\n\n{body}\n\n\n{end}"
    check_names(program)
    return program


def _heading(known: Knowledge, run: Run, data: DataSection, imports: str) -> str:
    config = known.session.plan.config
    packages = "torch, safetensors"
    packages += ", scikit-learn" if config.data.name == "digits" else ", torchvision" if "torchvision" in imports else ""
    lines = textwrap.wrap(
        f"This is the goodfit run {run.path.name!r} as one program, without goodfit: it needs {packages}. It ends with the run's own "
        f"weights, bit for bit, on the machine where the run was made, with torch {run.environment.get('torch')}; elsewhere the last "
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
    lines += [constant_source(module, title) for title, module in known.specializer.constants.items() if title in used]
    return "\n".join(lines)


def _imports(known: Knowledge, text: str) -> str:
    used = {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}
    found = [line for title, line in list(IMPORTS.items())[:LIBRARY] if title in used]
    others = [line for title, line in list(IMPORTS.items())[LIBRARY:] if title in used]
    pairs = {
        "from torch import Tensor": "from torch import nn",
        "from PIL import Image": "from PIL import ImageOps",
        "from safetensors.torch import load_file": "from safetensors.torch import save_file",
    }
    for first, second in pairs.items():
        if first in others and second in others:
            others[others.index(first)] = f"{first}, {second.rpartition(' ')[2]}"
            others.remove(second)
    plain = sorted((line for line in others if line.startswith("import")), key=str)
    given = sorted((line for line in others if line.startswith("from")), key=str)
    standard = [line for line in found if line.startswith("import")] + [line for line in found if line.startswith("from")]
    own = []
    if known.code_name:
        module, _, attribute = known.code_name.rpartition(":")
        own = ["", f"from {module.removesuffix('.py')} import {attribute}"]
    return "\n".join([*standard, *([""] if standard else []), *plain, *given, *own])


def _function(title: str, function: Function) -> list[str]:
    head = [f"def {title}({', '.join(function.parameters)}) -> {function.returns}:"]
    if len(head[0]) > WIDTH:
        inside = [f"    {', '.join(function.parameters)}"]
        if len(inside[0]) > WIDTH:
            inside = [f"    {parameter}," for parameter in function.parameters]
        head = [f"def {title}(", *inside, f") -> {function.returns}:"]
    return [*head, *docstring(function.about), *statements(function.body, 1)]


def _verbatim(known: Knowledge) -> list[str]:
    """Return what is taken over whole, and the marked place for a loss that was given as an object."""
    lines = class_lines(class_tree(MovingAverage)) if known.session.state.ema else []
    if isinstance(known.session.trainer.loss, OwnLoss):
        title = known.session.plan.config.train.loss
        lines += ["", ""] * bool(lines) + [
            "def loss_function(outputs: Tensor, targets: Tensor) -> Tensor:",
            '    """Return the mean loss of a batch."""',
            f"    # >>> put your own loss here: {title} <<<",
            '    raise NotImplementedError("put your own loss here")',
        ]
    return lines
