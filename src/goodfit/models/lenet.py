"""LeNet with ReLU and max-pooling, as the PyTorch tutorial on CIFAR-10 has it."""

from collections import OrderedDict

from torch import nn

from goodfit.models.layers import ACTIVATIONS, Activation, picture_shape

__all__ = ["build_lenet"]


def build_lenet(input_shape: tuple[int, ...], num_outputs: int, *, activation: Activation = "relu") -> nn.Sequential:
    """Build two 5 x 5 convolutions with pooling and three linear layers; 6, 16, 120 and 84 wide.

    After LeCun et al., "Gradient-based learning applied to document recognition", 1998.
    """
    channels, *sides = picture_shape("lenet", input_shape, smallest=16)
    height, width = (((side - 4) // 2 - 4) // 2 for side in sides)
    layers = OrderedDict(
        conv1=nn.Conv2d(channels, 6, 5),
        activation1=ACTIVATIONS[activation](),
        pool1=nn.MaxPool2d(2),
        conv2=nn.Conv2d(6, 16, 5),
        activation2=ACTIVATIONS[activation](),
        pool2=nn.MaxPool2d(2),
        flatten=nn.Flatten(),
        fc1=nn.Linear(16 * height * width, 120),
        activation3=ACTIVATIONS[activation](),
        fc2=nn.Linear(120, 84),
        activation4=ACTIVATIONS[activation](),
        fc3=nn.Linear(84, num_outputs),
    )
    return nn.Sequential(layers)
