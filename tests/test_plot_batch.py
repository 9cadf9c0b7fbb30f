"""`plot_batch` draws what the model sees: augmented, with the normalisation undone."""

from typing import Any

import numpy as np
import pytest
import torch
from harness import tiny_pictures
from torch.utils.data import TensorDataset

import goodfit
from goodfit.errors import DataError

PICTURES, TARGETS = tiny_pictures()
QUIET: dict[str, Any] = {"batch_size": 12, "device": "cpu", "model": "lenet"}
PLAIN = {"augment.crop": 0, "augment.flip": False}


def test_the_pictures_are_those_of_the_step() -> None:
    trainer = goodfit.trainer((np.repeat(np.repeat(PICTURES, 2, 2), 2, 3), TARGETS), settings=PLAIN, **QUIET)
    split = trainer.plan.dataset.train
    positions = trainer.trainer.loader.positions(3)
    pictures, names = trainer.pictures(3)
    torch.testing.assert_close(pictures, split.inputs[split.rows[positions]] / 255)
    assert names == [str(label) for label in split.targets[positions].tolist()]


def test_a_figure_has_a_picture_for_each_example_under_its_name() -> None:
    data = (np.repeat(np.repeat(PICTURES, 2, 2), 2, 3), TARGETS)
    figure = goodfit.plot_batch(data, settings={"augment.mixup": 0.5}, **QUIET)
    titles = [axes.get_title() for axes in figure.axes]
    assert len(titles) == 12
    assert any("%), " in title for title in titles)
    changed = goodfit.plot_batch(data, step=1, **QUIET)
    assert [axes.get_title() for axes in changed.axes] != titles


def test_pictures_that_come_ready_are_drawn_too() -> None:
    floats = torch.from_numpy(PICTURES).float() * 3 - 100
    figure = goodfit.plot_batch(TensorDataset(floats, torch.from_numpy(TARGETS)), batch_size=10, device="cpu", model="convnet")
    assert len(figure.axes) == 10
    drawn = figure.axes[0].get_images()[0].get_array()
    assert drawn is not None
    assert drawn.dtype == np.uint8


def test_data_without_pictures_are_refused() -> None:
    with pytest.raises(DataError, match="memory has no pictures"):
        goodfit.plot_batch((np.random.default_rng(0).normal(size=(40, 3)), np.arange(40) % 2), batch_size=10)
