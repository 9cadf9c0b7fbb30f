"""For small colour pictures: plain stages of convolutions behind one that whitens patches of the picture."""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from goodfit.models.arguments import Count
from goodfit.models.layers import ACTIVATIONS, Activation, picture_shape

__all__ = ["build_whitened_vgg", "whiten"]

PATCH = 2  # pixels a side
NOISE = 5e-4  # added to the variances: directions that hardly vary are mostly noise


def build_whitened_vgg(
    input_shape: tuple[int, ...],
    num_outputs: int,
    *,
    widths: Sequence[Count] = (32, 128, 128),
    depth: Count = 2,
    activation: Activation = "gelu",
) -> nn.Sequential:
    """Build a convolution of 2 x 2 pixels and a stage of `depth` 3 x 3 convolutions for each of `widths`.

    Each stage halves the picture behind its first convolution, while a side of 2 pixels is left; batch normalisation
    follows every convolution but the first. Convolutions begin by passing on what comes in. The layout is that of airbench
    (Jordan 2024) and hlb-CIFAR10 (Balsam 2023).
    """
    channels, *sides = picture_shape("whitened-vgg", input_shape, smallest=2 * PATCH)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["whitening"] = nn.Conv2d(channels, 2 * channels * PATCH**2, PATCH)
    layers["activation"] = ACTIVATIONS[activation]()
    channels, sides = 2 * channels * PATCH**2, [side - PATCH + 1 for side in sides]
    for stage, width in enumerate(widths, start=1):
        pooled = min(sides) >= 4
        blocks = [_block(channels, width, activation, pooled=pooled)]
        blocks += [_block(width, width, activation, pooled=False) for _ in range(depth - 1)]
        layers[f"stage{stage}"] = nn.Sequential(*blocks)
        channels, sides = width, [side // 2 if pooled else side for side in sides]
    layers["pool"] = nn.AdaptiveMaxPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["head"] = nn.Linear(channels, num_outputs)
    return nn.Sequential(layers)


def whiten(layer: nn.Conv2d, inputs: Tensor) -> None:
    """Make the outputs of `layer` for `inputs` (N, C, H, W) uncorrelated and of equal variance, each also with its sign turned."""
    side, channels = layer.kernel_size[0], inputs.shape[1]
    windows = inputs.unfold(2, side, 1).unfold(3, side, 1).transpose(1, 3)
    patches = windows.reshape(-1, channels * side * side).double()
    variances, directions = torch.linalg.eigh(patches.T @ patches / len(patches))
    scaled = directions / torch.sqrt(variances + NOISE)
    filters = scaled.T.reshape(-1, channels, side, side).to(layer.weight.dtype)
    with torch.no_grad():
        layer.weight.copy_(torch.cat([filters, -filters]))
        nn.init.zeros_(layer.get_parameter("bias"))


def _block(in_channels: int, out_channels: int, activation: Activation, *, pooled: bool) -> nn.Sequential:
    convolution = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
    with torch.no_grad():
        nn.init.dirac_(convolution.weight[:in_channels])
    layers: OrderedDict[str, nn.Module] = OrderedDict(conv=convolution)
    if pooled:
        layers["pool"] = nn.MaxPool2d(2)
    layers["norm"] = nn.BatchNorm2d(out_channels)
    layers["activation"] = ACTIVATIONS[activation]()
    return nn.Sequential(layers)
