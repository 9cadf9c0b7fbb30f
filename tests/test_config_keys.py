"""A key that is accepted changes the run: every configuration key is set once, and a run is seen to differ by it."""

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from harness import request, tiny_pictures
from PIL import Image

from goodfit.artefacts.records import Record
from goodfit.artefacts.run import Run
from goodfit.config import Config
from goodfit.data.named import NAMED
from goodfit.devices import computing
from goodfit.errors import GoodfitError
from goodfit.models import MODELS, model_arguments
from goodfit.randomness import reseed
from goodfit.signals import StopSignals
from goodfit.training.optimizers import OPTIMIZERS, optimizer_arguments
from goodfit.training.schedules import SCHEDULES, schedule_arguments
from goodfit.workflows import train

Patch = pytest.MonkeyPatch

BASE: dict[str, Any] = {
    "model.name": "mlp",
    "train.epochs": 1,
    "train.batch_size": 16,  # 3 steps an epoch
    "train.threads": 1,
    "train.precision": "fp32",
    "train.device": "cpu",
    "optim.name": "sgd",
    "optim.lr": 0.1,
    "optim.weight_decay": 0.0,
    "schedule.name": "constant",
    "checkpoint.every_seconds": 0.0,
}


# What is seen of a run.


@dataclass(frozen=True)
class Seen:
    run: Run
    threads: set[int]  # that torch computed with


class Witness:
    """Looks on at a run as the screen does."""

    def __init__(self) -> None:
        self.threads: set[int] = set()
        self.say = self.progress = self.begin = lambda *_: None
        self.close = lambda: None

    def observe(self, record: Record) -> None:
        self.threads.add(torch.get_num_threads())


def weights(seen: Seen) -> list[float]:
    assert seen.run.best is not None
    return torch.cat([tensor.double().flatten() for tensor in seen.run.best.tensors.values()]).tolist()


def body_moved(seen: Seen) -> bool:
    file = seen.run.best
    assert file is not None
    reseed(0, "init")
    first = file.architecture.build().state_dict()
    return not torch.equal(first["stem.0.conv.weight"], file.tensors["stem.0.conv.weight"])


def forward_passes(seen: Seen) -> int:
    assert seen.run.best is not None
    return int(seen.run.best.tensors["stem.0.norm.num_batches_tracked"])


def kernels_repeat(seen: Seen) -> bool:
    """Whether kernels that repeat are asked for; only on CUDA is there a choice, so it is asked of the context manager."""
    with computing(torch.device("cuda"), torch.get_num_threads(), seen.run.config.train.deterministic):
        return torch.are_deterministic_algorithms_enabled()


def in_file(*names: str) -> Callable[[Seen], Any]:
    """Look up something in the model file."""

    def see(seen: Seen) -> Any:
        found: Any = seen.run.best
        for name in names:
            found = found[name] if isinstance(found, dict) else getattr(found, name)
        return found

    return see


def sizes(seen: Seen) -> tuple[int, ...]:
    found = in_file("training", "examples")(seen)
    return tuple(found.get(split, 0) for split in ("train", "val", "test"))


def rates(seen: Seen) -> list[float]:
    return [line["learning_rate"] for line in seen.run.metrics if line["event"] == "train"]


def steps(seen: Seen) -> int:
    assert seen.run.end is not None
    return int(seen.run.end["step"])


def checkpoints(seen: Seen) -> list[int]:
    return sorted(int(path.name.removeprefix("step-")) for path in seen.run.checkpoints.iterdir())


def decoded(_: Seen) -> bool:
    """Whether the pixels lie on the disk; what does not fit is read from the pictures."""
    return any(path.stat().st_size > 30 * 3 * 8 * 8 for path in Path("cache").rglob("*") if path.is_file())


def transform(key: str) -> Callable[[Seen], Any]:
    return lambda seen: in_file("transform")(seen).to_json()[key]


data_seen = in_file("training", "fingerprint")
input_shape = in_file("architecture", "input_shape")


# Data, made in the test's own folder; where None comes back, data.name names them.


def pictures(_: Patch) -> Any:
    return {"train": tiny_pictures()}


def two_classes(_: Patch) -> Any:
    return {"train": tiny_pictures(classes=2)}


def larger_pictures(_: Patch) -> Any:
    return {"train": tiny_pictures(side=16)}


