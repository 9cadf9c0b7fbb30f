"""The step, and the visible loop over it. It knows tensors only: no files, no screen, no names of metrics."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from goodfit.data.augment import Augmentation, alternating_sides
from goodfit.data.loader import Batch, Loader, steps_per_epoch
from goodfit.data.stream import StreamLoader
from goodfit.data.transforms import Transform
from goodfit.devices import Precision, autocast
from goodfit.distributed import Ranks
from goodfit.errors import NotFiniteError, OutOfMemoryError, RunError
from goodfit.inputs import Inputs, call, split, tensors
from goodfit.models.freezing import set_training
from goodfit.models.outputs import in_float32, prediction_of
from goodfit.randomness import reseed
from goodfit.training.losses import Loss
from goodfit.training.schedules import Schedule
from goodfit.training.state import RunState, SkippedStep
from goodfit.training.updates import OptimizerUpdate, Update
from goodfit.user_code import blame, said

__all__ = ["Step", "Trainer"]


@dataclass(frozen=True)
class Step:
    """One finished update."""

    index: int  # counted from 0
    loss: Tensor  # of this update's batch (of this rank's part, where there are ranks), on the device
    learning_rate: float
    stop: bool  # whether a rank was asked to stop; all ranks see the same
    predictions: Tensor | None = field(default=None, repr=False)  # of this rank's examples, before the update
    skipped: SkippedStep | None = None  # that it was left out, and why is known from an earlier try


def _never() -> bool:
    return False


@dataclass
class Trainer:
    """Performs optimiser steps on a RunState; between two of them the state is always consistent."""

    state: RunState
    loader: Loader | StreamLoader
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
    accumulate: int = 1  # parts in which a batch goes through the model, unless memory asks for more
    clip: float = 0.0
    frozen: bool = False
    draws: bool = True  # whether the model may draw in training, such as for dropout
    reseeds_libraries: bool = False  # Python's and numpy's generators too, from which code of the user's may draw
    ranks: Ranks = field(default_factory=Ranks)
    stop_asked: Callable[[], bool] = _never
    make_update: Callable[[Optimizer], Update] = OptimizerUpdate

    def __post_init__(self) -> None:
        self.update = self.make_update(self.state.optimizer)
        self.parameters = [parameter for parameter in self.state.model.parameters() if parameter.requires_grad]
        self.base_rates: list[float] = [group["initial_lr"] for group in self.state.optimizer.param_groups]

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
                self._end_step(index)
                return Step(index, torch.zeros((), device=self.device), rate, stop=False, skipped=skipped)
        inputs, targets, mine = self._examples(index)
        if self.draws:
            reseed(self.seed, "module", index, self.ranks.rank, libraries=self.reseeds_libraries)
        self.update.forget()
        weight = self.loss.weight(targets)
        is_short = False
        try:
            loss, predictions = self._backward(inputs, targets if self.ranks.world == 1 else targets[mine], weight)
        except torch.OutOfMemoryError:
            is_short = True  # to be raised when the other ranks know, and when what the error holds of the graph is gone
        stop, is_short = self.ranks.add_gradients(self.parameters, (self.stop_asked(), is_short))
        if is_short:
            raise OutOfMemoryError(f"memory ran out at step {index + 1} with {self.micro_batch} examples at a time")
        state.wait_for_copy()
        if self.clip:
            state.scaler.unscale_(state.optimizer)
            torch.nn.utils.clip_grad_norm_(self.parameters, self.clip)
        if state.scaler.is_enabled():  # what overflows in fp16 is the scaler's business
            state.scaler.step(state.optimizer)
            state.scaler.update()
            weight = weight * torch.isfinite(loss)
            loss = torch.nan_to_num(loss, nan=0.0, posinf=0.0, neginf=0.0)
        else:
            self.update()
        if state.ema:
            state.ema.update(index)
        state.add_loss(loss, weight)
        self._end_step(index)
        return Step(index, loss, rate, stop, predictions)

    def batch(self, index: int) -> tuple[Inputs, Tensor]:
        """Return what the model sees at step `index`, and this rank's targets: class indices, values, or mixed classes."""
        inputs, targets, mine = self._examples(index)
        return inputs, targets[mine]

    def set_learning_rate(self, rate: float) -> None:
        """Make `rate` the first parameter group's learning rate before the schedule, and scale the others alike."""
        groups, before = self.state.optimizer.param_groups, self.base_rates
        self.base_rates = [rate * (group["initial_lr"] / groups[0]["initial_lr"]) for group in groups]
        if self.state.schedule:
            for group, old, new in zip(groups, before, self.base_rates, strict=True):
                group["lr"] = group["lr"] / old * new if old else new

    @property
    def parts(self) -> int:
        """In how many parts the next batch goes through the model."""
        parts = self.accumulate
        for halving in self.state.halvings:
            if halving.step <= self.state.step:
                parts = max(parts, halving.accumulate)
        return parts

    @property
    def micro_batch(self) -> int:
        """The largest number of examples that go through the model at a time, in the next step."""
        return math.ceil(self.loader.batch_size / self.ranks.world / self.parts)

    def take_loss(self) -> float:
        """Return the mean loss over all ranks since it was last taken, nan if no step was; this reads the device.

        Raises NotFiniteError where it is infinite or not a number.
        """
        self.state.sum_losses()
        self.ranks.add([self.state.loss_sum, self.state.weight_sum])
        total, weight = float(self.state.loss_sum), float(self.state.weight_sum) / self.ranks.world
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

    def _end_step(self, index: int) -> None:
        if self.state.schedule:
            self.state.schedule.after_step(ends_epoch=(index + 1) % self.loader.steps_per_epoch == 0)
        self.state.step = index + 1

    def _set_learning_rate(self, index: int) -> float:
        if self.state.schedule:
            return float(self.state.optimizer.param_groups[0]["lr"])
        factor = self.schedule(index)
        for group, rate in zip(self.state.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = rate * factor
        return self.base_rates[0] * factor

    def _examples(self, index: int) -> tuple[Inputs, Tensor, slice]:
        """Return this rank's augmented inputs, the whole batch's targets, and which of them are this rank's."""
        batch: Batch = self.loader(index)
        mine = self.ranks.slice(len(batch.targets))
        inputs, targets = batch.inputs, batch.targets
        if not batch.is_ready:
            assert isinstance(inputs, Tensor)
            inputs, targets = self.augmentation(
                inputs,
                targets,
                self.transform,
                num_classes=self.num_classes,
                seed=self.seed,
                step=index,
                part=batch.part,
                sides=self._sides(index),
            )
            if batch.part != mine:
                inputs = inputs[mine]
        if self.channels_last:
            assert isinstance(inputs, Tensor)
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        return inputs, targets, mine

    def _sides(self, index: int) -> Tensor | None:
        """Return which examples of the batch are flipped, where that alternates from epoch to epoch."""
        if self.augmentation.flip != "alternating":
            return None
        positions = self.loader.positions(index)
        return alternating_sides(self.seed, index // self.loader.steps_per_epoch, positions, len(self.loader.rows))

    def _backward(self, inputs: Inputs, targets: Tensor, weight: Tensor | float) -> tuple[Tensor, Tensor | None]:
        """Add the gradient of this rank's examples, in as many parts as the memory asks for.

        Returns their share of the batch's mean loss, and the predictions.
        """
        if not len(targets):  # a rank may have none of a small batch; most modules cannot compute with none
            return torch.zeros((), device=self.device), None
        if self.parts == 1 and self.ranks.world == 1:
            outputs = self._forward(inputs)
            loss = self.loss.mean(outputs, targets, weight)
            self.state.scaler.scale(loss).backward()
            return loss.detach(), prediction_of(outputs).detach()
        sizes = self._part_sizes(len(targets))
        parts = zip(split(inputs, sizes), targets.split(sizes), strict=True)
        losses, predictions = zip(*(self._backward_part(*part, weight) for part in parts), strict=True)
        return torch.stack(losses).sum(), torch.cat(predictions)

    def _backward_part(self, inputs: Inputs, targets: Tensor, weight: Tensor | float) -> tuple[Tensor, Tensor]:
        outputs = self._forward(inputs)
        total = self.loss.total(outputs, targets)
        loss = total / weight
        self.state.scaler.scale(loss).backward()
        return loss.detach(), prediction_of(outputs).detach()

    def _forward(self, inputs: Inputs) -> Any:
        """Return what the module gives, in float32."""
        try:
            with autocast(self.device, self.precision):
                outputs = call(self.state.model, inputs)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors(inputs))
            what = f"the model failed at step {self.state.step} with a batch of {shapes}: {said(error)}"
            if "more than 1 value per channel" in str(error):
                what += "; one example has no deviation, which batch normalisation divides by: train with a larger batch_size"
            raise blame(RunError(what), error) from error
        if isinstance(outputs, Tensor):
            return outputs.float()
        return outputs if self.precision == "fp32" else in_float32(outputs)

    def _part_sizes(self, count: int) -> list[int]:
        """Cut `count` examples as small as a whole batch's parts are; a last one of a single example joins the one before."""
        size = self.micro_batch
        number = steps_per_epoch(count, size)
        return [size] * (number - 1) + [count - size * (number - 1)]
