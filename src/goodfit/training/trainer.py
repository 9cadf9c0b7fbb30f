"""The step, and the visible loop over it. It knows tensors only: no files, no screen, no names of metrics."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from goodfit.data.augment import Augmentation
from goodfit.data.loader import Batch, Loader, steps_per_epoch
from goodfit.data.transforms import Transform
from goodfit.devices import Precision, autocast
from goodfit.distributed import Ranks
from goodfit.errors import NotFiniteError
from goodfit.models.freezing import set_training
from goodfit.randomness import reseed
from goodfit.training.losses import Loss
from goodfit.training.schedules import Schedule
from goodfit.training.state import RunState, SkippedStep

__all__ = ["Step", "Trainer"]


@dataclass(frozen=True)
class Step:
    """One finished update."""

    index: int  # counted from 0
    loss: Tensor  # of this update's batch (of this rank's part, where there are ranks), on the device
    learning_rate: float
    stop: bool  # whether a rank was asked to stop; all ranks see the same
    skipped: SkippedStep | None = None  # that it was left out, and why is known from an earlier try


def _never() -> bool:
    return False


@dataclass
class Trainer:
    """Performs optimiser steps on a RunState; between two of them the state is always consistent."""

    state: RunState
    loader: Loader
    transform: Transform
    augmentation: Augmentation
    loss: Loss
    schedule: Schedule
    seed: int
    num_classes: int
    total_steps: int  # of the run
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    precision: Precision = "fp32"
    channels_last: bool = False
    accumulate: int = 1
    clip: float = 0.0
    frozen: bool = False
    ranks: Ranks = field(default_factory=Ranks)
    stop_asked: Callable[[], bool] = _never

    def __post_init__(self) -> None:
        self.parameters = [parameter for parameter in self.state.model.parameters() if parameter.requires_grad]
        self.base_rates: list[float] = [
            group.setdefault("initial_lr", group["lr"]) for group in self.state.optimizer.param_groups
        ]

    def steps(self, until: int | None = None) -> Iterator[Step]:
        """Perform one optimiser step per turn, up to step number `until` or the run's last, and yield each."""
        set_training(self.state.model, frozen=self.frozen)
        while self.state.step < (self.total_steps if until is None else until):
            if not self.state.model.training:  # after an evaluation
                set_training(self.state.model, frozen=self.frozen)
            yield self.step()

    def step(self) -> Step:
        """Gather, forward, backward, update: one step, and everything that is done for every step."""
        state = self.state
        index = state.step
        rate = self._set_learning_rate(index)
        for skipped in state.skipped_steps:
            if skipped.step == index:
                state.step = index + 1
                return Step(index, torch.zeros((), device=self.device), rate, stop=False, skipped=skipped)
        inputs, targets, mine = self._examples(index)
        reseed(self.seed, "module", index, self.ranks.rank)
        state.optimizer.zero_grad(set_to_none=True)
        weight = self.loss.weight(targets)
        loss = self._backward(inputs, targets[mine], weight)
        stop = self.ranks.add_gradients(self.parameters, self.stop_asked())
        if self.clip:
            state.scaler.unscale_(state.optimizer)
            torch.nn.utils.clip_grad_norm_(self.parameters, self.clip)
        state.scaler.step(state.optimizer)
        state.scaler.update()
        if state.ema:
            state.ema.update(index)
        if state.scaler.is_enabled():  # what overflows in fp16 is the scaler's business
            weight = weight * torch.isfinite(loss)
            loss = torch.nan_to_num(loss, nan=0.0, posinf=0.0, neginf=0.0)
        state.loss_sum += loss * weight
        state.weight_sum += weight / self.ranks.world
        state.step = index + 1
        return Step(index, loss, rate, stop)

    def take_loss(self) -> float:
        """Return the mean loss over all ranks since it was last taken, nan if no step was; this reads the device.

        Raises NotFiniteError where it is infinite or not a number.
        """
        self.ranks.add([self.state.loss_sum, self.state.weight_sum])
        total, weight = float(self.state.loss_sum), float(self.state.weight_sum)
        if not math.isfinite(total):
            raise NotFiniteError(f"the training loss became {total} by step {self.state.step}")
        self.state.loss_sum.zero_()
        self.state.weight_sum.zero_()
        return total / weight if weight else math.nan

    def is_finite(self, step: Step) -> bool:
        """Whether a step's loss, on every rank, and the weights after it are finite; this reads the device."""
        tensors = [*self.parameters] if self.state.scaler.is_enabled() else [step.loss, *self.parameters]
        broken = torch.stack([torch.isfinite(tensor).logical_not().any() for tensor in tensors]).any().float()
        self.ranks.add([broken])
        return not bool(broken)

    def _set_learning_rate(self, index: int) -> float:
        factor = self.schedule(index)
        for group, rate in zip(self.state.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = rate * factor
        return self.base_rates[0] * factor

    def _examples(self, index: int) -> tuple[Tensor, Tensor, slice]:
        """Return this rank's augmented inputs, the whole batch's targets, and which of them are this rank's."""
        batch: Batch = self.loader(index)
        inputs, targets = self.augmentation(
            batch.inputs,
            batch.targets,
            self.transform,
            num_classes=self.num_classes,
            seed=self.seed,
            step=index,
            part=batch.part,
        )
        mine = self.ranks.slice(len(targets))
        if batch.part != mine:
            inputs = inputs[mine]
        if self.channels_last:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        return inputs, targets, mine

    def _backward(self, inputs: Tensor, targets: Tensor, weight: Tensor | float) -> Tensor:
        """Add the gradient of this rank's examples, in `accumulate` parts; return their share of the batch's loss."""
        total = torch.zeros((), device=self.device)
        if not len(targets):  # a rank may have none of a small batch; most modules cannot compute with none
            return total
        sizes = self._part_sizes(len(targets))
        for some_inputs, some_targets in zip(inputs.split(sizes), targets.split(sizes), strict=True):
            with autocast(self.device, self.precision):
                outputs = self.state.model(some_inputs)
            loss = self.loss.total(outputs.float(), some_targets) / weight
            self.state.scaler.scale(loss).backward()
            total = total + loss.detach()
        return total

    def _part_sizes(self, count: int) -> list[int]:
        """Cut `count` examples as small as a whole batch's parts are; a last one of a single example joins the one before."""
        if self.accumulate == 1:
            return [count]
        size = math.ceil(self.loader.batch_size / self.ranks.world / self.accumulate)
        number = steps_per_epoch(count, size)
        return [size] * (number - 1) + [count - size * (number - 1)]
