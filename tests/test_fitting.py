"""The visible loop: what is logged, evaluated, chosen and saved, and when."""

import io
import math
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from harness import StopAt, request, run_through, silent, tiny_pictures
from safetensors.torch import load_file
from torch import Tensor, nn

from goodfit import fitting
from goodfit.artefacts.checkpoint import find_checkpoints, newest_checkpoint
from goodfit.artefacts.model_file import ModelFile
from goodfit.artefacts.run import Run
from goodfit.config import Layer
from goodfit.devices import computing
from goodfit.display import Display
from goodfit.errors import DivergedError, Interrupted
from goodfit.evaluation.evaluate import evaluate
from goodfit.models.own import OwnModel
from goodfit.signals import StopSignals
from goodfit.testing import evaluate_model
from goodfit.training.own import OwnCode
from goodfit.workflows import Request, resume, train

BASE: dict[str, Any] = {
    "model.name": "mlp",
    "train.epochs": 4,
    "train.batch_size": 16,  # 3 steps an epoch
    "train.threads": 1,
    "train.precision": "fp32",
    "train.device": "cpu",
    "optim.name": "sgd",
    "optim.lr": 0.1,
    "schedule.name": "constant",
    "checkpoint.every_seconds": 0.0,
}
OVERFITTING = {"train.epochs": 8, "optim.lr": 0.5}


def noise(seed: int = 0) -> tuple[Any, Any]:
    """Pictures without anything to learn: the better they are known, the worse is the loss on others."""
    random = np.random.default_rng(seed)
    return random.integers(0, 255, (60, 3, 8, 8)).astype(np.uint8), np.arange(60) % 3


def lines(run: Run, event: str) -> list[dict[str, Any]]:
    return [line for line in run.metrics if line["event"] == event]


def saved_steps(run: Run) -> list[int]:
    return [int(path.name.removeprefix("step-")) for path in find_checkpoints(run.checkpoints)]


def test_what_a_run_says_in_order(tmp_path: Path) -> None:
    run = run_through({"train": tiny_pictures()}, tmp_path / "run", BASE | {"train.epochs": 2, "log.every_steps": 2})
    said = [(line["event"], line["step"]) for line in run.metrics]
    epochs = [[("train", 3 * e + step) for step in (2 - e % 2, 3)] + [("evaluation", 3 * e + 3)] for e in range(2)]
    best = next(line["step"] for line in reversed(run.metrics) if line.get("best"))
    assert said == [*epochs[0], *epochs[1], ("test", best), ("end", 6)]
    assert run.end is not None
    assert (run.end["epoch"], run.end["reason"]) == (2, "all epochs done")
    seconds = [line["clock"]["seconds"] for line in run.metrics if "clock" in line]
    assert all(before <= after for before, after in pairwise(seconds))
    assert saved_steps(run) == [6]


def test_the_best_step_is_the_one_of_the_lowest_validation_loss(tmp_path: Path) -> None:
    data = {"train": noise(), "test": noise(1)}
    run = run_through(data, tmp_path / "run", BASE | OVERFITTING)
    curve = lines(run, "evaluation")
    best = min(curve, key=lambda line: line["loss"])
    assert best["step"] < curve[-1]["step"]
    assert [line["split"] for line in curve] == ["val"] * 8
    flags = [line["loss"] < min([math.inf, *(before["loss"] for before in curve[:index])]) for index, line in enumerate(curve)]
    assert [line["best"] for line in curve] == flags
    assert run.best is not None
    assert run.val is not None
    assert (run.best.training["steps"], run.val.loss) == (best["step"], best["loss"])
    assert ModelFile.load(run.last).training["steps"] == curve[-1]["step"]
    # The best is what was tested, once.
    assert run.test_uses == 1
    assert run.test == evaluate_model(run.path, data)
    assert [line["step"] for line in lines(run, "test")] == [best["step"]]
    assert lines(run, "test")[0]["loss"] == run.test.loss


