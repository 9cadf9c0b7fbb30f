"""The marked places of a program, where a person puts the objects that the run was given from Python."""

from collections.abc import Mapping
from typing import Any

from goodfit.eject.knowledge import SCHEDULE, Knowledge
from goodfit.eject.layout import docstring, expression
from goodfit.eject.values import literal
from goodfit.training.own import OwnLoss

__all__ = ["PLACE", "marked", "places"]

PLACE = "# >>> put your own"


def marked(head: str, about: str, noun: str, title: str = "") -> list[str]:
    """Return a function that is left to be written."""
    return [
        head,
        *docstring(about),
        f"    {PLACE} {noun} here{f': {title}' if title else ''} <<<",
        f'    raise NotImplementedError("put your own {noun} here")',
    ]


def places(known: Knowledge) -> list[list[str]]:
    """Return the functions for model, loss, optimizer and schedule, as far as they were given as objects."""
    session, found = known.session, []
    config, own = session.plan.config, session.plan.own
    if known.model_has_place:
        about = "Return your own module; its weights are then those that training began with."
        found.append(marked("def build_model() -> nn.Module:", about, "model", session.plan.architecture.name))
    if isinstance(session.trainer.loss, OwnLoss):
        head = "def loss_function(outputs: Tensor, targets: Tensor) -> Tensor:"
        found.append(marked(head, "Return the mean loss of a batch.", "loss", config.train.loss))
    if own.optimizer is not None:
        given = {"lr": config.optim.lr, "momentum": config.optim.momentum, "weight_decay": config.optim.weight_decay}
        arguments = {key: value for key, value in given.items() if value} | config.optim.arguments
        head = "def make_optimizer(model: nn.Module) -> torch.optim.Optimizer:"
        about = "Return the optimizer of the parameters that are trained."
        found.append(marked(head, about, "optimizer", config.optim.name + _with(arguments)))
    if session.state.schedule:
        head = "def make_schedule(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:"
        found.append(marked(head, "Return the scheduler of the learning rate.", "schedule", config.schedule.name))
    elif own.schedule is not None:
        found.append(marked("def schedule(step: int) -> float:", SCHEDULE, "schedule", config.schedule.name))
    return found


def _with(arguments: Mapping[str, Any]) -> str:
    return (
        ""
        if not arguments
        else ", with " + ", ".join(f"{key}={expression(literal(value))}" for key, value in arguments.items())
    )
