"""The recipe `auto` asks only for what the data and the model can take."""

from pathlib import Path

import torch
from harness import run_through

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
