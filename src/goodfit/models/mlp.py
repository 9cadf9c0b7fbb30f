"""The multi-layer perceptron: for tables, for tensors of any shape, and for small pictures."""

import itertools
import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal

from torch import nn

from goodfit.models.arguments import Count, Fraction
from goodfit.models.layers import ACTIVATIONS, Activation

__all__ = ["build_mlp"]


def build_mlp(
    input_shape: tuple[int, ...],
    num_outputs: int,
    *,
    hidden: Sequence[Count] = (128, 64),
    activation: Activation = "relu",
    dropout: Fraction = 0.0,
    initialization: Literal["default", "small-first-layer"] = "default",
) -> nn.Sequential:
    """Build fully connected layers of the widths `hidden`, each followed by activation and dropout, and a last linear one.

    `initialization` is torch's default, or that with small first steps: the first layer's weights drawn from a normal
    distribution of deviation 0.01 and its biases zero.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    widths = [math.prod(input_shape), *hidden]
    for number, (num_inputs, width) in enumerate(itertools.pairwise(widths), start=1):
        layers[f"fc{number}"] = nn.Linear(num_inputs, width)
        layers[f"activation{number}"] = ACTIVATIONS[activation]()
        if dropout:
            layers[f"dropout{number}"] = nn.Dropout(dropout)
    layers[f"fc{len(widths)}"] = nn.Linear(widths[-1], num_outputs)
    if initialization == "small-first-layer":
        nn.init.normal_(layers["fc1"].get_parameter("weight"), std=0.01)
        nn.init.zeros_(layers["fc1"].get_parameter("bias"))
    return nn.Sequential(layers)
