"""The default for small pictures, from 8 x 8 grey digits to 64 x 64 photographs: plain, small, and fast on a CPU."""

from collections import OrderedDict

from torch import nn

from goodfit.models.arguments import Count, Fraction
from goodfit.models.layers import picture_shape

__all__ = ["build_convnet"]


def build_convnet(
    input_shape: tuple[int, ...],
    num_outputs: int,
    *,
    width: Count = 16,
    depth: Count = 2,
    dropout: Fraction = 0.0,
) -> nn.Sequential:
    """Build a stem of one 3 x 3 convolution and two stages of `depth`; `width`, then 2 and 4 times `width`, channels.

    Stem and stages each halve the picture while a side of 4 pixels is left; batch normalisation follows every
    convolution, global max-pooling and one linear layer the last.
    """
    channels, *sides = picture_shape("convnet", input_shape)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for stage, (num_convolutions, stage_width) in enumerate([(1, width), (depth, 2 * width), (depth, 4 * width)]):
        pooled = min(sides) >= 4
        blocks = [_block(channels, stage_width, pooled=pooled)]
        blocks += [_block(stage_width, stage_width, pooled=False) for _ in range(num_convolutions - 1)]
        layers[f"stage{stage}" if stage else "stem"] = nn.Sequential(*blocks)
        channels = stage_width
        sides = [side // 2 if pooled else side for side in sides]
    layers["pool"] = nn.AdaptiveMaxPool2d(1)
    layers["flatten"] = nn.Flatten()
    if dropout:
        layers["dropout"] = nn.Dropout(dropout)
    layers["head"] = nn.Linear(channels, num_outputs)
    return nn.Sequential(layers)


def _block(in_channels: int, out_channels: int, *, pooled: bool) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict(conv=nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False))
    if pooled:  # before the normalisation, which then has a quarter of the work
        layers["pool"] = nn.MaxPool2d(2)
    layers["norm"] = nn.BatchNorm2d(out_channels)
    layers["activation"] = nn.ReLU()
    return nn.Sequential(layers)
