"""The "CIFAR-10 quick" network of many tutorials: three 5 x 5 convolutions and two linear layers."""

from collections import OrderedDict
from typing import Literal

from torch import nn

from goodfit.models.layers import ACTIVATIONS, Activation, picture_shape

__all__ = ["build_cifar_quick"]


def build_cifar_quick(
    input_shape: tuple[int, ...], num_outputs: int, *, activation: Literal["none"] | Activation = "none"
) -> nn.Sequential:
    """Build convolutions of 32, 32 and 64 channels, each with pooling, and linear layers of 64 and `num_outputs`.

    The tutorials leave the activations out, so that nothing but the pooling is not linear, and so does the default;
    any other `activation` stands behind each convolution and between the linear layers.
    """
    channels, height, width = picture_shape("cifar10-quick", input_shape, smallest=8)
    layers = OrderedDict(
        conv1=nn.Conv2d(channels, 32, 5, padding=2),
        activation1=_activation(activation),
        pool1=nn.MaxPool2d(2),
        conv2=nn.Conv2d(32, 32, 5, padding=2),
        activation2=_activation(activation),
        pool2=nn.MaxPool2d(2),
        conv3=nn.Conv2d(32, 64, 5, padding=2),
        activation3=_activation(activation),
        pool3=nn.MaxPool2d(2),
        flatten=nn.Flatten(),
        fc1=nn.Linear(64 * (height // 8) * (width // 8), 64),
        activation4=_activation(activation),
        fc2=nn.Linear(64, num_outputs),
    )
    return nn.Sequential(OrderedDict((name, layer) for name, layer in layers.items() if layer is not None))


def _activation(name: str) -> nn.Module | None:
    return None if name == "none" else ACTIVATIONS[name]()
