"""A module of two inputs, which several tests give data of two inputs to."""

from torch import Tensor, nn


class Both(nn.Module):
    """Four numbers on the left and two on the right, for three classes."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 3), nn.Linear(2, 3)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.one(left) + self.two(right)
