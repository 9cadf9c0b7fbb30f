"""The recipe `auto` asks only for what the data and the model can take."""

from pathlib import Path
from typing import Any

import pytest
import torch
from harness import run_through
from torch import nn

import goodfit
from goodfit.config import Layer
from goodfit.errors import ConfigError
from goodfit.planning import Plan, make_plan
from goodfit.training.recipes import LEVELS, load_recipe

FEW = {"train.epochs": 1, "train.threads": 1, "checkpoint.every_seconds": 0.0}


def test_float_tensors_of_three_channels_are_not_augmented(tmp_path: Path) -> None:
    data = {"train": (torch.randn(60, 3, 8, 8), torch.arange(60) % 3)}
    config = run_through(data, tmp_path / "run", FEW).config
    assert not config.augment.flip
    assert not config.augment.crop


def test_another_model_gets_an_optimizer_that_suits_most(tmp_path: Path) -> None:
    data = {"train": (torch.randint(0, 255, (60, 1, 8, 8), dtype=torch.uint8), torch.arange(60) % 3)}
    settings = FEW | {"model.name": "cifar10-quick"}
    assert run_through(data, tmp_path / "run", settings).config.optim.name == "adamw"


def test_a_number_is_learned_from_pictures_without_what_is_for_classes(tmp_path: Path) -> None:
    pictures = torch.randint(0, 255, (60, 1, 8, 8), dtype=torch.uint8)
    data = {"train": (pictures, pictures.float().mean((1, 2, 3)))}
    run = run_through(data, tmp_path / "run", FEW)
    assert (run.config.data.task, run.config.train.label_smoothing) == ("regression", 0.0)


def pictures(channels: int, count: int = 60) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    drawn = torch.randint(0, 255, (count, channels, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return {"train": (drawn, torch.arange(count) % 3)}


def chosen(channels: int, level: str, **settings: Any) -> Plan:
    layers = [Layer("test", {"data.name": "memory", "train.threads": 1} | settings)]
    return make_plan(pictures(channels, count=3000), layers, level)


@pytest.mark.parametrize(("channels", "model"), [(1, "convnet"), (3, "whitened-vgg")])
def test_fast_takes_fewer_steps(channels: int, model: str) -> None:
    fast, auto = (chosen(channels, level) for level in ("fast", "auto"))
    assert fast.total_steps < auto.total_steps
    assert fast.config.model == auto.config.model
    assert auto.config.model.name == model
    assert [plan.recipe and plan.recipe.name.partition(":")[0] for plan in (fast, auto)] == ["fast", "auto"]


def test_fast_trains_a_module_of_ones_own_for_fewer_epochs_at_a_higher_rate() -> None:
    data = pictures(1)["train"]
    fast, auto = (
        goodfit.trainer(data, model=nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), recipe=level) for level in LEVELS[:2]
    )
    assert fast.total_steps < auto.total_steps
    assert fast.plan.config.optim.lr > auto.plan.config.optim.lr


def test_fast_trains_on_a_table_for_fewer_epochs() -> None:
    data = (torch.randn(2000, 4), torch.arange(2000) % 3)
    fast, auto = (goodfit.trainer(data, recipe=level).plan.config for level in LEVELS[:2])
    assert (fast.train.epochs, auto.train.epochs) == (15, 50)
    assert fast.optim == auto.optim


def test_best_takes_more_steps_of_a_wider_model() -> None:
    auto, best = (chosen(1, level) for level in ("auto", "best"))
    assert auto.total_steps <= best.total_steps
    sizes = [sum(tensor.numel() for tensor in plan.architecture.build().parameters()) for plan in (auto, best)]
    assert sizes[0] < sizes[1]


@pytest.mark.parametrize("channels", [1, 3])
def test_only_colour_pictures_are_flipped(channels: int) -> None:
    assert chosen(channels, "auto").config.augment.flip == ("alternating" if channels == 3 else False)


def test_a_level_without_evidence_is_refused_by_name() -> None:
    data = {"train": (torch.randn(60, 4), torch.arange(60) % 3)}
    with pytest.raises(ConfigError, match=r"'best' is not built yet for memory \(table\)"):
        make_plan(data, [Layer("test", {"data.name": "memory"})], "best")


def test_a_level_says_where_it_can_be_seen() -> None:
    with pytest.raises(ConfigError, match="--recipe best --dry-run"):
        load_recipe("best")


def test_a_model_that_is_asked_for_keeps_what_its_recipe_has(tmp_path: Path) -> None:
    config = run_through(pictures(3), tmp_path / "run", FEW | {"model.name": "convnet"}).config
    assert (config.optim.name, config.model.name, config.augment.flip) == ("muon", "convnet", True)
