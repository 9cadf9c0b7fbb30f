"""Losses in two parts, a sum over examples and the sum of their weights, so that any cut of a batch adds up the same."""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from goodfit.data.dataset import Dataset, TargetScale
from goodfit.errors import ConfigError
from goodfit.models.outputs import OutputMeaning, log_probabilities, prediction_of

__all__ = ["CrossEntropy", "Loss", "SquaredError", "build_loss", "class_weights"]

SMALLEST = torch.finfo(torch.float32).tiny  # weight of a batch of classes that do not count: its loss is then 0, not nan


class Loss(Protocol):
    """What is made small: the sum of `total` over the parts of a batch, divided by the `weight` of the whole batch."""

    def total(self, outputs: Any, targets: Tensor) -> Tensor:
        """Return the weighted sum over the examples, a scalar on the device; `outputs` is whatever the module gave."""

    def mean(self, outputs: Any, targets: Tensor, weight: Tensor | float) -> Tensor:
        """Return the total over `weight`, for a batch that is not cut."""

    def weight(self, targets: Tensor) -> Tensor | float:
        """Return the sum of the examples' weights."""


@dataclass(frozen=True)
class CrossEntropy:
    """Cross-entropy of what a classifier gives, (N, C) or (N, 1), against class indices (N,) or probabilities (N, C).

    Label smoothing: Szegedy et al. 2016.
    """

    label_smoothing: float = 0.0
    class_weights: Tensor | None = None  # (C,)
    outputs: OutputMeaning = "logits"

    def total(self, outputs: Any, targets: Tensor) -> Tensor:
        """Return the weighted sum of the examples' losses."""
        return F.cross_entropy(
            self._logits(prediction_of(outputs)),
            targets,
            weight=self.class_weights,
            reduction="sum",
            label_smoothing=self.label_smoothing,
        )

    def mean(self, outputs: Any, targets: Tensor, weight: Tensor | float) -> Tensor:
        """Return the weighted mean of the examples' losses; `weight` is how much they count together."""
        if self.class_weights is None:
            return F.cross_entropy(self._logits(prediction_of(outputs)), targets, label_smoothing=self.label_smoothing)
        total = self.total(outputs, targets)
        return total / weight

    def weight(self, targets: Tensor) -> Tensor | float:
        """Return how much the examples count together."""
        if self.class_weights is None:
            return float(targets.size(0))  # len() of a tensor takes ten times as long
        weights = self.class_weights[targets] if targets.ndim == 1 else targets @ self.class_weights
        return weights.sum().clamp(min=SMALLEST)

    def _logits(self, outputs: Tensor) -> Tensor:
        """Return numbers whose softmax is the probabilities; log-probabilities are such numbers themselves."""
        if self.outputs == "one-logit":
            return torch.cat([torch.zeros_like(outputs), outputs], 1)
        return log_probabilities(outputs, self.outputs) if self.outputs == "probabilities" else outputs


@dataclass(frozen=True)
class SquaredError:
    """Squared error of outputs (N, 1) against values (N,), in units of the training targets' deviation."""

    scale: TargetScale

    def total(self, outputs: Any, targets: Tensor) -> Tensor:
        """Return the sum of the squared errors."""
        return F.mse_loss(prediction_of(outputs)[:, 0], self.scale.from_unit(targets), reduction="sum")

    def mean(self, outputs: Any, targets: Tensor, weight: Tensor | float) -> Tensor:  # noqa: ARG002
        """Return the mean of the squared errors."""
        return F.mse_loss(prediction_of(outputs)[:, 0], self.scale.from_unit(targets))

    def weight(self, targets: Tensor) -> Tensor | float:
        """Return the number of examples."""
        return float(targets.size(0))  # len() of a tensor takes ten times as long


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


def build_loss(
    dataset: Dataset,
    *,
    outputs: OutputMeaning,
    label_smoothing: float,
    weights: Tensor | None,
    scale: TargetScale | None = None,
) -> Loss:
    """Return the loss that fits the task and what the outputs mean: cross-entropy, or squared error.

    `scale` says in which terms a number is predicted; None: in those of the data.
    """
    if dataset.task == "regression":
        if label_smoothing:
            raise ConfigError("train.label_smoothing is for classes, and the target is a number; leave it out")
        return SquaredError(scale or dataset.target_scale)
    return CrossEntropy(label_smoothing, weights, outputs)
