"""The user's module is tried as soon as the form of the inputs is known: before a download, a decoding, or a whole reading."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset, IterableDataset

import goodfit
from goodfit.data import cache
from goodfit.data.cache import cache_directory, decode_pictures
from goodfit.data.images import Geometry
from goodfit.errors import DataError, ModelError

SIDE = 8


class Net(nn.Module):
    def __init__(self, channels: int = 3, side: int = SIDE, outputs: int = 2) -> None:
        super().__init__()
        self.fc = nn.Linear(channels * side * side, outputs)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.fc(x.flatten(1))
        return result


class Counted(Dataset[Any]):
    """Has its labels nowhere but in its examples, and counts how many were read."""

    def __init__(self) -> None:
        self.read = 0

    def __len__(self) -> int:
        return 1000

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        self.read += 1
        return torch.full((3, SIDE, SIDE), index % 2 - 0.5), index % 2


class Stream(IterableDataset[Any]):
    def __init__(self) -> None:
        self.data = Counted()

    def __iter__(self) -> Iterator[Any]:
        return (self.data[index] for index in range(1000))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pictures of two classes below photos/, and no cache of them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GOODFIT_CACHE", str(tmp_path / "cache"))
    for number in range(40):
        place = tmp_path / "photos" / ("cat" if number % 2 else "dog")
        place.mkdir(parents=True, exist_ok=True)
        pixels = np.full((SIDE, SIDE, 3), number % 2 * 200, np.uint8)
        pixels[0, 0] = (number, 0, 255)
        Image.fromarray(pixels).save(place / f"{number:02}.png")
    return tmp_path / "photos"


def train(data: Any, model: Any, **options: Any) -> goodfit.Run:
    return goodfit.train(data, model=model, epochs=1, quiet=True, out="run", settings={"train.threads": 1}, **options)


def test_a_module_that_does_not_fit_is_told_before_a_data_set_is_fetched(tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match=r"batch of float32 \(4, 3, 32, 32\): the layer fc \(Linear\) got \(4, 3072\) and wants"
    ):
        train("cifar10", Net(side=SIDE), data_root=tmp_path / "empty")
    with pytest.raises(ModelError, match=r"gives 2 numbers for each example, and there are 10 classes: .* must give 10"):
        train("cifar10", lambda: Net(side=32), data_root=tmp_path / "empty")
    settings = {"data.download": False}
    with pytest.raises(DataError, match=r"cifar10 is not in"):  # and one that fits is not kept from it
        goodfit.train("cifar10", model=Net(side=32, outputs=10), data_root=tmp_path / "empty", settings=settings)


def given(folder: Path, form: str) -> Any:
    if form == "path":
        return folder
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import ToTensor

    return ImageFolder(str(folder), ToTensor())


@pytest.mark.parametrize("form", ["path", "ImageFolder"])
def test_a_module_that_does_not_fit_is_told_before_pictures_are_decoded(folder: Path, form: str) -> None:
    with pytest.raises(
        ModelError, match=r"float32 \(4, 3, 8, 8\): the layer fc \(Linear\) got \(4, 192\) and wants in_features=64"
    ):
        train(given(folder, form), Net(channels=1))
    assert not list(cache_directory().glob("*.pictures"))
    train(given(folder, form), Net())
    assert len(list(cache_directory().glob("*.pictures"))) == 1


def test_a_wrong_number_of_outputs_is_told_before_pictures_are_decoded(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"gives 3 numbers for each example, and there are 2 classes: .* must give 2"):
        train(folder, Net(outputs=3))
    assert not list(cache_directory().glob("*.pictures"))
    train(folder, Net(outputs=1))  # one number tells two classes apart


def test_a_failed_self_test_is_believed_when_every_picture_was_looked_at(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A first look may see grey pictures only, and the module that wants colours is right."""
    names = [f"{number}.png" for number in range(9)]
    for number, name in enumerate(names):
        Image.new("RGB" if number == 5 else "L", (SIDE, SIDE)).save(folder / name)
    monkeypatch.setattr(cache, "SAMPLE", 3)
    seen: list[Geometry] = []

    def wants(mode: str) -> Any:
        def test(geometry: Geometry) -> None:
            seen.append(geometry)
            if geometry.mode != mode:
                raise ModelError(f"wants {mode}")

        return test

    found = decode_pictures(folder, names, wanted=0, num_training=9, self_test=wants("RGB"))
    assert [geometry.mode for geometry in seen] == ["L"]
    assert found.geometry.mode == "RGB"
    monkeypatch.setattr(cache, "SAMPLE", 9)
    (folder / names[0]).touch()  # another key
    with pytest.raises(ModelError, match="wants L"):
        decode_pictures(folder, names, wanted=0, num_training=9, self_test=wants("L"))


def test_pictures_that_cannot_be_read_are_not_blamed_on_the_module(folder: Path) -> None:
    for path in folder.rglob("*.png"):
        path.write_bytes(b"no picture")
    with pytest.raises(DataError, match="none of the 40 pictures"):
        train(folder, Net(side=5))


@pytest.mark.parametrize("kind", [Counted, Stream])
def test_a_module_that_does_not_fit_is_told_when_one_batch_was_read(kind: Any) -> None:
    data = kind()
    counted = data if kind is Counted else data.data
    with pytest.raises(ModelError, match=r"the layer fc \(Linear\) got \(4, 192\) and wants in_features=64"):
        train(data, Net(channels=1), test=Counted())
    assert 0 < counted.read < 100


def test_the_module_is_built_with_the_arguments_of_the_configuration(folder: Path) -> None:
    with pytest.raises(ModelError, match="wants in_features=75"):
        goodfit.train(folder, model=Net, settings={"model.side": 5})
    assert not list(cache_directory().glob("*.pictures"))
