"""Everything that can change the next step, in one place.

What is not here is a function of (seed, step): the order of the examples, augmentation, the learning rate.
"""

from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from goodfit.data.stream import StreamLoader
from goodfit.errors import FileError
from goodfit.training.ema import MovingAverage
from goodfit.training.own import OwnSchedule

__all__ = ["Best", "Halving", "RunState", "SkippedStep"]


@dataclass(frozen=True)
class Best:
    """The step with the lowest validation loss so far."""

    step: int
    loss: float


@dataclass(frozen=True)
class SkippedStep:
    """A step, counted from 0, that is left out because it made the loss or the weights not finite; and its examples."""

    step: int
    examples: tuple[str, ...]


@dataclass(frozen=True)
class Halving:
    """From step `step` on, counted from 0, a batch goes through the model in `accumulate` parts, because memory ran out there."""

    step: int
    accumulate: int


@dataclass
class RunState:
    """The state of a run between two steps, saved whole in each checkpoint.

    `loss_sum` and `weight_sum` are the loss since it was last logged, on the device, but for that of the steps in `losses`.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    ema: MovingAverage | None
    scaler: torch.amp.GradScaler
    loss_sum: Tensor
    weight_sum: Tensor
    step: int = 0
    best: Best | None = None
    epochs_since_best: int = 0
    evaluated_step: int = 0  # of the last evaluation: a stop may fall between an epoch's end and its evaluation
    skipped_steps: list[SkippedStep] = field(default_factory=list)
    halvings: list[Halving] = field(default_factory=list)  # of the micro-batch
    nondeterministic: list[str] = field(default_factory=list)  # operations that were used and have no deterministic form
    schedule: OwnSchedule | None = None  # where it has a state of its own; goodfit's are functions of the step
    reader: StreamLoader | None = None  # where what it reads may have a state of its own; all others go by the step
    log_length: int = 0  # bytes of metrics.jsonl that belong to this state
    losses: list[tuple[Tensor, Tensor | float]] = field(default_factory=list, repr=False)  # of steps, and what each counts
    copying: Future[None] | None = field(default=None, repr=False)  # of what only an update changes

    def __post_init__(self) -> None:
        for group in self.optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])

    @property
    def evaluated_model(self) -> nn.Module:
        """The module that is evaluated and shipped: the moving average where there is one."""
        return self.ema.module if self.ema else self.model

    def tensors(self) -> dict[str, Tensor]:
        """Return every tensor of the state under a name of its own, not copied."""
        found = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        if self.ema:
            found |= {f"ema.{name}": tensor for name, tensor in self.ema.module.state_dict().items()}
        for index, values in self.optimizer.state_dict()["state"].items():
            found |= {f"optimizer.{index}.{key}": value for key, value in values.items() if isinstance(value, Tensor)}
        self.sum_losses()
        return found | {"loss_sum": self.loss_sum, "weight_sum": self.weight_sum}

    def add_loss(self, loss: Tensor, weight: Tensor | float) -> None:
        """Take in a step's mean loss, which counts `weight`; adding it up there and then would cost more than remembering it."""
        self.losses.append((loss, weight))

    def sum_losses(self) -> None:
        """Add up what was taken in, one by one, so that the sum does not depend on when that is done; this reads the device."""
        if not self.losses:
            return
        total, count = float(self.loss_sum), float(self.weight_sum)
        values = torch.stack([loss for loss, _ in self.losses]).tolist()
        for value, (_, weight) in zip(values, self.losses, strict=True):
            total += value * float(weight)
            count += float(weight)
        self.losses.clear()
        self.loss_sum.fill_(total)
        self.weight_sum.fill_(count)

    def changed_by_passes(self) -> set[str]:
        """Return the names of the tensors that may change before the next update; code of the user's own may change others."""
        return {f"model.{name}" for name, _ in self.model.named_buffers()} | {"loss_sum", "weight_sum"}

    def wait_for_copy(self) -> None:
        """Return when nothing is being copied that an update is about to change."""
        if self.copying:
            self.copying.result()
            self.copying = None

    def values(self) -> dict[str, Any]:
        """Return everything else as JSON values."""
        optimizer = self.optimizer.state_dict()
        return {
            "step": self.step,
            "best": asdict(self.best) if self.best else None,
            "epochs_since_best": self.epochs_since_best,
            "evaluated_step": self.evaluated_step,
            "skipped_steps": [asdict(skipped) for skipped in self.skipped_steps],
            "halvings": [asdict(halving) for halving in self.halvings],
            "nondeterministic": self.nondeterministic,
            "log_length": self.log_length,
            "scaler": self.scaler.state_dict(),
            "optimizer": {
                str(index): {key: value for key, value in values.items() if not isinstance(value, Tensor)}
                for index, values in optimizer["state"].items()
            },
            "param_groups": optimizer["param_groups"],
            "schedule": self.schedule.state() if self.schedule else None,
            "reader": self.reader.state() if self.reader else None,
        }

    def load(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Take over a saved state; raise FileError, naming what does not fit, if it is of another configuration."""
        try:
            self._check(tensors, values)
            self.model.load_state_dict(_below(tensors, "model."))
            if self.ema:
                self.ema.module.load_state_dict(_below(tensors, "ema."))
            states: dict[int, dict[str, Any]] = {int(index): dict(kept) for index, kept in values["optimizer"].items()}
            for name, tensor in _below(tensors, "optimizer.").items():
                index, _, key = name.partition(".")
                states[int(index)][key] = tensor
            self.optimizer.load_state_dict({"state": states, "param_groups": values["param_groups"]})
            self._match_memory_formats()
            self.scaler.load_state_dict(values["scaler"])
            if self.schedule:
                self.schedule.load(values["schedule"])
            reading = values["reader"]
            if self.reader and reading:
                self.reader.load(reading)
            self.losses.clear()
            self.loss_sum.copy_(tensors["loss_sum"])
            self.weight_sum.copy_(tensors["weight_sum"])
            self.step = int(values["step"])
            best = values["best"]
            self.best = Best(int(best["step"]), float(best["loss"])) if best else None
            self.epochs_since_best = int(values["epochs_since_best"])
            self.evaluated_step = int(values["evaluated_step"])
            self.skipped_steps = [SkippedStep(int(kept["step"]), tuple(kept["examples"])) for kept in values["skipped_steps"]]
            self.halvings = [Halving(int(kept["step"]), int(kept["accumulate"])) for kept in values["halvings"]]
            self.nondeterministic = [str(name) for name in values["nondeterministic"]]
            self.log_length = int(values["log_length"])
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
            first = f"{(str(error).strip() or repr(error)).splitlines()[0]:.300}"
            raise FileError(
                f"the checkpoint does not fit this run's configuration: {first}; was config.toml changed, or what "
                "was given in Python?"
            ) from error

    def _check(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Raise ValueError where something was saved that has no place here, or the other way round."""
        averaged = any(name.startswith("ema.") for name in tensors)
        if averaged != (self.ema is not None):
            raise ValueError(f"it has {'a' if averaged else 'no'} moving average of the weights")
        if (values["schedule"] is None) != (self.schedule is None):
            raise ValueError("it is of another schedule")
        groups, own = values["param_groups"], self.optimizer.state_dict()["param_groups"]
        if not _is_like([group | {"params": []} for group in groups], [group | {"params": []} for group in own]):
            raise ValueError(f"it is of another optimiser than {type(self.optimizer).__name__}")
        for group, mine in zip(groups, own, strict=True):
            if group.get("initial_lr") != mine.get("initial_lr"):
                raise ValueError(
                    f"its learning rate is {group.get('initial_lr')}, and the optimiser's {mine.get('initial_lr')}"
                )
        if not all(type(index) is int for group in groups for index in group["params"]):
            raise ValueError("its optimiser names parameters that cannot be")
        if self.scaler.is_enabled() and not _is_like(values["scaler"], self.scaler.state_dict()):
            raise ValueError("it is of another scaler of the loss")

    def _match_memory_formats(self) -> None:
        """Lay the optimiser's tensors out in memory as their parameters are: fused kernels go by position, not by index."""
        for parameter, kept in self.optimizer.state.items():
            for key, value in kept.items():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    kept[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _is_like(saved: Any, own: Any) -> bool:
    """Whether a JSON value has the form of `own`, in which None may stand for a number or a text."""
    if isinstance(own, dict):
        return isinstance(saved, dict) and saved.keys() == own.keys() and all(_is_like(saved[key], own[key]) for key in own)
    if isinstance(own, list | tuple):
        return isinstance(saved, list) and len(saved) == len(own) and all(map(_is_like, saved, own))
    return saved is None or (
        not isinstance(saved, list | dict) and (own is None or isinstance(saved, str) == isinstance(own, str))
    )


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
