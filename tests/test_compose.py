import subprocess
import sys
import warnings
from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch import nn
from torchvision import transforms
from torchvision.transforms import v2

from goodfit.data.compose import Composed, read_compose
from goodfit.data.image_transform import ImageTransform
from goodfit.errors import DataError

SCALED = Composed(mean=(0.0,), std=(1.0,))
FLOAT = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]


def own_step(image):
    return image


class OwnResize(transforms.Resize):
    pass


def read(*steps, version=transforms):
    return read_compose(version.Compose(list(steps)))


def test_what_the_notes_write_is_read():
    assert read(transforms.ToTensor(), transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))) == replace(
        SCALED, mean=(0.5,) * 3, std=(0.5,) * 3
    )
    assert read_compose(transforms.ToTensor()) == SCALED
    assert read(transforms.Resize((32, 32)), transforms.ToTensor()) == replace(SCALED, resize=(32, 32))
    assert read_compose(None) == Composed()


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([transforms.PILToTensor(), transforms.ConvertImageDtype(torch.float32)], {}),
        ([transforms.Compose([transforms.ToTensor()]), transforms.Normalize(0.5, 2)], {"mean": (0.5,), "std": (2.0,)}),
        ([nn.Sequential(transforms.CenterCrop(3)), transforms.ToTensor()], {"crop": (3, 3)}),
        ([transforms.Resize(9, 3), transforms.ToTensor()], {"resize": (9,), "interpolation": "bicubic"}),
        ([transforms.Resize([9]), transforms.CenterCrop((5, 7)), *FLOAT], {"resize": (9,), "crop": (5, 7)}),
        ([transforms.ToTensor(), transforms.CenterCrop([5])], {"crop": (5, 5)}),
        ([v2.Resize(9, antialias=False), *FLOAT], {"resize": (9,)}),
        ([v2.Resize((9, 8), interpolation="nearest-exact"), *FLOAT], {"resize": (9, 8), "interpolation": "nearest"}),
        ([v2.Resize(9, interpolation=Image.Resampling.LANCZOS), *FLOAT], {"resize": (9,), "interpolation": "lanczos"}),
        ([v2.Identity(), *FLOAT, v2.ToPureTensor(), v2.Normalize([1], [2])], {"mean": (1.0,), "std": (2.0,)}),
        ([transforms.Grayscale(), transforms.Resize(9), transforms.ToTensor()], {"mode": "L", "resize": (9,)}),
        ([transforms.Grayscale(3), transforms.ToTensor()], {"mode": "RGB", "repeats_grey": True}),
        ([v2.RGB(), *FLOAT], {"mode": "RGB"}),
        ([transforms.RandomHorizontalFlip(), transforms.ToTensor()], {"flip": True, "random": True}),
        (
            [transforms.RandomCrop(32, 4, padding_mode="reflect"), v2.RandomHorizontalFlip(), *FLOAT],
            {"flip": True, "shift": 4, "shift_size": (32, 32), "random": True},
        ),
        (
            [transforms.RandomCrop(32, padding=4), *FLOAT],
            {"shift": 4, "shift_size": (32, 32), "random": True, "fill": "zero"},
        ),
        (
            [*FLOAT, v2.RandomCrop((8, 6), [2, 2], padding_mode="reflect"), v2.Normalize([1], [2])],
            {"shift": 2, "shift_size": (8, 6), "random": True, "mean": (1.0,), "std": (2.0,)},
        ),
    ],
)
def test_steps_are_data(steps, expected):
    assert read_compose((v2 if isinstance(steps[-1], v2.Transform) else transforms).Compose(steps)) == replace(
        SCALED, **expected
    )


@pytest.mark.filterwarnings("ignore:The transform `ToTensor")
def test_the_old_name_in_the_new_version_is_read():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        steps = [v2.ToTensor(), v2.ConvertImageDtype(torch.float32)]
    assert read(*steps, version=v2) == SCALED


