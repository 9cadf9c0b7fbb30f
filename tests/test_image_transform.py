import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from goodfit.data.image_transform import ImageTransform, fit_image_transform
from goodfit.data.transforms import transform_from_json
from goodfit.errors import ConfigError, DataError, FileError

RGB = ImageTransform("RGB", 4, 6, (0.5, 0.25, 0.125), (0.5, 1.0, 2.0))
GREY = ImageTransform("L", 4, 6, (0.0,), (1.0,))

finite = st.floats(-1e6, 1e6)
positive = st.floats(1e-6, 1e6)


def noise(*shape, seed=0):
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


@given(st.sampled_from(["RGB", "L"]), st.integers(1, 4_000), st.integers(1, 4_000), st.data())
def test_json_gives_the_same_transform_back(mode, height, width, data):
    channels = 3 if mode == "RGB" else 1
    mean = tuple(data.draw(st.lists(finite, min_size=channels, max_size=channels)))
    std = tuple(data.draw(st.lists(positive, min_size=channels, max_size=channels)))
    transform = ImageTransform(mode, height, width, mean, std)
    again = transform_from_json(json.loads(json.dumps(transform.to_json())))
    assert again == transform
    assert again.input_shape == (channels, height, width)


@pytest.mark.parametrize(
    "change",
    [
        {"mode": "CMYK"},
        {"height": 0},
        {"height": "4"},
        {"height": True},
        {"width": 1 << 40},
        {"mean": [0.5]},
        {"mean": "abc"},
        {"std": [1.0, 1.0, 0.0]},
        {"std": [1.0, 1.0, math.inf]},
        {"std": None},
        {"unknown": 1},
        {"resize": [0]},
        {"resize": [4.0]},
        {"resize": [1, 2, 3]},
        {"resize": [1 << 20]},
        {"resize": "9"},
        {"interpolation": "cubic"},
        {"plain": 1},
    ],
)
def test_a_damaged_description_is_refused(change):
    with pytest.raises(FileError, match="the image transform cannot be read"):
        transform_from_json(RGB.to_json() | change)


def test_a_given_resize_is_kept_and_else_a_file_is_as_it_was():
    assert set(RGB.to_json()) == {"kind", "mode", "height", "width", "mean", "std"}
    for change in ({"resize": ()}, {"resize": (9,)}, {"resize": (9, 8), "interpolation": "lanczos"}, {"plain": True}):
        transform = replace(RGB, **change)
        assert transform_from_json(json.loads(json.dumps(transform.to_json()))) == transform


