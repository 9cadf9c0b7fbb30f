"""What the user gives as Python objects beside the data: model, loss, optimiser, schedule.

A configuration holds their names, which say what has to be given again where a run goes on.
"""

import copy
import functools
import json
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CyclicLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

from goodfit.config import OptimConfig
from goodfit.errors import ConfigError, ModelError, kind_of
from goodfit.models.outputs import OutputMeaning, prediction_of
from goodfit.models.own import OwnModel, copied
from goodfit.user_code import blame, code_name, said

__all__ = [
    "OwnCode",
    "OwnLoss",
    "OwnSchedule",
    "build_own_optimizer",
    "checked_factor",
    "is_schedule_of_steps",
    "wanted_outputs",
]

# What the losses of torch take, by class and by function.
WANTED: dict[Any, OutputMeaning] = {
    nn.CrossEntropyLoss: "logits",
    F.cross_entropy: "logits",
    nn.NLLLoss: "log-probabilities",
    F.nll_loss: "log-probabilities",
    nn.BCEWithLogitsLoss: "one-logit",
    F.binary_cross_entropy_with_logits: "one-logit",
    nn.BCELoss: "probabilities",
    F.binary_cross_entropy: "probabilities",
}
FOR_NUMBERS = (nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss)


@dataclass(frozen=True)
class OwnCode:
    """Objects in place of names; None where the configuration's name stands."""

    model: OwnModel | None = None
    loss: Callable[..., Any] | None = None
    optimizer: Any = None  # an Optimizer over the model's parameters, or what makes one of parameters
    schedule: Any = None  # a function of the step, or an LRScheduler: its class, a partial of it, or one of the optimiser
    arguments: dict[str, Any] = field(default_factory=dict)  # for what builds the model
    copies: bool = True  # train a copy of a module that is given, not the module itself

    def __post_init__(self) -> None:
        built = [name for name in ("optimizer", "schedule") if isinstance(getattr(self, name), Optimizer | LRScheduler)]
        if built and (self.model is None or self.model.module is None):
            raise ConfigError(
                f"the {built[0]} is built for a module that is built; give that as model=, or the {built[0]}'s class"
            )
        if isinstance(self.schedule, LRScheduler) and self.schedule.optimizer is not self.optimizer:
            raise ConfigError("the schedule is that of another optimizer; give that one too, as optimizer=")
        if isinstance(self.loss, type):
            raise ConfigError(f"loss = {self.loss.__name__} is a class; make one of it: loss={self.loss.__name__}()")
        for name in ("loss", "optimizer", "schedule"):
            given = getattr(self, name)
            if given is not None and not callable(given) and not isinstance(given, Optimizer | LRScheduler):
                raise ConfigError(
                    f"{name} = {given!r:.80} is neither a name nor something that can be called; see the docs of train"
                )

    @property
    def is_given(self) -> bool:
        """Whether there is anything of the user's own."""
        return any(given is not None for given in (self.model, self.loss, self.optimizer, self.schedule))

    def names(self) -> dict[str, str]:
        """Return the configuration's names of what is given, by key."""
        given = {"train.loss": self.loss, "optim.name": self.optimizer, "schedule.name": self.schedule}
        return {key: _name(thing) for key, thing in given.items() if thing is not None}

    @property
    def task(self) -> str | None:
        """The task that a loss of torch is for, None for any other."""
        if wanted_outputs(self.loss):
            return "classification"
        return (
            "regression" if isinstance(self.loss, FOR_NUMBERS) or self.loss in (F.mse_loss, F.l1_loss, F.huber_loss) else None
        )

    def built_together(self) -> tuple[nn.Module | None, Any, Any]:
        """Return module, optimiser and schedule as they are given, copied together so that they stay each other's."""
        parts = (self.model.module if self.model else None, self.optimizer, self.schedule)
        kept = tuple(part if isinstance(part, nn.Module | Optimizer | LRScheduler) else None for part in parts)
        mine = copied(kept, type(kept[0]).__name__) if self.copies else kept
        module, optimizer, schedule = (given if own is None else own for own, given in zip(mine, parts, strict=True))
        return cast("nn.Module | None", module), optimizer, schedule


def _name(thing: Any) -> str:
    base = thing.func if isinstance(thing, functools.partial) else thing
    return code_name(base if hasattr(base, "__qualname__") else type(base))