def folder(_: Patch) -> None:
    stored, targets = tiny_pictures(30)
    for index, (picture, target) in enumerate(zip(stored, targets, strict=True)):
        path = Path("folder", f"class {target}", f"{index}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.transpose(1, 2, 0)).save(path)


def damaged_folder(patch: Patch) -> None:
    folder(patch)
    Path("folder", "class 0", "0.png").write_bytes(b"no picture")


def counted_processes(patch: Patch) -> None:
    """Few pictures that are decoded by processes as many are; each process leaves a file when it is started."""
    from goodfit.data import cache, processes

    popen = processes.Popen

    def start(*arguments: Any, **options: Any) -> Any:
        Path(f"process-{len(list(Path().glob('process-*')))}").touch()
        return popen(*arguments, **options)

    patch.setattr(processes, "Popen", start)
    patch.setattr(cache, "FEW", 1)
    patch.setattr(cache, "CHUNK", 10)
    folder(patch)


def table(_: Patch) -> None:
    rows = [f"{index},{index % 7},{'red' if index % 2 else 'blue'},{'round' if index % 3 else 'flat'}" for index in range(40)]
    Path("table.csv").write_text("\n".join(["first,second,colour,shape", *rows]))


def two_files(_: Patch) -> None:
    for name, seed in (("one", 0), ("other", 1)):
        inputs, targets = tiny_pictures(seed=seed)
        np.savez(f"{name}.npz", X=inputs, y=targets)


def two_roots(_: Patch) -> None:
    for root, seed in (("one", 0), ("other", 1)):
        for split in NAMED["mnist"].splits.values():
            inputs, targets = tiny_pictures(60, classes=10, side=28, channels=1, seed=seed)
            for file, array in zip(split.files, (inputs[:, 0], targets.astype(np.uint8)), strict=True):
                path = Path(root, file)
                path.parent.mkdir(parents=True, exist_ok=True)
                header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
                path.write_bytes(header + array.tobytes())


def no_network(patch: Patch) -> None:
    from torchvision.datasets import MNIST

    patch.setattr(MNIST, "mirrors", ["http://127.0.0.1:1/"])


def weights_of_ones(patch: Patch) -> Any:
    """Pictures, and a library whose pretrained weights are easily told from others."""
    from torchvision.models import get_model

    def ones(name: str) -> dict[str, torch.Tensor]:
        return {key: torch.ones_like(tensor) for key, tensor in get_model(name).state_dict().items()}

    patch.setattr("goodfit.models.external._torchvision_weights", ones)
    return larger_pictures(patch)


@dataclass(frozen=True)
class Case:
    """One key: the value that it gets, what is seen of the run, and what is seen without and with it.

    Where `shows` is empty the two only have to differ; a pattern stands for an error's message.
    """

    value: Any
    see: Callable[[Seen], Any] = weights
    shows: tuple[Any, Any] | tuple[()] = ()
    base: dict[str, Any] = field(default_factory=dict)
    data: Callable[[Patch], Any] = pictures


CONVNET = {"model.name": "convnet"}
FOLDER = {"data.name": "folder"}
TWO = FOLDER | {"data.processes": 2}
MOMENTUM = {"optim.momentum": 0.5}
STEPWISE = {"checkpoint.every_steps": 1}

KEYS = {
    "data.name": Case("other.npz", data_seen, data=two_files, base={"data.name": "one.npz"}),
    "data.root": Case("other", data_seen, data=two_roots, base={"data.name": "mnist", "data.root": "one"}),
    "data.target": Case(
        "colour",
        in_file("classes"),
        (("flat", "round"), ("blue", "red")),
        data=table,
        base={"data.name": "table.csv", "data.target": "shape"},
    ),
    "data.task": Case("regression", in_file("task"), ("classification", "regression")),
    "data.val": Case(0.25, sizes, ((43, 5, 12), (36, 12, 12))),
    "data.test": Case(0.5, sizes, ((43, 5, 12), (27, 3, 30))),
    "data.max_train": Case(30, sizes, ((43, 5, 12), (30, 5, 12))),
    "data.image_size": Case(16, input_shape, ((3, 8, 8), (3, 16, 16)), FOLDER, folder),
    "data.skip_bad": Case(True, sizes, (re.compile("0.png"), (20, 3, 6)), FOLDER, damaged_folder),
    "data.download": Case(
        False,
        shows=(re.compile("cannot be downloaded"), re.compile("or --set data.download=true")),
        base={"data.name": "mnist", "data.root": "empty"},
        data=no_network,
    ),
    "data.processes": Case(
        2, lambda _: len(list(Path().glob("process-*"))), (0, 2), FOLDER | {"data.processes": 1}, counted_processes
    ),
    "data.timeout": Case(1e-6, input_shape, ((3, 8, 8), re.compile("took too long at 'class")), TWO, counted_processes),
    "data.budget": Case(1e-9, decoded, (True, False), FOLDER, folder),
    "transform.mean": Case(0.25, transform("mean")),
    "transform.std": Case([0.5, 0.25, 0.125], transform("std")),
    "model.name": Case("convnet", in_file("architecture", "name"), ("mlp", "convnet")),
    "model.pretrained": Case(
        True, data=weights_of_ones, base={"model.name": "torchvision/shufflenet_v2_x0_5", "optim.lr": 1e-9}
    ),
    "model.freeze": Case(True, body_moved, (True, False), CONVNET),
    "model.frozen": Case(["stem"], body_moved, (True, False), CONVNET),
    "model.outputs": Case("one-logit", in_file("outputs"), ("logits", "one-logit"), data=two_classes),
    "train.epochs": Case(3, steps, (3, 9)),
    "train.batch_size": Case("full", steps, (3, 1)),
    "train.accumulate": Case(2, forward_passes, (3, 6), CONVNET),
    "train.precision": Case("bf16", in_file("precision"), ("fp32", "bf16")),
    "train.ema": Case(0.5),
    "train.loss": Case("own.py:loss", steps, (3, re.compile("give it in Python: loss="))),
    "train.label_smoothing": Case(0.2),
    "train.class_weights": Case([1.0, 5.0, 1.0]),
    "train.clip": Case(0.01),
    "train.early_stopping": Case(1, steps, (12, 6), {"optim.lr": 1e-30, "train.epochs": 4}),
    "train.seed": Case(1),
    "train.device": Case(
        "cuda:99", lambda seen: seen.run.environment["device_kind"], ("cpu", re.compile("'cuda:99' is not on this machine"))
    ),
    "train.threads": Case(2, lambda seen: seen.threads, ({1}, {2})),
    "train.deterministic": Case(False, kernels_repeat, (True, False)),
    "optim.name": Case("adagrad"),
    "optim.lr": Case(0.2, rates, ([0.1, 0.1, 0.1], [0.2, 0.2, 0.2])),
    "optim.momentum": Case(0.5),
    "optim.weight_decay": Case(0.1),
    "schedule.name": Case("step", rates, ([0.1, 0.1, 0.1], pytest.approx([0.1, 0.01, 0.001]))),
    "schedule.warmup": Case(0.9, rates, ([0.1, 0.1, 0.1], pytest.approx([0.025, 0.05, 0.075]))),
    "augment.flip": Case(True),
    "augment.crop": Case(2),
    "augment.fill": Case("zero", base={"augment.crop": 2}),
    "augment.cutout": Case(3),
    "augment.rand": Case(1.0),
    "augment.mixup": Case(0.5),
    "augment.cutmix": Case(0.5),
    "log.every_steps": Case(2, lambda seen: len(rates(seen)), (3, 2)),
    "checkpoint.every_seconds": Case(1e-9, lambda seen: 1 in checkpoints(seen), (False, True), {"checkpoint.keep": 9}),
    "checkpoint.every_steps": Case(2, checkpoints, ([3], [2, 3])),
    "checkpoint.keep": Case(1, checkpoints, ([2, 3], [3]), STEPWISE),
    "model.hidden (mlp)": Case([5]),
    "model.activation (mlp)": Case("tanh"),
    "model.dropout (mlp)": Case(0.5),
    "model.initialization (mlp)": Case("small-first-layer"),
    "model.activation (lenet)": Case("tanh", data=larger_pictures),
    "model.activation (cifar10-quick)": Case("relu"),
    "model.width (convnet)": Case(4),
    "model.depth (convnet)": Case(3),
    "model.dropout (convnet)": Case(0.5),
    "model.widths (whitened-vgg)": Case([4, 6], base={"model.widths": [4, 8]}),
    "model.depth (whitened-vgg)": Case(1, base={"model.widths": [4, 6]}),
    "model.activation (whitened-vgg)": Case("relu", base={"model.widths": [4, 6]}),
    "model.width (resnet18)": Case(2, base={"model.width": 4}),
    "model.small_stem (resnet18)": Case(False, base={"model.width": 2}),
    "optim.momentum (sgd)": Case(0.5),
    "optim.dampening (sgd)": Case(0.5, base=MOMENTUM),
    "optim.nesterov (sgd)": Case(True, base=MOMENTUM),
    "optim.weight_decay (sgd)": Case(0.1),
    **{f"optim.betas ({name})": Case([0.5, 0.6]) for name in ("adam", "adamw", "nadam", "radam", "adamax")},
    **{f"optim.eps ({name})": Case(0.1) for name in ("adam", "adamw", "nadam", "adamax", "adagrad", "adadelta", "rmsprop")},
    "optim.eps (radam)": Case(0.1, base={"train.epochs": 2}),  # without effect on the first five steps
    **{f"optim.weight_decay ({name})": Case(0.1) for name in OPTIMIZERS if name not in ("sgd", "rprop")},
    **{f"optim.amsgrad ({name})": Case(True, base={"optim.betas": [0.5, 0.2]}) for name in ("adam", "adamw")},
    **{
        f"optim.decoupled_weight_decay ({name})": Case(True, base={"optim.weight_decay": 0.1})
        for name in ("adam", "nadam", "radam")
    },
    "optim.momentum_decay (nadam)": Case(0.5),
    "optim.lr_decay (adagrad)": Case(0.5),
    "optim.initial_accumulator_value (adagrad)": Case(0.5),
    "optim.rho (adadelta)": Case(0.5),
    "optim.alpha (rmsprop)": Case(0.5),
    "optim.momentum (rmsprop)": Case(0.5),
    "optim.centered (rmsprop)": Case(True),
    "optim.etas (rprop)": Case([0.1, 1.9]),
    "optim.step_sizes (rprop)": Case([0.05, 0.06]),
    "optim.lambd (asgd)": Case(0.5),
    "optim.alpha (asgd)": Case(0.1, base={"optim.lambd": 0.5}),
    "optim.momentum (muon)": Case(0.5),
    "optim.betas (muon)": Case([0.5, 0.6]),
    "optim.iterations (muon)": Case(2),
    "optim.adam_lr (muon)": Case(0.1),
    "optim.normalize (muon)": Case(True),
    "schedule.final (linear)": Case(0.5, rates),
    "schedule.final (cosine)": Case(0.5, rates),
    "schedule.drops (step)": Case(1, rates),
    "schedule.gamma (step)": Case(0.5, rates),
    "schedule.peak (one-cycle)": Case(0.6, rates),
    "schedule.start (one-cycle)": Case(0.5, rates),
    "schedule.final (one-cycle)": Case(0.5, rates),
}


def test_every_key_has_a_case() -> None:
    fields = {f"{section}.{key}" for section, values in Config() for key in type(values).model_fields}
    models = {f"model.{key} ({name})" for name in MODELS for key in model_arguments(name)}
    optimizers = {f"optim.{key} ({name})" for name in OPTIMIZERS for key in optimizer_arguments(name)}
    schedules = {f"schedule.{key} ({name})" for name in SCHEDULES for key in schedule_arguments(name)}
    assert set(KEYS) == fields | models | optimizers | schedules


@pytest.mark.parametrize("name", KEYS)
def test_a_key_changes_the_run(name: str, tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # set by goodfit itself on CUDA, and for good
    key, _, owner = name.partition(" ")
    case = KEYS[name]
    base = BASE | case.base | ({f"{key.partition('.')[0]}.name": owner.strip("()")} if owner else {})
    data = case.data(monkeypatch)
    without = observe(case, data, tmp_path / "without", base)
    changed = observe(case, data, tmp_path / "changed", base | {key: case.value})
    assert without != changed
    for found, expected in zip((without, changed), case.shows, strict=False):
        if isinstance(expected, re.Pattern):
            assert expected.search(str(found))
        else:
            assert found == expected


def observe(case: Case, data: Any, out: Path, settings: dict[str, Any]) -> Any:
    """Run it, and return what is seen; an error's message where an error is expected."""
    shutil.rmtree("cache", ignore_errors=True)
    witness = Witness()
    try:
        run = train(request(data, out, settings), witness, StopSignals())
    except GoodfitError as error:
        if not any(isinstance(expected, re.Pattern) for expected in case.shows):
            raise
        return str(error)
    return case.see(Seen(run, witness.threads))
