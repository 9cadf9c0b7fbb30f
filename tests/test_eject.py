"""A run as one plain program: it ends with the run's own weights, bit for bit, and reads like what a person would write.

Every configuration there is, in some minutes: pytest -m slow tests/test_eject.py
"""

import ast
import importlib.util
import json
import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import partial
from hashlib import md5, sha256
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import torch.nn.functional as F
from command import goodfit, write_pictures, write_table
from harness import BASE, CONFIGURATIONS, StopAt, make_data, run_with_stops, silent, tiny_pictures
from safetensors.torch import load_file
from test_architecture import FILES, tree
from test_cifar import array, batch, numbers
from test_named import write_idx_split
from torch import nn
from torch.utils.data import DataLoader, Dataset, WeightedRandomSampler

from goodfit.artefacts.model_file import ModelFile
from goodfit.artefacts.run import Run
from goodfit.config import Layer
from goodfit.data import cifar
from goodfit.eject.layout import expression
from goodfit.eject.script import write_program
from goodfit.eject.specialize import Specializer
from goodfit.eject.values import CannotWriteError
from goodfit.errors import CodeNeededError, ConfigError, FileError, Interrupted
from goodfit.models.own import own_model
from goodfit.signals import StopSignals
from goodfit.training import ema, muon
from goodfit.training.own import OwnCode
from goodfit.user_code import load_code
from goodfit.workflows import Request, resume, train

MOST_LINES, MOST_LINES_TUTORIAL = 400, 160
MOST_LINES_OVER_AUTO = 450  # where a person's settings come on top of all that auto already uses
DIGITS = {"data.name": "digits", "data.max_train": 150, "model.name": "mlp"}

# Runs each program in its folder, as `python train.py` would, where there is no goodfit; prints what any of them prints.
RUNNER = """
import json, os, runpy, sys
import torchvision
sys.modules["goodfit"] = None
sys.path += sys.argv[1:]
for folder, arguments, changes in json.loads(sys.stdin.read()):
    for key, value in changes.items():
        setattr(torchvision.datasets.CIFAR10, key, value)
    os.chdir(folder)
    sys.path.insert(0, folder)
    sys.argv = ["train.py", *arguments]
    runpy.run_path("train.py", run_name="__main__")
    sys.path.remove(folder)
    assert sys.modules["goodfit"] is None
"""


@dataclass(frozen=True)
class Case:
    """What is trained, ejected, and run again."""

    settings: dict[str, Any]
    recipe: str | None = "auto"
    data: Any = None
    own: OwnCode = OwnCode()  # noqa: RUF009  frozen
    edit: Callable[[str], str] = str  # what a person does with the marked places
    arguments: Sequence[str] = ()
    changes: dict[str, Any] | None = None  # of torchvision's CIFAR10, for a stand-in


def train_case(case: Case, folder: Path) -> Run:
    data = {} if case.data is None else {"data.name": "memory"}
    defaults = {"train.threads": 1, "checkpoint.every_seconds": 0.0} | ({} if case.recipe != "auto" else {"train.epochs": 2})
    layers = [Layer("test", defaults | data | case.settings)]
    request = Request(data=case.data, layers=layers, out=folder / "run", recipe=case.recipe, own=case.own)
    return train(request, silent(), StopSignals())


def eject(run: Run, case: Case) -> str:
    is_data = case.own.model is not None and isinstance(case.own.model.module, nn.Sequential)
    return write_program(run, OwnCode(None if is_data else case.own.model))