def wanted_outputs(loss: Any) -> OutputMeaning | None:
    """Return what a loss of torch takes, None for any other."""
    return WANTED.get(type(loss)) or (WANTED.get(loss) if callable(loss) and loss.__hash__ else None)


@dataclass(frozen=True)
class OwnLoss:
    """A loss of the user's own: called with what the module gives and the targets, it returns their mean, one number."""

    function: Callable[..., Any]
    name: str

    def total(self, outputs: Any, targets: Tensor) -> Tensor:
        """Return the mean times the number of examples."""
        if (targets.is_floating_point() and targets.ndim == 1) or _is_one_column(outputs):
            # (N, 1) beside (N,) would be taken as N x N pairs, without a word.
            first = outputs if isinstance(outputs, Tensor) else prediction_of(outputs)
            targets = targets.float().view_as(first) if first.numel() == targets.numel() else targets
        try:
            value = self.function(outputs, targets)
        except Exception as error:
            given = f"outputs {tuple(prediction_of(outputs).shape)} and targets {tuple(targets.shape)}"
            raise blame(ModelError(f"the loss {self.name} cannot take {given}: {said(error)}"), error) from error
        if not isinstance(value, Tensor) or value.numel() != 1:
            kind = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ModelError(f"the loss {self.name} gives {kind} where one number is wanted; return the mean over the examples")
        return value.reshape(()) * len(targets)

    def mean(self, outputs: Any, targets: Tensor, weight: Tensor | float) -> Tensor:
        """Return the mean as the user's function gives it."""
        return self.total(outputs, targets) / weight

    def weight(self, targets: Tensor) -> Tensor | float:
        """Return the number of examples."""
        return float(targets.size(0))


def _is_one_column(outputs: Any) -> bool:
    prediction = prediction_of(outputs)
    return prediction.ndim == 2 and prediction.shape[1] == 1


def build_own_optimizer(given: Any, module: nn.Module, settings: OptimConfig) -> Optimizer:
    """Return the user's optimiser over the trainable parameters of `module`, with what the configuration sets of it.

    `given` is an optimiser of these very parameters, a class, or a function of a list of parameters. Raises ConfigError where
    it does not fit, or keeps what a checkpoint cannot hold.
    """
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    name = _name(given)
    own = {"lr": settings.lr, "momentum": settings.momentum, "weight_decay": settings.weight_decay}
    arguments = {key: value for key, value in own.items() if value} | settings.arguments
    if isinstance(given, Optimizer):
        _refuse(f"the optimiser {name} is built already", arguments)
        optimizer: Any = given
    else:
        if not isinstance(given, type | functools.partial):
            _refuse(f"the function {name} decides on it", arguments)
        try:
            optimizer = given(parameters, **arguments)
        except Exception as error:
            raise blame(ConfigError(f"the optimiser {name} cannot be built: {said(error)}"), error) from error
    if not isinstance(optimizer, Optimizer):
        raise ConfigError(f"{name} gives {kind_of(optimizer)}, and a torch.optim.Optimizer is wanted")
    if isinstance(optimizer, torch.optim.LBFGS):
        raise ConfigError("LBFGS evaluates the model several times a step, which goodfit does not; choose another optimiser")
    owned = {id(parameter) for parameter in module.parameters()}
    held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if any(id(parameter) not in owned for parameter in held):
        raise ConfigError(f"the optimiser {name} holds parameters that are not the model's; build it from model.parameters()")
    _check_state(optimizer, name)
    return optimizer


def _refuse(reason: str, arguments: dict[str, Any]) -> None:
    for key, value in arguments.items():
        raise ConfigError(f"{reason}, so optim.{key} = {value!r} has no effect; set it there")


def _check_state(optimizer: Optimizer, name: str) -> None:
    """Raise ConfigError if, after a step, the optimiser has something in its state that is neither tensor nor JSON."""
    trial = copy.deepcopy(optimizer)
    for group in trial.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    try:
        with torch.random.fork_rng(devices=[]):
            trial.step()
    except Exception as error:
        raise blame(ConfigError(f"the optimiser {name} cannot take a step by itself: {said(error)}"), error) from error
    groups = [{key: value for key, value in group.items() if key != "params"} for group in trial.param_groups]
    kept = [value for state in trial.state.values() for value in state.values()]
    for value in [*kept, *(value for group in groups for value in group.values())]:
        if not isinstance(value, Tensor) and not _is_json(value):
            raise ConfigError(
                f"the optimiser {name} keeps {kind_of(value)} in its state, which no checkpoint can hold; "
                "keep tensors and numbers"
            )


