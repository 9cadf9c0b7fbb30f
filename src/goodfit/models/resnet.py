"""The residual network of 18 layers; its parameters bear torchvision's names."""

from collections import OrderedDict
from typing import Literal

from torch import Tensor, nn

from goodfit.models.arguments import Count
from goodfit.models.layers import picture_shape

__all__ = ["BasicBlock", "build_resnet18"]

SMALL_PICTURE = 64  # pixels; a stem that divides a side by four would leave too little of it


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions, added to their input: (N, in_channels, H, W) to (N, out_channels, H / stride, W / stride)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.downsample = nn.Sequential()
        if stride != 1 or in_channels != out_channels:
            self.downsample.append(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False))
            self.downsample.append(nn.BatchNorm2d(out_channels))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the activated sum of the two branches."""
        residual = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(inputs)))))
        activated: Tensor = self.relu(residual + self.downsample(inputs))
        return activated


def build_resnet18(
    input_shape: tuple[int, ...],
    num_outputs: int,
    *,
    width: Count = 64,
    small_stem: bool | Literal["auto"] = "auto",
) -> nn.Sequential:
    """Build four stages of two blocks, `width` to 8 times `width` channels wide.

    The stem is a 3 x 3 convolution if `small_stem`, else 7 x 7 with stride 2 and max-pooling; "auto" takes the small
    one for pictures of at most 64 pixels. He et al., "Deep residual learning for image recognition", 2015; their
    CIFAR networks for the small stem.
    """
    channels, *sides = picture_shape("resnet18", input_shape)
    if small_stem == "auto":
        small_stem = max(sides) <= SMALL_PICTURE
    layers = _stem(channels, width, small=small_stem)
    for stage in range(4):
        out_channels = width * 2**stage
        in_channels = out_channels // 2 if stage else width
        first = BasicBlock(in_channels, out_channels, stride=2 if stage else 1)
        layers[f"layer{stage + 1}"] = nn.Sequential(first, BasicBlock(out_channels, out_channels, stride=1))
    layers["avgpool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["fc"] = nn.Linear(8 * width, num_outputs)
    model = nn.Sequential(layers)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return model


def _stem(channels: int, width: int, *, small: bool) -> OrderedDict[str, nn.Module]:
    size, stride = (3, 1) if small else (7, 2)
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=nn.Conv2d(channels, width, size, stride, padding=size // 2, bias=False),
        bn1=nn.BatchNorm2d(width),
        relu=nn.ReLU(),
    )
    if not small:
        layers["maxpool"] = nn.MaxPool2d(3, 2, padding=1)
    return layers
