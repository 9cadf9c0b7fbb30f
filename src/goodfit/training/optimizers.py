"""The optimisers of torch.optim under their usual names, with weight decay kept off biases and norms."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from goodfit.devices import spare_the_compiler
from goodfit.errors import ConfigError, unknown_name
from goodfit.training.muon import Muon, muon_groups

__all__ = ["OPTIMIZERS", "build_optimizer", "default_learning_rate", "optimizer_arguments"]


@dataclass(frozen=True)
class _Kind:
    """A class of torch.optim, the learning rate that people start it with, and whether it has a fused form."""

    name: str
    learning_rate: float
    fused: bool = False


OPTIMIZERS = {
    "sgd": _Kind("SGD", 0.01, fused=True),
    "adam": _Kind("Adam", 0.001, fused=True),
    "adamw": _Kind("AdamW", 0.001, fused=True),
    "nadam": _Kind("NAdam", 0.002),
    "radam": _Kind("RAdam", 0.001),
    "adamax": _Kind("Adamax", 0.002),
    "adagrad": _Kind("Adagrad", 0.01),
    "adadelta": _Kind("Adadelta", 1.0),
    "rmsprop": _Kind("RMSprop", 0.001),
    "rprop": _Kind("Rprop", 0.01),
    "asgd": _Kind("ASGD", 0.01),
    "muon": _Kind("Muon", 0.02),
}

# Set by goodfit itself, or without effect on a run: ASGD's average of the weights, which begins at t0, is not used.
_RESERVED = {"params", "lr", "dtype", "fused", "foreach", "capturable", "differentiable", "maximize", "t0"}


def _kind(name: str) -> _Kind:
    if name not in OPTIMIZERS:
        raise ConfigError(unknown_name("optimizer", name, OPTIMIZERS))
    return OPTIMIZERS[name]


def _class(name: str) -> Any:
    """Return an optimiser's class; torch's own Muon takes matrices alone, and no convolutions."""
    return Muon if name == "muon" else getattr(torch.optim, _kind(name).name)


def default_learning_rate(name: str) -> float:
    """Return the learning rate that the optimiser is usually started with; raise ConfigError for an unknown one."""
    return _kind(name).learning_rate


def build_optimizer(
    name: str,
    model: nn.Module,
    *,
    lr: float,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    arguments: Mapping[str, Any] | None = None,
    precision: str = "fp32",
) -> torch.optim.Optimizer:
    """Return the optimiser `name` over the trainable parameters of `model`.

    Biases and norms (parameters of one dimension at most) have no weight decay. The form is the fused one where there is
    one; not for `precision` fp16, where a step that the scaler skips would leave the fused one's momentum uninitialised.
    With bf16 Muon's matrix products are in it too. Raises ConfigError for an unknown optimiser, or an argument that it does
    not have or take.
    """
    kind = _kind(name)
    optimizer_class = _class(name)
    spare_the_compiler(Optimizer.add_param_group, Optimizer.state_dict, Optimizer.load_state_dict, Optimizer.zero_grad)
    values, known = dict(arguments or {}), optimizer_arguments(name)
    if momentum or "momentum" in known:
        values["momentum"] = momentum
    if weight_decay:
        values["weight_decay"] = weight_decay
    _check(name, values, known)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [{"params": parameters}]  # one where it can be: each costs a call in every step
    if name == "muon":
        groups = muon_groups(model, weight_decay)
    elif weight_decay:
        large, small = ([p for p in parameters if (p.ndim > 1) is wanted] for wanted in (True, False))
        groups = [{"params": large, "weight_decay": weight_decay}, {"params": small, "weight_decay": 0.0}]
    elif "weight_decay" in known:  # AdamW's own default is not zero
        groups[0]["weight_decay"] = 0.0
    if name == "muon" and precision == "bf16":
        values["dtype"] = torch.bfloat16
    form = {"fused": True} if kind.fused and precision != "fp16" else {}
    try:
        return optimizer_class([group for group in groups if group["params"]], lr=lr, **values, **form)  # type: ignore[no-any-return]
    except (TypeError, ValueError) as error:
        said = ", ".join(f"optim.{key} = {value!r}" for key, value in values.items())
        raise ConfigError(f"{name} does not take {said or f'optim.lr = {lr!r}'}: {error}") from error


def optimizer_arguments(name: str) -> dict[str, Any]:
    """Return what an optimiser takes beside the learning rate, with the defaults; raise ConfigError for an unknown one."""
    parameters = inspect.signature(_class(name)).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters if parameter.name not in _RESERVED}


def _check(name: str, values: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if key not in known:
            raise ConfigError(unknown_name(f"argument of {name}", f"optim.{key}", [f"optim.{other}" for other in known]))
        if not _is_like(value, known[key]):
            raise ConfigError(f"optim.{key} = {value!r} is not of the kind of its default, {known[key]!r}")


def _is_like(value: Any, default: Any) -> bool:
    if isinstance(default, tuple):
        alike = isinstance(value, list | tuple) and len(value) == len(default)
        return alike and all(map(_is_like, value, default))
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(default, bool) and isinstance(value, bool)
    return isinstance(value, int | float) or not isinstance(default, int | float)