def _is_json(value: Any) -> bool:
    try:
        return bool(json.loads(json.dumps(value)) == _as_lists(value))
    except (TypeError, ValueError):
        return False


def _as_lists(value: Any) -> Any:
    return [_as_lists(item) for item in value] if isinstance(value, list | tuple) else value


class OwnSchedule:
    """A scheduler of torch, stepped as its documentation says: after each step if it counts steps, else after each epoch.

    Raises ConfigError if its state is more than numbers.
    """

    def __init__(self, given: Any, optimizer: Optimizer) -> None:
        self.name = _name(given)
        try:
            self.scheduler: LRScheduler = given if isinstance(given, LRScheduler) else given(optimizer)
        except Exception as error:
            raise blame(ConfigError(f"the schedule {self.name} cannot be built: {said(error)}"), error) from error
        self.waits_for_loss = isinstance(self.scheduler, ReduceLROnPlateau)
        self.counts_steps = isinstance(self.scheduler, OneCycleLR | CyclicLR)
        try:
            json.dumps(self.state())
        except (TypeError, ValueError):
            raise ConfigError(f"the schedule {self.name} keeps more than numbers, which no checkpoint can hold") from None

    def check_length(self, steps: int) -> None:
        """Raise ConfigError if the run is longer than the scheduler can go."""
        longest = getattr(self.scheduler, "total_steps", steps)
        if self.counts_steps and longest < steps:
            raise ConfigError(
                f"the schedule {self.name} ends after {longest} steps, and the run has {steps}: total_steps={steps}"
            )

    def after_step(self, ends_epoch: bool) -> None:
        """Move on after an update, if this is one that counts."""
        if not self.waits_for_loss and (self.counts_steps or ends_epoch):
            self._step()

    def after_evaluation(self, loss: float) -> None:
        """Tell a scheduler that waits for a plateau the loss of an epoch."""
        if self.waits_for_loss:
            self._step(loss)

    def state(self) -> dict[str, Any]:
        """Return the scheduler's state as JSON values; the keys of its dicts may be numbers."""
        return {key: _encoded(value) for key, value in self.scheduler.state_dict().items()}

    def load(self, state: dict[str, Any]) -> None:
        """Take over a saved state."""
        now = self.scheduler.state_dict()
        self.scheduler.load_state_dict({key: _decoded(value, now.get(key)) for key, value in state.items()})

    def _step(self, *loss: float) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the optimiser has not stepped yet, where a copy of it has
            self.scheduler.step(*loss)  # type: ignore[arg-type]


def _encoded(value: Any) -> Any:
    """Return JSON values for numbers, also infinite ones, lists, and dicts whose keys may be numbers."""
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if isinstance(value, dict):
        return {"items": [[key, _encoded(kept)] for key, kept in value.items()]}
    return [_encoded(item) for item in value] if isinstance(value, list | tuple) else value


def _decoded(value: Any, now: Any = None) -> Any:
    if isinstance(value, dict) and "float" in value:
        return float(value["float"])
    if isinstance(value, dict):
        kind = type(now) if isinstance(now, dict) else dict  # a Counter stays one
        return kind({key: _decoded(kept) for key, kept in value["items"]})
    return [_decoded(item) for item in value] if isinstance(value, list) else value


def is_schedule_of_steps(given: Any) -> bool:
    """Whether `given` is a function of the step number, and not a scheduler of torch."""
    base = given.func if isinstance(given, functools.partial) else given
    is_torch = isinstance(base, LRScheduler) or (isinstance(base, type) and issubclass(base, LRScheduler))
    return not is_torch


def checked_factor(given: Callable[[int], Any], total_steps: Sequence[int]) -> Callable[[int], float]:
    """Return a user's function of the step number as a schedule; raise ConfigError where it gives no number."""
    name = _name(given)

    def factor(step: int) -> float:
        return float(given(step))

    for step in total_steps:
        try:
            value = factor(step)
        except Exception as error:
            raise blame(ConfigError(f"the schedule {name} gives no number at step {step}: {said(error)}"), error) from error
        if not 0 <= value < float("inf"):
            raise ConfigError(f"the schedule {name} gives {value} at step {step}; it is a factor on the learning rate")
    return factor