def run_programs(folders: Sequence[Path], cases: Sequence[Case], place: Path | None = None) -> str:
    """Run `train.py` in each folder, and return what was printed."""
    work = [(str(folder), list(case.arguments), case.changes or {}) for folder, case in zip(folders, cases, strict=True)]
    command = [sys.executable, "-I", "-W", "error", "-c", RUNNER, *([str(place)] if place else [])]
    done = subprocess.run(command, input=json.dumps(work), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def digest(path: Path) -> str:
    """Return a SHA-256 over the names and the bytes of all tensors."""
    found = sha256()
    for name, tensor in sorted(load_file(path).items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode() + tensor.numpy().tobytes())
    return found.hexdigest()


def check_same_weights(
    cases: dict[str, Case], folder: Path, place: Path | None = None, most_lines: int = MOST_LINES
) -> dict[str, str]:
    """Train and eject every case, run the programs, compare the weights, and return the programs; modules lie in `place`."""
    folders = {name: folder / name.replace("/", "-").replace(" ", "-") for name in cases}
    runs, programs = {}, {}
    for name, case in cases.items():
        folders[name].mkdir()
        runs[name] = train_case(case, folders[name])
        programs[name] = eject(runs[name], case)
        (folders[name] / "train.py").write_text(case.edit(programs[name]), encoding="utf-8")
    run_programs(list(folders.values()), list(cases.values()), place)
    expected = {name: digest(run.model) for name, run in runs.items()}
    assert {name: digest(folders[name] / "model.safetensors") for name in cases} == expected
    check_form(programs, folder, most_lines)
    return programs


def check_form(programs: dict[str, str], folder: Path, most_lines: int = MOST_LINES) -> None:
    """Check that programs are formatted and linted, where ruff is installed, and not long."""
    assert max(len(program.splitlines()) for program in programs.values()) <= most_lines
    if importlib.util.find_spec("ruff") is None:
        return
    files = []
    for name, program in programs.items():
        files.append(folder / f"{name.replace('/', '-').replace(' ', '_').replace('-', '_')}.py")
        files[-1].write_text(program, encoding="utf-8")
    for verb in (["format", "--check", "--diff"], ["check", "--config", str(Path(__file__).parent.parent / "pyproject.toml")]):
        # It prints, has parts of other functions without docstrings, and in a test paths below /tmp.
        less = [] if verb[0] == "format" else ["--ignore", "T201,D102,D103,S108"]
        command = [sys.executable, "-m", "ruff", *verb, *less, "--line-length", "100", *map(str, files)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def write_mnist(root: Path) -> None:
    """Write 200 digits to learn and 40 to test in torchvision's layout."""
    for part, count in (("train", 200), ("test", 40)):
        pixels, labels = tiny_pictures(count, 10, 28, 1)
        write_idx_split(root, "mnist", part, pixels[:, 0], labels.astype("u1"))


def write_cifar(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Write 135 pictures to learn and 27 to test in torchvision's layout; return what its class must take for their sums."""
    sums = {}
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for number, name in enumerate([*(f"data_batch_{place}" for place in range(1, 6)), "test_batch"]):
        pixels, labels = tiny_pictures(27, 10, 32, 3, seed=number)
        content = batch(array(pixels.reshape(27, -1)), numbers(labels.tolist()))
        (folder / name).write_bytes(content)
        sums[name] = md5(content).hexdigest()
        monkeypatch.setitem(cifar.MD5, f"cifar-10-batches-py/{name}", sums[name])
    meta = pickle.dumps({"label_names": list("0123456789")})
    (folder / "batches.meta").write_bytes(meta)
    lists = [[name, value] for name, value in sums.items()]
    found = {"filename": "batches.meta", "key": "label_names", "md5": md5(meta).hexdigest()}
    return {"train_list": lists[:-1], "test_list": lists[-1:], "meta": found}


def put_data(inputs: Any, targets: Any, folder: Path) -> Callable[[str], str]:
    """Return what a person does who has the data in a file."""
    inputs = inputs if inputs.dtype == np.uint8 else inputs.astype(np.float32)
    np.savez(folder / "data.npz", X=inputs, y=targets)
    lines = f'import numpy\n    found = numpy.load("{folder / "data.npz"}")\n'
    lines += '    return torch.as_tensor(found["X"]), torch.as_tensor(found["y"])'
    return lambda program: program.replace('raise NotImplementedError("put your own data here")', lines)


NET = """
import random
import numpy
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, hidden=16):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0 + random.random() + numpy.random.rand()))
        self.body = nn.Sequential(nn.Flatten(), nn.LazyLinear(hidden), nn.Dropout(0.2))
        self.head = nn.Linear(hidden, 10)

    def forward(self, inputs):
        return {"logits": self.head(torch.relu(self.body(inputs))) * self.scale + 0.01 * random.random()}
"""


def test_the_tutorials_programs_end_with_the_runs_weights(tmp_path, monkeypatch):
    write_mnist(tmp_path)
    changes = write_cifar(tmp_path, monkeypatch)
    place, common = ("--data", str(tmp_path)), {"data.root": str(tmp_path)}
    cases = {
        "mnist-mlp": Case(common, "mnist-mlp", arguments=place),
        "cifar10-lenet": Case(common, "cifar10-lenet", arguments=place, changes=changes),
        "cifar10-quick": Case(common | {"train.epochs": 2}, "cifar10-quick", arguments=place, changes=changes),
    }
    programs = check_same_weights(cases, tmp_path)
    assert max(len(program.splitlines()) for program in programs.values()) <= MOST_LINES_TUTORIAL
    for program in programs.values():
        assert "goodfit" not in program.partition('"""\n\nimport')[2]
        assert "STEPS_PER_EPOCH" not in program  # holds only what the run used


def test_programs_end_with_the_runs_weights(tmp_path):
    (tmp_path / "net.py").write_text(NET, encoding="utf-8")
    random = np.random.default_rng(0)
    table = random.normal(size=(120, 5)).astype(np.float32)
    numbers_to_learn = (table[:, 0] * 3 + 10).astype(np.float32)
    classes = (numbers_to_learn > 10).astype(np.int64)
    (tmp_path / "numbers").mkdir()
    row = "{half},{i},{c},{i}.5,2024-01-01 00:{i},{c}{c} "
    table_file = write_table(tmp_path / "table.csv", "x,y,kind,size,when,text", row)
    for part in ("train", "test"):
        pixels, labels = tiny_pictures(70, 10, 28, 1)
        wide = np.stack([labels] + [labels + 20] * 7, 1).astype(">i4")  # the writer and more beside the class
        write_idx_split(tmp_path, "qmnist", part, pixels[:, 0], wide)
    pictures = write_pictures(tmp_path / "pictures", count=30)
    everything = {"augment.flip": True, "augment.crop": 1, "augment.mixup": 0.4, "train.accumulate": 2, "train.ema": 0.9}
    everything |= {"model.name": "convnet", "model.dropout": 0.2, "train.precision": "bf16", "train.clip": 1.0}
    everything |= {"train.label_smoothing": 0.1, "train.class_weights": "balanced", "schedule.warmup": 0.2}
    everything |= {
        "optim.name": "sgd",
        "optim.lr": 0.2,
        "optim.momentum": 0.9,
        "optim.nesterov": True,
        "optim.weight_decay": 5e-4,
    }
    loss = OwnCode(own_model(nn.Sequential(nn.Flatten(), nn.Linear(64, 10))), loss=F.multi_margin_loss)
    own_loss = "import torch.nn.functional as functional\n    return functional.multi_margin_loss(outputs, targets)"
    cases = {
        "auto": Case({"data.name": "digits", "data.max_train": 200}),
        "everything": Case(DIGITS | everything),
        "early-stopping": Case(DIGITS | {"train.early_stopping": 1, "optim.lr": 1.0, "train.epochs": 6}),
        "frozen": Case(DIGITS | {"model.name": "convnet", "model.freeze": True}),
        "geometry": Case(DIGITS | {"augment.rand": 0.5, "augment.cutout": 3, "augment.cutmix": 1.0, "train.batch_size": 149}),
        "folder": Case({"data.name": str(pictures), "data.processes": 1, "model.name": "mlp"}),
        "one-logit": Case({"model.outputs": "one-logit"}, data=(table, classes), edit=put_data(table, classes, tmp_path)),
        "regression": Case(
            {"optim.weight_decay": 0.01},
            data=(table, numbers_to_learn),
            edit=put_data(table, numbers_to_learn, tmp_path / "numbers"),
        ),
        "qmnist": Case(
            {"data.name": "qmnist", "data.root": str(tmp_path), "train.batch_size": 16, "model.name": "mlp"},
            arguments=("--data", str(tmp_path)),
        ),
        "table": Case({"data.name": str(table_file), "data.target": "kind"}),
        "table of numbers": Case({"data.name": str(table_file), "data.target": "size", "train.ema": 0.8}),
        "own-model": Case(
            {"data.name": "digits", "data.max_train": 150, "model.hidden": 8},
            own=OwnCode(own_model(str(tmp_path / "net.py") + ":Net")),
            edit=lambda program: f'import sys\n\nsys.path.insert(0, "{tmp_path}")\n{program}',
        ),
        "own-loss": Case(
            {"data.name": "digits", "data.max_train": 150},
            own=loss,
            edit=lambda program: program.replace('raise NotImplementedError("put your own loss here")', own_loss),
        ),
    }
    programs = check_same_weights(cases, tmp_path)
    assert "from net import Net" in programs["own-model"]
    assert "# >>> put your own loss here: torch.nn.functional:multi_margin_loss <<<" in programs["own-loss"]
    assert "# >>> put your own data here <<<" in programs["regression"]


# What small colour pictures are trained with by default, made small.
COLOUR = {"model.name": "whitened-vgg", "model.widths": [4, 8, 8], "model.frozen": ["whitening.weight"]}
COLOUR |= {"optim.name": "muon", "optim.lr": 0.24, "optim.momentum": 0.6, "optim.iterations": 3, "schedule.name": "linear"}
COLOUR |= {"augment.crop": 2, "augment.flip": "alternating", "train.label_smoothing": 0.2, "train.precision": "bf16"}
COLOUR |= {"optim.normalize": True}


def test_programs_of_small_colour_pictures_end_with_the_runs_weights(tmp_path, monkeypatch):
    cifar10 = COLOUR | {"data.name": "cifar10", "data.root": str(tmp_path), "train.epochs": 3, "train.batch_size": 50}
    grey = {"data.name": "digits", "model.name": "whitened-vgg", "model.widths": [4], "model.activation": "relu"}
    grey |= {"optim.name": "muon", "optim.weight_decay": 0.1, "augment.flip": "alternating", "augment.crop": 0}
    place = ("--data", str(tmp_path))
    cases = {
        "cifar10": Case(cifar10, arguments=place, changes=write_cifar(tmp_path, monkeypatch)),
        "grey": Case(grey | {"train.epochs": 2, "train.accumulate": 2}),
    }
    programs = check_same_weights(cases, tmp_path)
    for program in programs.values():
        for line in (
            "class Muon(Optimizer):",
            "whiten(model.whitening, normalize(some))",
            "sides = first_sides[batch] ^ bool(epoch % 2)",
        ):
            assert program.count(line) == 1
    assert "model.whitening.weight.requires_grad_(False)" in programs["cifar10"]


def test_a_first_layer_is_not_whitened_again_where_training_goes_on(tmp_path):
    pictures = tiny_pictures(60, side=12)
    small = COLOUR | {"train.epochs": 1, "train.threads": 1, "train.batch_size": 8}
    (tmp_path / "first").mkdir()
    edit = put_data(*pictures, tmp_path)
    first = train_case(Case(small, data={"train": pictures}, edit=edit), tmp_path / "first")
    on = small | {"model.name": str(first.last), "model.frozen": [], "train.seed": 1, "optim.adam_lr": 0.01}
    del on["model.widths"]
    programs = check_same_weights({"on": Case(on, data={"train": pictures}, edit=edit)}, tmp_path)
    assert "load_file(START)" in programs["on"]
    assert "whiten(" not in programs["on"]


def test_constants_of_one_name_from_two_modules_are_not_mixed_up():
    specializer = Specializer(torch.device("cpu"))
    specializer.keep(muon.orthogonal)
    specializer.constants["EPS"] = ema
    with pytest.raises(CannotWriteError, match="EPS of two modules"):
        specializer.keep(muon.orthogonal, "again")


SLOW = {
    name: settings
    for name, settings in CONFIGURATIONS.items()
    if name not in ("table", "regression", "picture folder", "a save a step", "the best kept") and not name.startswith("own")
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_every_configuration_ends_with_the_runs_weights(name, tmp_path):
    data = make_data(name, tmp_path)
    case = Case(BASE | SLOW[name], data=data, edit=put_data(*data["train"], tmp_path))
    check_same_weights({name: case}, tmp_path, most_lines=MOST_LINES_OVER_AUTO)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"model.name": "resnet18", "model.width": 4},
        {"model.initialization": "small-first-layer", "optim.name": "adamw"},
        {"augment.crop": 1, "augment.fill": "zero", "schedule.name": "linear"},
        {"schedule.name": "step", "model.dropout": 0.5},
        {"model.name": "convnet", "model.frozen": ["stem", "stage1"], "train.clip": 0.1},
        {"model.name": "cifar10-quick", "model.activation": "gelu", "train.batch_size": "full"},
        {"optim.name": "muon", "optim.betas": [0.8, 0.9], "optim.adam_lr": 0.01, "train.clip": 0.3, "train.ema": 0.9},
        {"optim.name": "muon", "model.hidden": [], "optim.weight_decay": 0.1, "train.precision": "fp16"},
        {"optim.name": "muon", "model.name": "convnet", "model.freeze": True, "schedule.name": "constant"},
        {"optim.name": "muon", "model.name": "resnet18", "model.width": 4, "model.frozen": ["conv1.weight", "layer1"]},
        {"model.name": "whitened-vgg", "model.widths": [4], "model.depth": 1, "train.ema": 0.9, "optim.name": "sgd"},
        {"model.name": "mlp", "augment.flip": "alternating", "data.val": 0.0, "schedule.name": "constant"},
        {"augment.flip": "alternating", "augment.mixup": 0.2, "augment.rand": 0.4, "augment.cutout": 2},
    ],
    ids=str,
)
def test_more_programs_end_with_the_runs_weights(settings, tmp_path):
    check_same_weights({"more": Case(DIGITS | settings)}, tmp_path)


NET_WITH_ARGUMENTS = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, hidden):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, hidden), nn.BatchNorm1d(hidden), nn.Dropout(0.1))
        self.head = nn.Linear(hidden, 10)

    def forward(self, inputs):
        return self.head(self.body(inputs)).tanh(), "more"


