"""What the command hands to a process that measures: plain values, importable without torch."""

from dataclasses import dataclass
from pathlib import Path

__all__ = ["Request"]


@dataclass(frozen=True)
class Request:
    """A work by name, and how much of it."""

    work: str  # mnist-mlp, cifar10-quick or tiny
    examples: int  # at most so many for training
    epochs: int = 1
    data_root: Path = Path("data")  # holds MNIST in torchvision's layout
    cifar: Path = Path("cifar10-images")  # train/ and test/ class folders of pictures
    device: str = "cpu"
