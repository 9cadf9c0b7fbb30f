"""Losses in two parts, a sum over examples and the sum of their weights, so that any cut of a batch adds up the same."""

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from goodfit.data.dataset import Dataset, TargetScale
from goodfit.errors import ConfigError

__all__ = ["BinaryCrossEntropy", "CrossEntropy", "Loss", "SquaredError", "build_loss", "class_weights"]

SMALLEST = torch.finfo(torch.float32).tiny  # weight of a batch of classes that do not count: its loss is then 0, not nan


class Loss(Protocol):
    """What is made small: the sum of `total` over the parts of a batch, divided by the `weight` of the whole batch."""

    def total(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the weighted sum over the examples, a scalar on the device."""

    def weight(self, targets: Tensor) -> Tensor | float:
        """Return the sum of the examples' weights."""


@dataclass(frozen=True)
class CrossEntropy:
    """Softmax cross-entropy of logits (N, C) against class indices (N,) or probabilities (N, C).

    Label smoothing: Szegedy et al. 2016.
    """

    label_smoothing: float = 0.0
    class_weights: Tensor | None = None  # (C,)

    def total(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the weighted sum of the examples' losses."""
        return F.cross_entropy(
            outputs, targets, weight=self.class_weights, reduction="sum", label_smoothing=self.label_smoothing
        )

    def weight(self, targets: Tensor) -> Tensor | float:
        """Return how much the examples count together."""
        if self.class_weights is None:
            return float(len(targets))
        weights = self.class_weights[targets] if targets.ndim == 1 else targets @ self.class_weights
        return weights.sum().clamp(min=SMALLEST)


@dataclass(frozen=True)
class BinaryCrossEntropy:
    """Cross-entropy of one logit (N, 1), that of the second class, against class indices (N,) or probabilities (N, 2)."""

    label_smoothing: float = 0.0
    class_weights: Tensor | None = None  # (2,)

    def total(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the weighted sum of the examples' losses, the same as softmax over (0, logit) would give."""
        logits = torch.cat([torch.zeros_like(outputs), outputs], 1)
        return CrossEntropy(self.label_smoothing, self.class_weights).total(logits, targets)

    def weight(self, targets: Tensor) -> Tensor | float:
        """Return how much the examples count together."""
        return CrossEntropy(self.label_smoothing, self.class_weights).weight(targets)


@dataclass(frozen=True)
class SquaredError:
    """Squared error of outputs (N, 1) against values (N,), in units of the training targets' deviation."""

    scale: TargetScale

    def total(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the sum of the squared errors."""
        return F.mse_loss(outputs[:, 0], self.scale.from_unit(targets), reduction="sum")

    def weight(self, targets: Tensor) -> Tensor | float:
        """Return the number of examples."""
        return float(len(targets))


def class_weights(setting: str | list[float], dataset: Dataset, device: torch.device) -> Tensor | None:
    """Return a weight per class (C,), or None for equal ones; "balanced" makes every class count the same in sum.

    Raises ConfigError if a list does not have one weight for each class, or is set for a regression.
    """
    if setting == "none":
        return None
    if dataset.task == "regression":
        raise ConfigError("train.class_weights is for classes, and the target is a number; leave it out")
    if setting == "balanced":
        counts = torch.bincount(dataset.train.targets, minlength=len(dataset.classes)).double()
        return (counts.sum() / (len(counts) * counts.clamp(min=1))).float().to(device)
    if len(setting) != len(dataset.classes):
        raise ConfigError(
            f"train.class_weights has {len(setting)} weights for {len(dataset.classes)} classes; "
            f"give one each, in this order: {', '.join(dataset.classes)}"
        )
    if not any(setting):
        raise ConfigError(f"train.class_weights = {setting} gives no class any weight; leave it out, or give some above 0")
    return torch.tensor(setting, dtype=torch.float32, device=device)


def build_loss(dataset: Dataset, *, one_logit: bool, label_smoothing: float, weights: Tensor | None) -> Loss:
    """Return the loss that fits the task: cross-entropy of one logit or of softmax, or squared error."""
    if dataset.task == "regression":
        if label_smoothing:
            raise ConfigError("train.label_smoothing is for classes, and the target is a number; leave it out")
        return SquaredError(dataset.target_scale)
    if one_logit:
        return BinaryCrossEntropy(label_smoothing, weights)
    return CrossEntropy(label_smoothing, weights)
