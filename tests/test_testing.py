"""Measuring finished models: on which examples, counted how."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness import run_through, tiny_pictures

from goodfit.artefacts.run import Run
from goodfit.config import Layer
from goodfit.errors import ConfigError, DataError
from goodfit.evaluation.metrics import ClassificationEvaluation, Evaluation, RegressionEvaluation
from goodfit.testing import evaluate_model

SETTINGS: dict[str, Any] = {
    "model.name": "mlp",
    "train.epochs": 2,
    "train.batch_size": 16,
    "train.precision": "fp32",
    "train.threads": 1,
    "train.device": "cpu",
}
NAMES = np.array(["cat", "dog", "eel"])


def named(count: int = 60, seed: int = 0, classes: int = 3) -> tuple[Any, Any]:
    inputs, targets = tiny_pictures(count, classes, seed=seed)
    return inputs, NAMES[targets]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a file, so that it knows its data."""
    folder = tmp_path_factory.mktemp("trained")
    inputs, targets = named()
    np.savez(folder / "pictures.npz", X=inputs, y=targets)
    return run_through(None, folder / "run", SETTINGS | {"data.name": str(folder / "pictures.npz")}).path


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Run:
    return Run(shutil.copytree(trained, tmp_path / "run"))


def accuracy(evaluation: Evaluation) -> float:
    assert isinstance(evaluation, ClassificationEvaluation)
    return evaluation.accuracy


def test_a_run_is_tested_on_its_own_test_split_and_each_use_is_counted(run: Run) -> None:
    assert run.test_uses == 1
    assert evaluate_model(run.path, None) == run.test
    assert evaluate_model(run.model, None) == run.test
    assert run.test_uses == 3
    assert '{"by": "evaluate", "step": ' in (run.path / "test_uses.jsonl").read_text()


def test_other_splits_are_not_uses_of_the_test_split(run: Run) -> None:
    assert evaluate_model(run.path, None, "val") == run.val
    train = evaluate_model(run.path, None, "train")
    assert (train.split, train.n) == ("train", 43)
    assert run.test_uses == 1


def test_its_own_data_are_known_however_they_are_given(run: Run, tmp_path: Path) -> None:
    assert evaluate_model(run.path, named()) == run.test  # the same examples, in memory
    assert run.test_uses == 2
    alone = shutil.copy(run.model, tmp_path / "alone.safetensors")
    assert evaluate_model(alone, named()) == run.test
    assert run.test_uses == 2


def test_a_file_alone_does_not_know_its_data(run: Run, tmp_path: Path) -> None:
    alone = shutil.copy(run.model, tmp_path / "alone.safetensors")
    with pytest.raises(DataError, match=r"does not lie in a run folder.*add them: evaluate MODEL DATA"):
        evaluate_model(alone, None)


def test_other_data_are_evaluated_whole(run: Run) -> None:
    found = evaluate_model(run.path, named(21, seed=5))
    assert (found.split, found.n) == ("all", 21)
    assert run.test_uses == 1


def test_of_other_data_in_parts_the_part_is_evaluated(run: Run) -> None:
    data = {"train": named(21, seed=5), "test": named(9, seed=6)}
    assert (evaluate_model(run.path, data).split, evaluate_model(run.path, data).n) == ("test", 9)
    assert evaluate_model(run.path, data, "train").n == 21
    with pytest.raises(DataError, match=r"memory has no val split; choose from: train, test"):
        evaluate_model(run.path, data, "val")
    assert run.test_uses == 1


def test_classes_are_matched_by_name(run: Run) -> None:
    inputs, targets = named(30, seed=5)
    whole = evaluate_model(run.path, (inputs, targets))
    some = targets != "cat"  # so that the first class of the data is the model's second
    part = evaluate_model(run.path, (inputs[some], targets[some]))
    assert part.n == 20
    assert isinstance(whole, ClassificationEvaluation)
    assert isinstance(part, ClassificationEvaluation)
    assert part.confusion[1:] == whole.confusion[1:]
    assert sum(part.confusion[0]) == 0
    with pytest.raises(DataError, match="fox"):
        evaluate_model(run.path, (inputs, np.where(some, targets, "fox")))


def test_the_accuracy_is_that_of_the_predictions(run: Run) -> None:
    inputs, targets = named(30, seed=5)
    found = [prediction.label for prediction in run.predictor()(inputs)]
    assert accuracy(evaluate_model(run.path, (inputs, targets))) == pytest.approx(np.mean(found == targets))


def test_a_split_that_the_run_did_not_have(tmp_path: Path) -> None:
    run = run_through({"train": named()}, tmp_path / "run", SETTINGS | {"data.val": 0.0})
    with pytest.raises(DataError, match="the run was trained without a val split; choose from: train, test"):
        evaluate_model(run.path, named(), "val")
    with pytest.raises(ConfigError, match="unknown split 'tset'; choose from: train, val, test"):
        evaluate_model(run.path, named(), "tset")


def test_flags_win_over_the_run_s_own_configuration(run: Run) -> None:
    inputs, targets = named(21, seed=5)
    np.savez("other.npz", X=inputs, y=targets)
    found = evaluate_model(run.path, None, layers=[Layer("DATA", {"data.name": "other.npz"})])
    assert (found.split, found.n) == ("all", 21)


def test_a_regression_is_measured_in_the_target_s_unit(tmp_path: Path) -> None:
    inputs = np.linspace(-1, 1, 80).reshape(40, 2)
    data = (inputs, 1000 + 50 * inputs.sum(1))
    run = run_through({"train": data}, tmp_path / "run", SETTINGS | {"train.epochs": 40, "optim.lr": 0.01})
    found = evaluate_model(run.path, data)
    assert found == run.test
    assert isinstance(found, RegressionEvaluation)
    assert found.mae < 20
    other = evaluate_model(run.path, (inputs[:10], data[1][:10] + 1000))
    assert isinstance(other, RegressionEvaluation)
    assert (other.split, other.n) == ("all", 10)
    assert 900 < other.mae < 1100
    with pytest.raises(DataError, match="numbers"):
        evaluate_model(run.path, (inputs, ["a", "b"] * 20))