def in_groups(model):
    groups = [{"params": model.body.parameters(), "lr": 0.05}, {"params": model.head.parameters()}]
    return torch.optim.SGD(groups, lr=0.2, momentum=0.9)


def of_parameters(parameters):
    return torch.optim.NAdam(parameters, lr=0.01)


def of_the_first(outputs, targets):
    return nn.functional.multi_margin_loss(outputs[0], targets)


def factor(step):
    return 1 / (1 + step / 10)
"""


def filled(module: str = "net", **places: str) -> Callable[[str], str]:
    """Return what a person does with the marked places, each of which is given what it returns."""

    def fill(program: str) -> str:
        assert program.count(">>> put your own ") == len(places)
        for noun, text in places.items():
            place = f'raise NotImplementedError("put your own {noun} here")'
            assert program.count(place) == 1
            program = program.replace(place, f"import {module}\n    return {text}")
        return program

    return fill


def test_objects_given_from_python_become_marked_places(tmp_path):
    (tmp_path / "net.py").write_text(NET_WITH_ARGUMENTS, encoding="utf-8")
    net = vars(sys.modules[load_code(f"{tmp_path / 'net.py'}:Net").__module__])
    lrs, built = torch.optim.lr_scheduler, net["Net"](8)
    stepped = torch.optim.SGD(built.parameters(), lr=0.1)
    digits = {"data.name": "digits", "data.max_train": 150, "train.epochs": 3}
    step_lr, cycle = partial(lrs.StepLR, step_size=2), partial(lrs.OneCycleLR, max_lr=0.1, total_steps=15)
    plateau, make = partial(lrs.ReduceLROnPlateau, patience=0, threshold=10.0), partial(net["Net"], hidden=4)
    cases = {
        "module": (OwnCode(own_model(built)), digits, {"model": "net.Net(8)"}),
        "partial": (
            OwnCode(own_model(make)),
            digits | {"train.precision": "bf16", "train.accumulate": 2},
            {"model": "net.Net(4)"},
        ),
        "module, optimizer": (
            OwnCode(own_model(built), optimizer=net["in_groups"](built)),
            digits | {"schedule.name": "cosine", "train.clip": 0.5},
            {"model": "net.Net(8)", "optimizer": "net.in_groups(model)"},
        ),
        "module, optimizer, schedule": (
            OwnCode(own_model(built), optimizer=stepped, schedule=lrs.ExponentialLR(stepped, 0.5)),
            digits,
            {
                "model": "net.Net(8)",
                "optimizer": "torch.optim.SGD(model.parameters(), lr=0.1)",
                "schedule": "torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)",
            },
        ),
        "optimizer class": (
            OwnCode(optimizer=torch.optim.SGD),
            DIGITS | {"optim.lr": 0.1, "optim.weight_decay": 0.01, "optim.nesterov": True, "optim.momentum": 0.9},
            {"optimizer": "torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=True)"},
        ),
        "optimizer function": (
            OwnCode(optimizer=net["of_parameters"], schedule=net["factor"]),
            DIGITS,
            {"optimizer": "net.of_parameters(list(model.parameters()))", "schedule": "net.factor(step)"},
        ),
        "schedule function": (OwnCode(schedule=net["factor"]), DIGITS, {"schedule": "net.factor(step)"}),
        "scheduler by epochs": (
            OwnCode(schedule=step_lr),
            DIGITS,
            {"schedule": "torch.optim.lr_scheduler.StepLR(optimizer, step_size=2)"},
        ),
        "scheduler by steps": (
            OwnCode(schedule=cycle),
            DIGITS | {"train.batch_size": 32, "train.epochs": 3},
            {"schedule": "torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=15)"},
        ),
        "scheduler by loss": (
            OwnCode(schedule=plateau),
            DIGITS | {"train.epochs": 4},
            {"schedule": "torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=10.0)"},
        ),
        "loss": (OwnCode(loss=nn.CrossEntropyLoss()), DIGITS, {"loss": "nn.CrossEntropyLoss()(outputs, targets)"}),
        "loss, in parts": (
            OwnCode(loss=nn.CrossEntropyLoss(label_smoothing=0.1)),
            DIGITS | {"train.accumulate": 2},
            {"loss": "nn.CrossEntropyLoss(label_smoothing=0.1)(outputs, targets)"},
        ),
    }
    check_same_weights(
        {name: Case(settings, own=own, edit=filled(**places)) for name, (own, settings, places) in cases.items()},
        tmp_path,
        place=tmp_path,
    )


class ListOfPairs(Dataset[Any]):
    def __init__(self, pairs):
        self.pairs = pairs

    def __len__(self):
        return len(self.pairs)

    def __getitem__(self, index):
        return self.pairs[index]


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, a, b):
        return self.layer(a * b)


class WithoutHead(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, inputs):
        return self.layer(inputs.flatten(1))


OWN_DATA = """
import random
import numpy as np
import torch
from torch.utils.data import Dataset, TensorDataset


