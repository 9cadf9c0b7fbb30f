"""Stand-ins for the objects that a run was given from Python: a program has a marked place for each."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.lr_scheduler import CyclicLR, LinearLR, OneCycleLR, ReduceLROnPlateau

from goodfit.artefacts.checkpoint import newest_checkpoint
from goodfit.artefacts.document import parse_finite
from goodfit.artefacts.run import Run
from goodfit.errors import ConfigError, FileError
from goodfit.models.own import OwnModel

__all__ = [
    "StandInOptimizer",
    "can_be_built",
    "has_place",
    "is_unknown",
    "stand_in_loss",
    "stand_in_model",
    "stand_in_schedule",
]

# Schedulers of torch that are not stepped after each epoch, by what they alone keep in their state.
STEPPED: dict[str, Callable[..., Any]] = {
    "num_bad_epochs": ReduceLROnPlateau,
    "total_size": partial(CyclicLR, base_lr=0.0, max_lr=1.0, cycle_momentum=False),
    "total_steps": partial(OneCycleLR, max_lr=1.0, total_steps=1 << 40, cycle_momentum=False),
}


def stand_in_loss(outputs: Any, targets: Tensor) -> Tensor:
    """Stand for a loss."""
    raise NotImplementedError


class StandInOptimizer(SGD):
    """Stands for an optimiser, whatever it takes."""

    def __init__(self, parameters: Iterable[nn.Parameter], **_: Any) -> None:
        super().__init__(parameters, lr=1.0)


def stand_in_schedule(run: Run) -> Callable[..., Any]:
    """Return what stands for a schedule: a function of the step, or a scheduler of torch that is stepped when the run's was.

    Raises ConfigError for a run without a checkpoint, whose state tells which of them it is.
    """
    checkpoint, _ = newest_checkpoint(run.checkpoints)
    if checkpoint is None:
        raise ConfigError(
            f"{str(run.path)!r} has no checkpoint yet, which would tell what its schedule is like; resume it first"
        )
    try:
        state = parse_finite((checkpoint.path / "state.json").read_text(encoding="ascii"))["schedule"]
    except (OSError, KeyError, TypeError, RecursionError, ValueError) as error:
        raise FileError(
            f"cannot read the checkpoint {str(checkpoint.path)!r}: {error!s:.300}; was it changed by hand?"
        ) from error
    if not isinstance(state, dict):
        return _factor
    return next((kind for key, kind in STEPPED.items() if key in state), LinearLR)


def _factor(step: int) -> float:  # noqa: ARG001
    return 1.0


def stand_in_model(name: str, tensors: Mapping[str, Tensor]) -> OwnModel:
    """Return what stands for a module, with parameters of the same names and shapes."""

    def build() -> nn.Module:
        root = nn.Module()
        for path, tensor in tensors.items():
            *owners, last = path.split(".")
            module = root
            for owner in owners:
                if owner not in module._modules:
                    module.add_module(owner, nn.Module())
                module = module.get_submodule(owner)
            if tensor.is_floating_point():
                module.register_parameter(last, nn.Parameter(tensor.clone()))
            else:
                module.register_buffer(last, tensor.clone())
        return root

    return OwnModel(name, build)


def can_be_built(model: OwnModel, arguments: Mapping[str, Any]) -> bool:
    """Whether the run's arguments are all that the code needs: not for a module that was built before it was given."""
    if model.module is not None:
        return True
    try:
        inspect.signature(model.make).bind(**arguments)
    except TypeError:
        return False
    return True


def has_place(model: OwnModel | None) -> bool:
    """Whether a module cannot be imported and built by name: it is built already, with arguments given, or not known."""
    return model is not None and (model.module is not None or isinstance(model.make, partial) or is_unknown(model))


def is_unknown(model: OwnModel | None) -> bool:
    """Whether a stand-in stands for the module."""
    return model is not None and getattr(model.make, "__module__", "") == __name__
