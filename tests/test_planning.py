"""A plan: which value wins, where it came from, and what is filled in."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from harness import run_through, tiny_pictures

from goodfit.config import Config, Layer, ModelConfig
from goodfit.devices import choose_threads
from goodfit.errors import ConfigError, ModelError
from goodfit.models import MODELS, model_arguments
from goodfit.planning import Plan, make_plan
from goodfit.training.optimizers import OPTIMIZERS, default_learning_rate
from goodfit.training.schedules import SCHEDULES, schedule_arguments

DATA = {"train": tiny_pictures()}
FEW = {"train": tiny_pictures(classes=2)}
NUMBERS = {"train": (np.arange(60.0).reshape(30, 2), np.arange(30) + 0.5)}


def make(*layers: dict[str, Any], data: Any = None, recipe: str | None = "auto", **options: Any) -> Plan:
    named = [Layer(f"layer {number}", values) for number, values in enumerate([{"data.name": "memory"}, *layers])]
    return make_plan(data or DATA, named, recipe, **options)


def values(plan: Plan, *keys: str) -> tuple[Any, ...]:
    flat = plan.config.flat()
    return tuple((flat.get(key), plan.sources.get(key)) for key in keys)


def test_later_layers_win_over_earlier_ones_and_those_over_the_recipe() -> None:
    settings: list[dict[str, Any]] = [{"train.epochs": 7, "optim.lr": 0.5}, {"optim.lr": 0.25, "train.seed": 9}]
    plan = make(*settings, recipe="table")
    keys = ("train.epochs", "optim.lr", "train.seed", "optim.weight_decay", "train.ema")
    assert values(plan, *keys) == (
        (7, "layer 1"),
        (0.25, "layer 2"),
        (9, "layer 2"),
        (0.01, "recipe table"),
        (0.0, "default"),
    )


def test_every_value_has_a_source() -> None:
    plan = make({"train.epochs": 3})
    assert plan.sources.keys() >= plan.config.flat().keys()
    assert set(plan.sources.values()) == {"default", "auto", "recipe auto: small-colour-pictures", "layer 0", "layer 1"}


def test_without_a_recipe_the_defaults_stand() -> None:
    plan = make(recipe=None, is_complete=True)
    assert plan.recipe is None
    assert (plan.config.train.epochs, plan.config.optim.name, plan.config.model.name) == (10, "sgd", "mlp")
    assert plan.config.data == Config().data.model_copy(update={"name": "memory", "task": "classification"})


@pytest.mark.parametrize(
    ("key", "other", "dropped", "kept"),
    [
        ("model.name", "lenet", "model.hidden", "optim.weight_decay"),
        ("optim.name", "sgd", "optim.weight_decay", "model.hidden"),
        ("schedule.name", "cosine", "schedule.peak", "model.hidden"),
    ],
)
def test_a_recipe_s_arguments_go_with_what_they_were_for(key: str, other: str, dropped: str, kept: str) -> None:
    data = {"train": tiny_pictures(side=16)}
    plan = make({key: other}, data=data, recipe="table")
    assert plan.sources.get(dropped) != "recipe table"
    assert plan.sources[kept] == "recipe table"
    assert values(plan, key) == ((other, "layer 1"),)
    same = make({key: make(data=data, recipe="table").config.flat()[key]}, data=data, recipe="table")
    assert same.config == make(data=data, recipe="table").config


def test_the_learning_rate_of_a_replaced_optimizer_is_its_own() -> None:
    assert values(make({"optim.name": "adam"}, recipe="small-pictures"), "optim.lr") == ((0.001, "auto"),)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_usual_learning_rate_is_filled_in(name: str) -> None:
    plan = make({"optim.name": name}, recipe=None, is_complete=True)
    assert values(plan, "optim.lr") == ((default_learning_rate(name), "auto"),)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_s_arguments_are_filled_in(name: str) -> None:
    plan = make({"model.name": name}, data={"train": tiny_pictures(side=16)})
    arguments = model_arguments(name)
    assert plan.config.model.arguments == plan.architecture.arguments == arguments
    assert not arguments.keys() & ModelConfig.model_fields.keys()
    assert all(plan.sources[f"model.{key}"] == "auto" for key in arguments if plan.recipe and name != "mlp")


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_s_arguments_are_filled_in(name: str) -> None:
    plan = make({"schedule.name": name}, {"schedule.final": 0.5} if name == "linear" else {}, recipe=None)
    given = {"final": 0.5} if name == "linear" else {}
    assert plan.config.schedule.arguments == schedule_arguments(name) | given


def test_what_the_data_and_the_machine_decide_is_filled_in() -> None:
    plan = make({"train.batch_size": 2, "train.device": "cpu"})
    assert values(plan, "data.task", "train.threads", "log.every_steps") == (
        ("classification", "auto"),
        (choose_threads(0), "auto"),
        (2, "auto"),  # of 21 steps
    )
    assert plan.config.train.precision in ("fp32", "bf16")
    assert (plan.batch_size, plan.steps_per_epoch) == (2, 21)
    assert plan.total_steps == plan.config.train.epochs * 21
    full = make({"train.batch_size": "full", "train.epochs": 5})
    assert (full.batch_size, full.steps_per_epoch, full.total_steps) == (43, 1, 5)


def test_a_resolved_configuration_makes_the_same_plan() -> None:
    plan = make({"optim.name": "adam", "schedule.warmup": 0.1, "train.seed": 3})
    again = make_plan(DATA, [Layer("config.toml", plan.config.flat())], None, is_complete=True)
    assert again.config == plan.config
    assert again.architecture == plan.architecture
    assert torch.equal(again.dataset.train.rows, plan.dataset.train.rows)
    assert set(again.sources.values()) == {"config.toml"}


def test_the_seed_chooses_the_examples() -> None:
    rows = [make({"train.seed": seed}).dataset.train.rows for seed in (0, 0, 1)]
    assert torch.equal(rows[0], rows[1])
    assert not torch.equal(rows[0], rows[2])


def test_one_logit_is_for_two_classes() -> None:
    assert make({"model.outputs": "one-logit"}, data=FEW).architecture.num_outputs == 1
    assert make(data=FEW).architecture.num_outputs == 2
    with pytest.raises(
        ConfigError, match=r"model\.outputs = 'one-logit' is for two classes, and memory has 3 classes; leave it out"
    ):
        make({"model.outputs": "one-logit"})
    with pytest.raises(
        ConfigError, match=r"model\.outputs = 'one-logit' is for two classes, and memory has a number to predict; leave"
    ):
        make({"model.outputs": "one-logit"}, data=NUMBERS)


def test_a_model_file_brings_its_architecture(tmp_path: Path) -> None:
    settings = {"model.name": "mlp", "model.hidden": [5], "model.outputs": "one-logit", "train.epochs": 1, "train.threads": 1}
    run = run_through(FEW, tmp_path / "run", settings)
    plan = make({"model.name": str(run.model)}, data=FEW)
    assert plan.start is not None
    assert plan.architecture == plan.start.architecture
    assert values(plan, "model.name", "model.hidden", "model.outputs") == (
        ("mlp", "layer 1"),
        ([5], "layer 1"),
        ("one-logit", "layer 1"),
    )
    with pytest.raises(
        ModelError, match=r"holds mlp for inputs \(3, 8, 8\) and 1 outputs, and the data need inputs \(3, 16, 16\)"
    ):
        make({"model.name": str(run.model)}, data={"train": tiny_pictures(classes=2, side=16)})


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"model.name": "lent"}, ModelError, "did you mean lenet"),
        ({"optim.name": "sdg"}, ConfigError, "did you mean sgd"),
        ({"schedule.name": "cosin"}, ConfigError, "did you mean cosine"),
        ({"train.epoch": 3}, ConfigError, "did you mean train.epochs"),
        ({"data.max_train": 2}, ConfigError, "fewer than the 3 classes"),
    ],
)
def test_what_cannot_be_done_is_said(settings: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        make(settings)


def test_an_unknown_recipe_gets_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean small-pictures"):
        make(recipe="smal-pictures")


def test_a_model_file_that_a_later_layer_replaces_starts_nothing(tmp_path: Path) -> None:
    run = run_through(DATA, tmp_path / "run", {"model.name": "mlp", "model.hidden": [4], "train.epochs": 1, "train.threads": 1})
    file = {"model.name": str(run.model)}
    assert make(file).start is not None
    assert make({"model.name": "convnet"}, file).start is not None
    assert make(file, {"model.name": "mlp", "model.hidden": [4]}).start is None
