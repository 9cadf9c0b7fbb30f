"""What the model families share: activations by name, and the check that the input is a picture."""

from typing import Literal

from torch import nn

from goodfit.errors import ModelError

__all__ = ["ACTIVATIONS", "Activation", "picture_shape"]

Activation = Literal["relu", "gelu", "silu", "tanh"]
ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "tanh": nn.Tanh}


def picture_shape(model: str, input_shape: tuple[int, ...], smallest: int = 1) -> tuple[int, int, int]:
    """Return (channels, height, width); raise ModelError if the input is no picture, or one with a side below `smallest`."""
    if len(input_shape) != 3:
        found = f"has the shape {' x '.join(map(str, input_shape))}" if input_shape else "is a single number"
        raise ModelError(f"{model} needs pictures, and one example here {found}; choose --model mlp")
    channels, height, width = input_shape
    if min(height, width) < smallest:
        raise ModelError(
            f"{model} needs pictures of at least {smallest} x {smallest} pixels, and these are {height} x {width}; "
            "choose --model convnet"
        )
    return channels, height, width
