"""The moving average of a model's weights."""

import copy

import torch
from torch import nn

__all__ = ["MovingAverage"]


class MovingAverage:
    """A copy of `model` whose floating tensors follow the model's by an exponential moving average (Polyak and Juditsky 1992).

    The decay grows with the number of updates, min(decay, (1 + n) / (10 + n)), so that a short run is not held back by
    its first weights.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(model).requires_grad_(False)
        self.decay = decay
        pairs = list(zip(self.module.state_dict().values(), model.state_dict().values(), strict=True))
        self._floats = [pair for pair in pairs if pair[0].is_floating_point()]
        self._counts = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the model after update number `step`, counted from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_([mine for mine, _ in self._floats], [theirs for _, theirs in self._floats], 1 - decay)
        for mine, theirs in self._counts:
            mine.copy_(theirs)