def test_the_test_split_chooses_nothing(tmp_path: Path) -> None:
    runs = [
        run_through({"train": noise(), "test": noise(seed)}, tmp_path / f"{val} {seed}", BASE | OVERFITTING | {"data.val": val})
        for val in (0.1, 0.0)
        for seed in (1, 2)
    ]
    files = [run.best for run in runs]
    for one, other in (files[:2], files[2:]):
        assert one is not None
        assert other is not None
        assert one.test != other.test
        assert all(torch.equal(tensor, other.tensors[name]) for name, tensor in one.tensors.items())


def test_without_validation_the_curve_is_on_test_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[str] = []
    monkeypatch.setattr(fitting, "evaluate", lambda *given: looks.append(given[2]) or evaluate(*given))
    run = run_through({"train": noise()}, tmp_path / "run", BASE | OVERFITTING | {"data.val": 0.0, "train.early_stopping": 1})
    curve = lines(run, "evaluation")
    assert [(line["split"], line["best"]) for line in curve] == [("test", False)] * 8  # nothing stopped it
    assert curve[-1]["loss"] > curve[0]["loss"]
    assert run.test_uses == 8 + 1
    assert looks == ["test"] * 8  # the last one is of the weights that are kept, so it is the result
    assert run.test is not None
    assert (run.test.loss, run.test.accuracy) == (curve[-1]["loss"], curve[-1]["accuracy"])
    assert run.best is not None
    assert (run.best.training["steps"], run.best.val) == (curve[-1]["step"], None)
    assert run.best.tensors.keys() == ModelFile.load(run.last).tensors.keys()
    assert all(torch.equal(tensor, run.best.tensors[name]) for name, tensor in ModelFile.load(run.last).tensors.items())


@pytest.mark.parametrize("patience", [1, 3])
def test_early_stopping_waits_so_many_epochs_for_a_better_one(patience: int, tmp_path: Path) -> None:
    settings = BASE | OVERFITTING | {"train.epochs": 30, "train.early_stopping": patience}
    run = run_through({"train": noise()}, tmp_path / "run", settings)
    flags = [line["best"] for line in lines(run, "evaluation")]
    assert flags[-patience - 1 :] == [True] + [False] * patience
    assert not any(flags[start : start + patience] == [False] * patience for start in range(len(flags) - patience))
    assert run.end is not None
    assert (run.end["step"], run.end["reason"]) == (3 * len(flags), "early stopping")


def test_a_signal_ends_without_a_test(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(
            request({"train": tiny_pictures()}, tmp_path / "run", BASE), silent(), StopAt(5)
        )  # the 4th question comes in the evaluation
    run = Run(tmp_path / "run")
    assert run.end is None
    assert run.test is None
    assert run.test_uses == 0
    assert saved_steps(run) == [4]
    assert run.val is not None  # of the first epoch


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({}, [12]),  # epochs of a moment are not waited for
        ({"checkpoint.keep": "all"}, [3, 6, 9, 12]),
        ({"checkpoint.every_steps": 5}, [10, 12]),
        ({"checkpoint.every_steps": 5, "checkpoint.keep": 1}, [12]),
        ({"checkpoint.every_steps": 5, "checkpoint.keep": "all"}, [3, 5, 6, 9, 10, 12]),
    ],
)
def test_checkpoints_are_saved_and_kept_as_asked(settings: dict[str, Any], steps: list[int], tmp_path: Path) -> None:
    assert saved_steps(run_through({"train": tiny_pictures()}, tmp_path / "run", BASE | settings)) == steps


def test_a_save_by_the_clock_waits_for_the_one_before(tmp_path: Path) -> None:
    settings = {"checkpoint.every_seconds": 1e-9, "checkpoint.keep": "all"}
    steps = saved_steps(run_through({"train": tiny_pictures()}, tmp_path / "run", BASE | settings))
    assert {3, 6, 9, 12} < set(steps) <= set(range(1, 13)), "those of epochs, and what there was time for"


