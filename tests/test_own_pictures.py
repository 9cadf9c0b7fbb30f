"""Picture data sets with transforms of torchvision, end to end: what is trained on, and what predicts from a file later."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_named import write_idx_split
from torchvision.datasets import MNIST
from torchvision.transforms import Compose, Normalize, RandomCrop, RandomRotation, ToTensor

import goodfit
from goodfit.data.examples import Examples
from goodfit.data.image_transform import ImageTransform

FIXED = [ToTensor(), Normalize((0.1307,), (0.3081,))]
QUIET: dict[str, Any] = {"model": "lenet", "epochs": 1, "batch_size": 20, "device": "cpu", "quiet": True, "out": "run"}


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    draws = np.random.default_rng(0)
    for part, count in (("train", 100), ("test", 40)):
        pixels = draws.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        write_idx_split(tmp_path, "mnist", part, pixels, (np.arange(count) % 10).astype("u1"))


def sets(*random: Any) -> tuple[MNIST, MNIST]:
    return MNIST(".", train=True, transform=Compose([*random, *FIXED])), MNIST(".", train=False, transform=Compose(FIXED))


def test_a_shifted_picture_is_the_fast_path_s_own() -> None:
    train_set, test_set = sets(RandomCrop(28, padding=2))
    trainer = goodfit.trainer(train_set, test=test_set, model="lenet", batch_size=20, device="cpu")
    dataset, config = trainer.plan.dataset, trainer.plan.config
    assert isinstance(dataset.train.inputs, torch.Tensor)
    assert (config.augment.crop, config.augment.fill) == (2, "zero")


def test_what_is_done_to_test_pictures_travels_where_training_has_code_of_its_own(tmp_path: Path) -> None:
    train_set, test_set = sets(RandomRotation(9))
    run = goodfit.train(train_set, test=test_set, **QUIET)
    assert run.best is not None
    assert isinstance(run.best.transform, ImageTransform)
    Image.fromarray(test_set.data[3].numpy()).save("three.png")
    from_file = run.predictor()("three.png")
    expected = run.predictor().model.outputs_for(test_set[3][0][None]).softmax(1).max().item()
    assert from_file.probability == pytest.approx(expected, abs=1e-5)
    assert goodfit.evaluate(run, test_set).accuracy == run.test.accuracy  # type: ignore[union-attr]
    resumed = goodfit.resume("run", data=train_set, test=test_set, epochs=2, quiet=True)
    assert isinstance(resumed.best.transform, ImageTransform)  # type: ignore[union-attr]


def test_without_such_a_test_set_the_preprocessing_stays_behind(capsys: pytest.CaptureFixture[str]) -> None:
    train_set, _ = sets(RandomRotation(9))
    trainer = goodfit.trainer(train_set, model="lenet", batch_size=20, device="cpu")
    assert isinstance(trainer.plan.dataset.train.inputs, Examples)
    assert not isinstance(trainer.plan.dataset.transform, ImageTransform)
    assert any("RandomRotation (goodfit has nothing that does the same)" in note for note in trainer.plan.dataset.notes)
