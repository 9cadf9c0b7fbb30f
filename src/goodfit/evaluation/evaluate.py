"""A trained model as evaluation, prediction and shipping see it, and its evaluation on a split."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from goodfit.data.dataset import Split, TargetScale, Task
from goodfit.data.stream import read_in_order
from goodfit.data.transforms import Transform
from goodfit.devices import Precision, autocast
from goodfit.distributed import Ranks
from goodfit.errors import ModelError
from goodfit.evaluation.metrics import ClassificationCounts, Evaluation, RegressionSums
from goodfit.inputs import Inputs, apply, call, tensors
from goodfit.models.outputs import OutputMeaning, check_outputs, log_probabilities, prediction_of, probabilities
from goodfit.user_code import blame, said

__all__ = ["EvaluationStopped", "TrainedModel", "evaluate"]

T = TypeVar("T")


@dataclass(frozen=True)
class TrainedModel:
    """A module with all that is needed to use it: its way in (the transform) and the meaning of what comes out."""

    module: nn.Module
    transform: Transform
    task: Task
    classes: tuple[str, ...]
    outputs: OutputMeaning
    target_scale: TargetScale
    precision: Precision
    device: torch.device
    channels_last: bool = False

    @torch.no_grad()
    def __call__(self, stored: Inputs) -> Tensor:
        """Return the module's float32 outputs (N, outputs) for a stored batch (N, ...), in evaluation mode."""
        inputs: Inputs = self.transform.normalize(apply(lambda tensor: tensor.to(self.device), stored))
        if self.channels_last:
            inputs = apply(lambda tensor: tensor.contiguous(memory_format=torch.channels_last), inputs)
        return self.outputs_for(inputs)

    @torch.no_grad()
    def outputs_for(self, inputs: Inputs) -> Tensor:
        """Return the module's float32 outputs for inputs that are ready: what it was trained on."""
        self.module.eval()
        inputs = apply(lambda tensor: tensor.to(self.device), inputs)
        try:
            with autocast(self.device, self.precision):
                outputs = call(self.module, inputs)
        except Exception as error:
            shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors(inputs))
            raise blame(ModelError(f"the model failed on a batch of {shapes}: {said(error)}"), error) from error
        return prediction_of(outputs).float()

    def probabilities(self, stored: Inputs) -> Tensor:
        """Return class probabilities (N, C) float32."""
        return probabilities(self(stored), self.outputs)

    def values(self, stored: Inputs) -> Tensor:
        """Return a regression's values (N,) float64, in the target's unit."""
        return self.target_scale.to_unit(self(stored)[:, 0])


class EvaluationStopped(Exception):  # noqa: N818  nothing is wrong
    """An evaluation was asked to stop; it has changed nothing."""


def _never() -> bool:
    return False


@torch.no_grad()
def evaluate(
    model: TrainedModel, split: Split, name: str, ranks: Ranks | None = None, stop_asked: Callable[[], bool] = _never
) -> Evaluation:
    """Return the metrics of `model` on every example of `split`, each counted once on any number of ranks.

    Raises EvaluationStopped between two batches if `stop_asked` says so, on all ranks together if it does on one.
    """
    ranks = ranks or Ranks()
    ranks.share(model.module.buffers())  # batch statistics are each rank's own; the first rank's are the model's
    sums: ClassificationCounts | RegressionSums
    if model.task == "classification":
        sums = ClassificationCounts(len(model.classes), model.device)
    else:
        sums = RegressionSums(model.device, center=model.target_scale.mean)
    with closing(read_in_order(split, ranks.slice(len(split)))) as batches:
        for inputs, targets, is_ready in _together(batches, ranks, stop_asked, model.device):
            outputs = model(inputs) if isinstance(inputs, Tensor) and not is_ready else model.outputs_for(inputs)
            _count(sums, model, outputs, targets.to(model.device))
    ranks.add(sums.tensors())
    return sums.result(name, model.classes) if isinstance(sums, ClassificationCounts) else sums.result(name)


def _together(batches: Iterable[T], ranks: Ranks, stop_asked: Callable[[], bool], device: torch.device) -> Iterator[T]:
    """Give the batches; the ranks agree before each of them whether to stop, also those that have one batch less."""
    for batch in batches:
        stop, _ = ranks.largest((stop_asked(), True), device)
        if stop:
            raise EvaluationStopped
        yield batch
    others_go_on: int = ranks.world > 1
    while others_go_on:
        stop, others_go_on = ranks.largest((stop_asked(), False), device)
        if stop:
            raise EvaluationStopped


def _count(sums: ClassificationCounts | RegressionSums, model: TrainedModel, outputs: Tensor, targets: Tensor) -> None:
    check_outputs(outputs, model.outputs, len(model.classes) or 1)
    if isinstance(sums, ClassificationCounts):
        losses = F.nll_loss(log_probabilities(outputs, model.outputs), targets, reduction="none")
        sums.update(probabilities(outputs, model.outputs), losses, targets)
    else:
        losses = (outputs[:, 0] - model.target_scale.from_unit(targets)) ** 2
        sums.update(model.target_scale.to_unit(outputs[:, 0]), losses, targets)