def test_long_epochs_are_saved_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("goodfit.fitting.MIN_SECONDS_BETWEEN_SAVES", 0.0)
    assert saved_steps(run_through({"train": tiny_pictures()}, tmp_path / "run", BASE | {"checkpoint.keep": 3})) == [6, 9, 12]


def test_the_best_checkpoint_is_kept_where_that_is_asked(tmp_path: Path) -> None:
    data = {"train": noise(), "test": noise(1)}
    run = run_through(data, tmp_path / "run", BASE | OVERFITTING | {"checkpoint.keep": "best"})
    assert run.best is not None
    best = run.best.training["steps"]
    assert best < 32
    assert saved_steps(run) == [best, 32]  # of 4 steps an epoch


def test_a_run_that_diverges_keeps_what_was_saved_before(tmp_path: Path) -> None:
    settings = BASE | {"optim.lr": 1e30, "log.every_steps": 3, "checkpoint.every_steps": 1, "checkpoint.keep": 1}
    with pytest.raises(
        DivergedError,
        match=r"(became (nan|inf)|is no longer finite) .*; the run is good up to step [1-3]; try a lower learning rate",
    ):
        run_through({"train": tiny_pictures()}, tmp_path / "run", settings)
    run = Run(tmp_path / "run")
    checkpoint, damage = newest_checkpoint(run.checkpoints)
    assert checkpoint is not None
    assert damage == []
    tensors = load_file(checkpoint.path / "state.safetensors")
    assert all(torch.isfinite(tensor).all() for tensor in tensors.values())
    assert run.end is None


@pytest.mark.parametrize(("val", "name"), [(0.1, "val"), (0.0, "test")])
def test_weights_that_evaluate_to_nothing_end_the_run(val: float, name: str, tmp_path: Path) -> None:
    settings = BASE | {"optim.lr": 1e30, "train.batch_size": "full", "data.val": val}
    with pytest.raises(
        DivergedError,
        match=f"the {name} loss became (nan|inf) by step 1, and no single step did it; the run is good up to step 0; try",
    ):
        run_through({"train": tiny_pictures()}, tmp_path / "run", settings)
    assert not Run(tmp_path / "run").model.exists()


def test_the_training_loss_is_read_only_where_it_is_logged(tmp_path: Path) -> None:
    run = run_through({"train": tiny_pictures(300)}, tmp_path / "run", BASE | {"train.epochs": 2, "train.batch_size": 8})
    per_epoch = 27  # of 216 examples
    assert [line["step"] for line in lines(run, "train")] == sorted({*range(2, 55, 2), per_epoch, 2 * per_epoch})


class Putting(nn.Module):
    """Uses an operation that has no deterministic form on any device."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.clone().put_(torch.tensor([0]), torch.tensor([1.0])))


def test_an_operation_without_a_deterministic_form_is_named_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def as_on_cuda(device: Any, threads: int, deterministic: bool) -> Any:
        return computing(SimpleNamespace(type="cuda"), threads, deterministic)  # type: ignore[arg-type]

    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else it stays set
    monkeypatch.setattr("goodfit.workflows.computing", as_on_cuda)
    data = {"train": (np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32), np.arange(60) % 3)}
    layers = [Layer("test", {"data.name": "memory", **BASE})]
    own = OwnCode(model=OwnModel("own.py:Putting", Putting))
    stream, again = io.StringIO(), io.StringIO()
    with pytest.raises(Interrupted):
        train(Request(data=data, layers=layers, out=tmp_path / "run", own=own), Display(stream), StopAt(4))
    run = resume(tmp_path / "run", Display(again), StopSignals(), data=data, own=own)
    (line,) = lines(run, "nondeterministic")
    assert (line["step"], line["operation"]) == (1, "put_")
    assert stream.getvalue().count("put_ has no deterministic form here") == 1
    assert "put_" not in again.getvalue()
