"""The network for small colour pictures: its first layer whitens, its convolutions begin by passing on what comes in."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from harness import run_through, tiny_pictures
from torch import Tensor, nn

from goodfit.artefacts.model_file import ModelFile
from goodfit.errors import ModelError
from goodfit.models import build_model, fit_first_layer
from goodfit.models.whitened_vgg import build_whitened_vgg, whiten

SETTINGS = {
    "model.name": "whitened-vgg",
    "model.widths": [4, 6],
    "model.frozen": ["whitening.weight"],
    "train.epochs": 1,
    "train.batch_size": 16,
    "train.precision": "fp32",
    "train.threads": 1,
}


def pictures(count: int = 50, channels: int = 3) -> Tensor:
    """Smooth pictures, whose neighbouring pixels are alike."""
    noise = torch.randn(count, channels, 14, 14, generator=torch.Generator().manual_seed(0))
    return F.avg_pool2d(noise, 3, stride=1)


@pytest.mark.parametrize("channels", [1, 3])
def test_patches_become_uncorrelated(channels: int) -> None:
    inputs = pictures(channels=channels)
    layer = nn.Conv2d(channels, 8 * channels, 2)
    whiten(layer, inputs)
    with torch.no_grad():
        outputs = layer(inputs).transpose(0, 1).flatten(1)
    half = 4 * channels
    assert torch.equal(outputs[half:], -outputs[:half])
    covariance = outputs[:half] @ outputs[:half].T / outputs.shape[1]
    off = covariance - torch.diag(covariance.diagonal())
    assert float(off.abs().max()) < 1e-3
    assert float(covariance.diagonal().max()) <= 1.0 + 1e-3


def test_the_layout_follows_the_arguments() -> None:
    model = build_whitened_vgg((3, 32, 32), 10, widths=(5, 7), depth=3, activation="relu")
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert [(each.in_channels, each.out_channels) for each in convolutions] == [
        (3, 24), (24, 5), (5, 5), (5, 5), (5, 7), (7, 7), (7, 7),
    ]  # fmt: skip
    assert sum(isinstance(module, nn.ReLU) for module in model.modules()) == 7


def test_small_pictures_are_halved_while_there_is_something_to_halve() -> None:
    model = build_whitened_vgg((3, 6, 6), 2, widths=(4, 4, 4))
    assert model(torch.zeros(2, 3, 6, 6)).shape == (2, 2)
    assert sum(isinstance(module, nn.MaxPool2d) for module in model.modules()) == 1


def test_a_convolution_begins_by_passing_on_what_comes_in() -> None:
    model = build_whitened_vgg((3, 8, 8), 2, widths=(30,), depth=1)
    inputs = torch.randn(2, 24, 5, 5)
    outputs = model.get_submodule("stage1.0.conv")(inputs)
    torch.testing.assert_close(outputs[:, :24], inputs)


def test_pictures_of_three_pixels_are_refused() -> None:
    with pytest.raises(ModelError, match="4 x 4"):
        build_whitened_vgg((3, 3, 3), 2)


def test_only_its_own_first_layer_follows_the_data() -> None:
    model = build_model("convnet", input_shape=(3, 8, 8), num_outputs=2, arguments={})
    before = [parameter.clone() for parameter in model.parameters()]
    fit_first_layer("convnet", model, lambda: pytest.fail("it looked at the data"))
    assert all(map(torch.equal, before, model.parameters()))


def test_a_run_whitens_its_training_pictures_and_keeps_it_so(tmp_path: Path) -> None:
    run = run_through({"train": tiny_pictures(60)}, tmp_path / "run", SETTINGS)
    file = ModelFile.load(run.model)
    weight = file.tensors["whitening.weight"]
    assert torch.equal(weight[12:], -weight[:12])
    unfrozen = run_through({"train": tiny_pictures(60)}, tmp_path / "unfrozen", SETTINGS | {"model.frozen": []})
    moved = ModelFile.load(unfrozen.model).tensors["whitening.weight"]
    assert not torch.equal(moved, weight)


def test_weights_that_training_goes_on_from_are_not_whitened_again(tmp_path: Path) -> None:
    run = run_through({"train": tiny_pictures(60)}, tmp_path / "run", SETTINGS)
    others = {"train": tiny_pictures(60, seed=3)}
    given = {"model.name": str(run.model), "model.frozen": ["whitening.weight"]}
    rest = {key: value for key, value in SETTINGS.items() if not key.startswith("model.")}
    again = run_through(others, tmp_path / "again", rest | given)
    before, after = (ModelFile.load(each.model).tensors["whitening.weight"] for each in (run, again))
    assert torch.equal(before, after)