class Own(Dataset):
    def __init__(self, inputs, targets):
        self.inputs, self.targets = torch.as_tensor(inputs), torch.as_tensor(targets)

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        noise = torch.rand(()) + random.random() + np.random.rand()
        return self.inputs[index] / 255 + noise, self.targets[index].item()


def make(part):
    found = np.load("{folder}/own.npz")
    return Own(found["X"][{{"train": 0, "test": 30}}[part] :], found["y"][{{"train": 0, "test": 30}}[part] :])


def tensors():
    found = np.load("{folder}/own.npz")
    return TensorDataset(torch.as_tensor(found["X"]) / 255, torch.as_tensor(found["y"]))
"""


def test_data_sets_given_from_python_become_marked_places(tmp_path):
    inputs, targets = tiny_pictures(90)
    np.savez(tmp_path / "own.npz", X=inputs, y=targets)
    (tmp_path / "own_data.py").write_text(OWN_DATA.format(folder=tmp_path), encoding="utf-8")
    own_data = vars(sys.modules[load_code(f"{tmp_path / 'own_data.py'}:Own").__module__])
    small = {"model.name": "mlp", "train.batch_size": 16}
    loader = {"shuffle": True, "batch_size": 16}
    as_own = filled(data="own_data.make(part)", module="own_data")
    as_tensors = filled(data="own_data.tensors()", module="own_data")
    cases = {
        "data set": Case(small | {"train.ema": 0.9, "train.seed": 3}, data={"train": own_data["make"]("train")}, edit=as_own),
        "parts": Case(small, data={part: own_data["make"](part) for part in ("train", "test")}, edit=as_own),
        "limited": Case(small | {"data.max_train": 40}, data={"train": own_data["make"]("train")}, edit=as_own),
        "loader": Case({"model.name": "mlp"}, data={"train": DataLoader(own_data["make"]("train"), **loader)}, edit=as_own),
        "tensors": Case(small, data={"train": own_data["tensors"]()}, edit=as_tensors),
        "whitened": Case(
            {"model.name": "whitened-vgg", "model.widths": [4], "train.threads": 1},
            data={"train": own_data["make"]("train")},
            edit=as_own,
        ),
        "loader of tensors": Case(
            {"model.name": "mlp"}, data={"train": DataLoader(own_data["tensors"](), **loader)}, edit=as_tensors
        ),
    }
    check_same_weights(cases, tmp_path, place=tmp_path)


def test_a_module_that_cannot_be_built_by_name_has_a_marked_place(tmp_path):
    (tmp_path / "net.py").write_text(NET_WITH_ARGUMENTS, encoding="utf-8")
    net = load_code("net.py:Net")
    in_a_notebook = type("Net", (net,), {"__module__": "cell"})
    cases, programs = [], []
    model, loss = {"model": "net.Net(8)"}, {"loss": "net.of_the_first(outputs, targets)"}
    for name, module, precision, places in (
        ("file", net(8), "fp32", model),
        ("notebook", in_a_notebook(8), "bf16", model | loss),
    ):
        (tmp_path / name).mkdir()
        settings = {"data.name": "digits", "data.max_train": 100, "train.precision": precision}
        own = OwnCode(own_model(module), loss=load_code("net.py:of_the_first") if "loss" in places else None)
        cases.append(Case(settings, own=own, edit=filled(**places)))
        run = train_case(cases[-1], tmp_path / name)
        done = goodfit("eject", run.path, *(["--model", "net.py:Net"] if name == "file" else []))
        assert (done.code, done.err) == (0, "")
        programs.append(done.out)
        (tmp_path / name / "train.py").write_text(cases[-1].edit(done.out), encoding="utf-8")
    run_programs([tmp_path / "file", tmp_path / "notebook"], cases, tmp_path)
    for name in ("file", "notebook"):
        assert digest(tmp_path / name / "run" / "best.safetensors") == digest(tmp_path / name / "model.safetensors")
    check_form(dict(zip(("file", "notebook"), programs, strict=True)), tmp_path)


def test_a_run_that_was_stopped_gives_the_same_program(tmp_path):
    settings = BASE | DIGITS | {"train.epochs": 2}
    case = Case(settings)
    request = Request(layers=[Layer("test", settings)], out=tmp_path / "stopped" / "run", recipe="auto")
    with pytest.raises(Interrupted):
        train(request, silent(), StopAt(3))
    stopped = eject(Run(request.out), case)
    assert stopped == eject(resume(request.out, silent(), StopSignals()), case)
    (tmp_path / "whole").mkdir()
    assert stopped == eject(train_case(case, tmp_path / "whole"), case)


def test_a_resumed_run_ends_with_the_programs_weights(tmp_path):
    settings = DIGITS | {"train.epochs": 2, "train.threads": 1, "augment.crop": 1, "train.ema": 0.9}
    case = Case(settings)
    run = run_with_stops(None, tmp_path / "run", settings, [3, 4])
    (tmp_path / "train.py").write_text(eject(run, case), encoding="utf-8")
    printed = run_programs([tmp_path], [case])
    assert digest(run.model) == digest(tmp_path / "model.safetensors")
    assert run.test is not None
    assert f"accuracy {run.test.accuracy:.2%}" in printed.splitlines()[-1]


def test_a_run_with_more_epochs_than_it_was_started_with_is_refused(tmp_path):
    case = Case(DIGITS | {"schedule.name": "one-cycle"})
    run = train_case(case, tmp_path)
    longer = resume(run.path, silent(), StopSignals(), epochs=3)
    with pytest.raises(ConfigError, match="more epochs when it was resumed"):
        write_program(longer)


def test_files_of_arrays_and_columns_end_with_the_runs_weights(tmp_path):
    random = np.random.default_rng(0)
    pictures, targets = tiny_pictures(90)
    numbers = np.asfortranarray(random.normal(size=(80, 4)))
    np.savez(tmp_path / "plain.npz", X=numbers, y=(numbers[:, :1] > 0).astype(np.int16))
    np.savez(tmp_path / "value.npz", images=numbers, height=numbers[:, 0] * 3 + 1)
    parts = {"train": slice(60), "test": slice(60, 75), "val": slice(75, 90)}
    words = np.array(["small", "large", "none"])[targets]
    turned = pictures.transpose(0, 2, 3, 1)
    arrays = {f"x_{part}": turned[rows] for part, rows in parts.items()} | {
        f"y_{part}": words[rows] for part, rows in parts.items()
    }
    np.savez(tmp_path / "pictures.npz", **arrays)
    np.savez(tmp_path / "counted.npz", x=pictures[:, 0], y=targets, classes=["one", "two", "three"])
    columns = {
        "half": random.normal(size=70).astype(np.float32),
        "whole": random.normal(size=70) * 1e-7,
        "count": random.integers(-9, 9, 70),
        "yes": random.random(70) > 0.5,
        "word": pl.Series(["ab", "NA", " c", None, "d"] * 14).cast(pl.Categorical),
        "kind": pl.Series(["u", "v"] * 35),
    }
    frame = pl.DataFrame(columns).with_columns(pl.when(pl.col("count") > 6).then(None).otherwise(pl.col("half")).alias("half"))
    frame.write_parquet(tmp_path / "table.parquet")
    cases = {
        "plain": Case({"data.name": "plain.npz"}),
        "value": Case({"data.name": "value.npz", "data.target": "height"}),
        "pictures": Case({"data.name": "pictures.npz", "model.name": "mlp", "augment.flip": True}),
        "counted": Case({"data.name": "counted.npz", "model.name": "mlp"}),
        "parquet": Case({"data.name": "table.parquet", "data.target": "kind"}),
        "parquet of numbers": Case({"data.name": "table.parquet", "data.target": "whole"}),
    }
    for case in cases.values():
        case.settings["data.name"] = str(tmp_path / case.settings["data.name"])
    programs = check_same_weights(cases, tmp_path)
    assert "allow_pickle=False" in programs["plain"]


def test_a_model_of_timm_ends_with_the_runs_weights(tmp_path):
    pytest.importorskip("timm")
    pictures = tiny_pictures(60, side=32)
    settings = {"model.name": "timm/test_resnet", "train.epochs": 1}
    check_same_weights({"of timm": Case(settings, data={"train": pictures}, edit=put_data(*pictures, tmp_path))}, tmp_path)


def test_what_is_not_built_is_refused_by_name(tmp_path):
    days = [date(2024, 1, 1) + timedelta(days=row) for row in range(60)]
    pl.DataFrame({"day": days, "y": ["a", "b"] * 30}).write_parquet("table.parquet")
    table = train_case(Case({"data.name": "table.parquet", "data.target": "y"}), tmp_path)
    with pytest.raises(ConfigError, match=r"eject of a \.parquet whose column 'day' is of type Date is not built yet"):
        write_program(table)
    (tmp_path / "own").mkdir()
    pairs = [({"a": torch.rand(4), "b": torch.rand(4)}, row % 2) for row in range(60)]
    own = OwnCode(own_model(TwoInputs()))
    given = train_case(Case({"train.epochs": 1}, data={"train": ListOfPairs(pairs)}, own=own), tmp_path / "own")
    with pytest.raises(ConfigError, match="eject of data that code of your own reads is not built yet"):
        write_program(given, own)
    (tmp_path / "head").mkdir()
    own = OwnCode(own_model(type("WithoutHead", (WithoutHead,), {"__module__": "cell"})()))
    of_muon = train_case(Case({"data.name": "digits", "optim.name": "muon", "train.epochs": 1}, own=own), tmp_path / "head")
    with pytest.raises(ConfigError, match=r"has no `head`, with optim\.name = 'muon', is not built yet"):
        write_program(of_muon)
    assert "in model.layer.parameters()}" in write_program(of_muon, own)


@pytest.mark.parametrize(
    ("loader", "order"),
    [
        (lambda pairs: DataLoader(pairs, 8, sampler=WeightedRandomSampler([1.0] * 60, 60)), "that of a sampler"),
        (lambda pairs: DataLoader(pairs, 8), "every epoch alike"),
        (lambda pairs: DataLoader(pairs, 8, shuffle=True, drop_last=True), "the last short batch left out"),
    ],
)
def test_a_loader_with_an_order_of_its_own_is_refused(loader, order, tmp_path):
    with pytest.raises(ConfigError, match=rf"a data loader with an order of its own \({order}\) is not built yet"):
        write_program(train_with(loader, tmp_path))


def test_a_loader_that_shuffles_is_written(tmp_path):
    run = train_with(lambda pairs: DataLoader(pairs, 8, shuffle=True), tmp_path)
    assert "put your own data here" in write_program(run)


def train_with(loader, tmp_path):
    pairs = ListOfPairs([(torch.rand(4), row % 2) for row in range(60)])
    data = {"train": loader(pairs), "val": pairs, "test": pairs}
    return train_case(Case({"model.name": "mlp", "train.epochs": 1}, data=data), tmp_path)


def test_a_run_whose_batches_became_smaller_is_refused(tmp_path):
    run = train_case(Case(DIGITS), tmp_path)
    with (run.path / "metrics.jsonl").open("a") as log:
        log.write('{"event": "halving", "step": 3, "epoch": 0.5, "accumulate": 2}\n')
    with pytest.raises(ConfigError, match="whose batches memory made smaller, as at step 3, is not built yet"):
        write_program(Run(run.path))


@pytest.mark.parametrize("told", [{"data": 1}, {"examples": {"train": 1 << 50}}, {"examples": []}, {"epochs": "many"}])
def test_a_model_file_that_does_not_say_what_it_was_trained_on_is_refused(told, tmp_path):
    run = train_case(Case(DIGITS), tmp_path)
    file = ModelFile.load(run.last)
    replace(file, training=file.training | told).save(run.last)
    with pytest.raises(FileError, match="does not say what it was trained on"):
        write_program(Run(run.path))


def test_the_users_code_runs_only_when_it_is_named(tmp_path):
    (tmp_path / "net.py").write_text(NET, encoding="utf-8")
    own = OwnCode(own_model("net.py:Net"))
    run = train_case(Case({"data.name": "digits", "data.max_train": 100}, own=own), tmp_path)
    with pytest.raises(CodeNeededError):
        write_program(run)
    done = goodfit("eject", run.path, "--model", "net.py:Net")
    assert (done.code, done.err) == (0, "")
    assert done.out == write_program(run, own)
    assert goodfit("eject", run.path).code == 2


def test_expressions_are_written_as_they_were():
    """All of the package's own."""
    kinds = (ast.Call, ast.BinOp, ast.BoolOp, ast.UnaryOp, ast.Compare, ast.Subscript, ast.IfExp, ast.ListComp, ast.Lambda)
    nodes = [node for path in FILES for node in ast.walk(tree(path)) if isinstance(node, kinds)]
    read = [node for node in nodes if not isinstance(getattr(node, "ctx", None), ast.Store | ast.Del)]
    assert len(read) > 1000
    for node in read:
        assert ast.dump(ast.parse(expression(node), mode="eval").body) == ast.dump(node), ast.unparse(node)