def test_the_transform_of_pretrained_weights_is_read():
    from torchvision.models import ResNet18_Weights

    composed = read_compose(ResNet18_Weights.DEFAULT.transforms())
    assert (composed.resize, composed.crop, composed.unread) == ((256,), (224, 224), ())
    assert (composed.mean, composed.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.mark.parametrize(
    ("steps", "unread"),
    [
        ([transforms.RandomCrop(32, padding=4, fill=9)], "RandomCrop (padding=4, padding_mode='constant': goodfit's own is"),
        ([transforms.RandomCrop(32, padding=4, padding_mode="edge")], "RandomCrop (padding=4, padding_mode='edge': goodfit's"),
        ([transforms.RandomCrop(32, (4, 2), padding_mode="reflect")], "RandomCrop (padding=(4, 2)"),
        ([transforms.RandomHorizontalFlip(0.3)], "RandomHorizontalFlip (p=0.3"),
        ([transforms.RandomRotation(9)], "RandomRotation (goodfit has nothing that does the same)"),
        ([transforms.ColorJitter(0.1)], "ColorJitter (goodfit has nothing"),
        ([transforms.RandomHorizontalFlip(), transforms.Resize(9)], "Resize (after a random step; put it first)"),
        ([transforms.RandomHorizontalFlip(), transforms.CenterCrop(9)], "CenterCrop (after a random step; put it first)"),
    ],
)
def test_random_steps_that_are_only_similar_are_named(steps, unread):
    composed = read(*steps, transforms.ToTensor())
    (reason,) = composed.unread
    assert reason.startswith(unread)
    assert composed.random
    assert not composed.repeats("RGB", 32, 32)


@pytest.mark.parametrize(
    ("steps", "unread"),
    [
        ([transforms.ToTensor(), transforms.Resize(9)], "Resize (after the pictures became tensors; put it first)"),
        ([transforms.Resize(9, max_size=20), transforms.ToTensor()], "Resize (with max_size"),
        ([transforms.Resize(9), transforms.Grayscale(), transforms.ToTensor()], "Grayscale (after Resize"),
        ([transforms.CenterCrop(9), transforms.Resize(9), transforms.ToTensor()], "Resize (after another change"),
        ([transforms.PILToTensor()], "no step to float32"),
        ([v2.ToImage(), v2.ToDtype(torch.float32)], "ToDtype (to another type than float32, or without scale=True)"),
        ([transforms.Pad(2), transforms.ToTensor()], "Pad (goodfit has nothing"),
        (
            [transforms.ToTensor(), transforms.Normalize(1, 2), transforms.Normalize(1, 2)],
            "Normalize (before ToTensor, or twice)",
        ),
    ],
)
def test_fixed_steps_that_are_not_repeated_are_named(steps, unread):
    composed = read(*steps)
    assert composed.unread[0].startswith(unread)
    assert not composed.random


def test_code_of_the_users_own_is_named_and_never_called():
    def explode(image):
        raise AssertionError

    forged = type("Resize", (transforms.Resize,), {"__module__": transforms.Resize.__module__})
    assert read(forged(9), transforms.ToTensor()).own == ("Resize",)
    steps = [
        own_step,
        OwnResize(9),
        transforms.ToTensor(),
        transforms.Lambda(torch.flatten),
        transforms.Lambda(explode),
        nn.Flatten(),
    ]
    composed = read(*steps)
    assert composed.own == ("own_step", "OwnResize", "flatten", "explode", "Flatten")
    assert composed.unread == tuple(f"{name} (code of your own)" for name in composed.own)
    assert read_compose(lambda image: image).own == ("<lambda>",)


def test_torchvision_is_not_imported_for_other_objects():
    code = (
        "import sys; from goodfit.data.compose import read_compose; read_compose(str); sys.exit('torchvision' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}, check=False).returncode == 0


def test_it_becomes_a_transform_and_settings():
    composed = read(
        transforms.Resize(40),
        transforms.CenterCrop((32, 28)),
        transforms.RandomCrop((32, 28), 4, padding_mode="reflect"),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(0.5, 0.25),
    )
    assert composed.image_transform("RGB", 99, 50) == ImageTransform("RGB", 32, 28, (0.5,) * 3, (0.25,) * 3, (40,))
    assert composed.settings == {"augment.flip": True, "augment.crop": 4, "augment.fill": "reflect"}
    assert composed.repeats("RGB", 99, 50)
    assert not replace(composed, shift_size=(28, 28)).repeats("RGB", 99, 50)
    assert read_compose(transforms.ToTensor()).image_transform("L", 28, 20) == ImageTransform("L", 28, 20, (0.0,), (1.0,))


def test_grey_in_three_channels_is_repeated_for_grey_pictures_only():
    composed = read(transforms.Grayscale(3), transforms.ToTensor())
    assert composed.repeats("L", 28, 28)
    assert not composed.repeats("RGB", 28, 28)


@pytest.mark.parametrize("size", [(20, 30), (30, 20), (21, 33), (7, 7)])
@pytest.mark.parametrize("step", [transforms.Resize(9), transforms.Resize((4, 9)), transforms.CenterCrop(25)])
def test_the_size_that_comes_out_is_torchvisions(size, step):
    composed = read(step, transforms.ToTensor())
    image = step(Image.new("L", size))
    assert composed.output_size(size[1], size[0]) == (image.height, image.width)


def test_a_normalize_that_does_not_fit_the_channels_is_one_line_that_names_both():
    composed = read(transforms.ToTensor(), transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)))
    with pytest.raises(
        DataError, match=r"^Normalize\(.*\) is for 3 channels, and the pictures have 1; .* Normalize\(\[0.5\]"
    ) as error:
        composed.image_transform("L", 28, 28)
    assert "\n" not in str(error.value)
    with pytest.raises(DataError, match="2 means and 1 deviations"):
        read(transforms.ToTensor(), transforms.Normalize((0.5, 0.5), (0.5,)))
    with pytest.raises(DataError, match=r"cannot be used: std is .* not positive"):
        read(transforms.ToTensor(), transforms.Normalize(0.5, 0.0)).image_transform("L", 28, 28)


@pytest.mark.parametrize("steps", [(transforms.ToTensor(),), (v2.ToImage(), v2.ToDtype(torch.float32, scale=True))])
def test_a_normalize_that_comes_too_early_is_named(steps):
    with pytest.raises(
        DataError, match=r"^the transform of the data set has Normalize before .* ToTensor\(\), .* put Normalize after it$"
    ):
        read(transforms.Normalize(0.5, 0.5), *steps)
    with pytest.raises(DataError, match="put Normalize after it"):
        read(*steps[:-1], transforms.Normalize(0.5, 0.5), *steps[-1:])
    own = read(lambda picture: picture, transforms.Normalize(0.5, 0.5), *steps)
    assert own.own == ("<lambda>",), "which may have made a tensor"


def test_black_beyond_the_border_is_black_only_before_normalize():
    after = read(transforms.ToTensor(), transforms.Normalize(0.5, 0.25), transforms.RandomCrop(32, padding=4))
    assert after.unread