@pytest.mark.parametrize("size", [(30, 20), (20, 31), (33, 21), (6, 4)])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_model_sees_what_torchvision_gives(size, channels):
    from torchvision import transforms

    mode, mean, std = ("L", (0.1307,), (0.3081,)) if channels == 1 else ("RGB", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    image = Image.effect_noise(size, 90).convert(mode)
    steps = [transforms.Resize(9), transforms.CenterCrop(8), transforms.ToTensor(), transforms.Normalize(mean, std)]
    transform = ImageTransform(mode, 8, 8, mean, std, resize=(9,))
    seen = transform.normalize(transform.encode([image]))
    # What is left is the rounding of one multiplication and one addition: 4.8e-7 at the most.
    assert (seen[0] - transforms.Compose(steps)(image)).abs().max() <= 5e-7


@pytest.mark.parametrize(("mean", "std"), [((0.5,), (0.5,)), ((0.1307,), (0.3081,)), ((0.0,), (1.0,)), ((0.406,), (0.225,))])
def test_every_level_is_normalised_as_torchvision_does(mean, std):
    from torchvision import transforms

    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    expected = transforms.Normalize(mean, std)(levels / 255)
    assert (ImageTransform("L", 16, 16, mean, std).normalize(levels) - expected).abs().max() <= 5e-7


def test_a_picture_is_the_same_however_it_is_given(tmp_path):
    pixels = noise(3, 20, 40)
    array = pixels.permute(1, 2, 0).numpy()
    path = tmp_path / "Ä 猫.png"
    Image.fromarray(array).save(path)
    forms = [path, str(path), path.read_bytes(), Image.fromarray(array), array, array / 255, array.transpose(2, 0, 1)]
    forms += [pixels, pixels / 255, (pixels / 255).double(), pixels.permute(1, 2, 0)]
    stored = RGB.encode(forms)
    assert (stored.dtype, stored.shape) == (torch.uint8, (len(forms), 3, 4, 6))
    assert all(torch.equal(one, stored[0]) for one in stored)
    assert torch.equal(RGB.encode(torch.stack([pixels, pixels])), stored[:2])
    assert torch.equal(RGB.encode(pixels[None].numpy()), stored[:1])


def test_a_tensor_has_its_channels_first_where_both_ends_could_be_channels():
    tensor = torch.tensor([[[0], [0]], [[100], [100]], [[200], [200]]], dtype=torch.uint8).expand(3, 2, 3)
    assert RGB.encode([tensor])[0, :, 0, 0].tolist() == [0, 100, 200]
    red, green, blue = RGB.encode([tensor.numpy()])[0]  # an array has them last: this one is grey
    assert torch.equal(red, green)
    assert torch.equal(red, blue)


@given(st.integers(0, 99))
def test_stored_pictures_are_stored_as_they_are(seed):
    batch = noise(2, 3, 4, 6, seed=seed)
    assert RGB.encode(batch) is batch
    assert torch.equal(RGB.encode(list(batch)), batch)
    assert torch.equal(GREY.encode(list(batch[:, :1])), batch[:, :1])


def test_a_grey_picture_fits_a_colour_transform_and_back():
    grey = noise(1, 4, 6)
    assert torch.equal(RGB.encode([grey])[0], grey.expand(3, 4, 6))
    assert torch.equal(GREY.encode([grey.expand(3, 4, 6)])[0], grey)


def test_a_bad_picture_is_named(tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no")
    with pytest.raises(DataError, match=r"bad\.png is damaged"):
        RGB.encode([noise(3, 4, 6), tmp_path / "bad.png"])


def test_normalize_subtracts_the_mean_and_divides_by_the_deviation():
    batch = noise(5, 3, 4, 6)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (RGB.mean, RGB.std))
    assert torch.allclose(RGB.normalize(batch), (batch / 255 - mean) / std, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_mean_and_deviation_are_those_of_the_training_rows(channels, monkeypatch):
    monkeypatch.setattr("goodfit.data.image_transform.CHUNK_BYTES", 1_000)  # several chunks
    inputs, rows = noise(50, channels, 9, 7), torch.arange(1, 50, 2)
    transform = fit_image_transform(inputs, rows)
    exact = inputs[rows].double() / 255
    assert (transform.mode, transform.height, transform.width) == ("RGB" if channels == 3 else "L", 9, 7)
    assert np.allclose(transform.mean, exact.mean((0, 2, 3)), rtol=1e-12)
    assert np.allclose(transform.std, exact.std((0, 2, 3), correction=0), rtol=1e-12)
    assert fit_image_transform(inputs, rows.flip(0)) == transform


def test_a_constant_channel_is_not_divided_by_zero():
    transform = fit_image_transform(torch.full((3, 1, 2, 2), 7, dtype=torch.uint8), torch.arange(3))
    assert transform.std == (1 / 255,)
    assert transform.normalize(torch.full((1, 1, 2, 2), 7, dtype=torch.uint8)).abs().max() < 1e-4


def test_given_mean_and_deviation_are_taken():
    inputs, rows = noise(5, 3, 2, 2), torch.arange(5)
    fitted = fit_image_transform(inputs, rows)
    assert fit_image_transform(inputs, rows, mean=0.5) == replace(fitted, mean=(0.5, 0.5, 0.5))
    assert fit_image_transform(inputs, rows, std=[0.1, 0.2, 0.3]) == replace(fitted, std=(0.1, 0.2, 0.3))
    for wrong in ({"mean": [0.1, 0.2]}, {"std": 0.0}, {"std": -1.0}, {"mean": math.nan}, {"std": [1.0, 1.0, 0.0]}):
        with pytest.raises(ConfigError, match=rf"transform\.{next(iter(wrong))}"):
            fit_image_transform(inputs, rows, **wrong)
