"""What ends a step: gradients become changes of the weights.

An optimiser of torch gathers, groups and checks its parameters anew in every step, which takes a tiny model longer than the
arithmetic does. Where that can change nothing its kernel is called at once.
"""

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim import SGD, Optimizer
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

__all__ = ["FusedSGD", "OptimizerUpdate", "Update", "make_update"]


class Update(Protocol):
    """How weights are changed, and gradients forgotten before the next are computed."""

    def __call__(self) -> None:
        """Change the weights by their gradients."""

    def forget(self) -> None:
        """Leave no gradient behind."""


class OptimizerUpdate:
    """The update as the optimiser itself makes it."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer

    def __call__(self) -> None:
        """Take the optimiser's step."""
        self.optimizer.step()

    def forget(self) -> None:
        """Let the optimiser forget."""
        self.optimizer.zero_grad(set_to_none=True)


class FusedSGD:
    """The update of a fused torch.optim.SGD, to the last bit; the optimiser goes on to hold rates and momentum.

    A parameter may have its first gradient later than others; torch's own step then fails, for it has no momentum yet.
    """

    def __init__(self, optimizer: SGD) -> None:
        self.optimizer = optimizer

    @torch.no_grad()
    def __call__(self) -> None:
        """Change the weights of each group in one call, and in another those that have their first gradient."""
        if self._is_watched():
            self.optimizer.step()
            return
        state = self.optimizer.state
        for group in self.optimizer.param_groups:
            parameters: list[Tensor] = [parameter for parameter in group["params"] if parameter.grad is not None]
            if group["momentum"]:
                new = [parameter for parameter in parameters if "momentum_buffer" not in state[parameter]]
                for parameter in new:
                    state[parameter]["momentum_buffer"] = torch.empty_like(parameter)
                if new:
                    parameters = [parameter for parameter in parameters if all(parameter is not other for other in new)]
                    self._change(group, new, is_first_step=True)
            if parameters:
                self._change(group, parameters, is_first_step=False)

    def _change(self, group: dict[str, Any], parameters: list[Tensor], *, is_first_step: bool) -> None:
        state = self.optimizer.state
        torch._fused_sgd_(
            parameters,
            [parameter.grad for parameter in parameters if parameter.grad is not None],
            [state[parameter]["momentum_buffer"] for parameter in parameters] if group["momentum"] else [],
            lr=group["lr"],
            momentum=group["momentum"],
            dampening=group["dampening"],
            nesterov=group["nesterov"],
            weight_decay=group["weight_decay"],
            maximize=group["maximize"],
            is_first_step=is_first_step,
        )

    def forget(self) -> None:
        """Leave no gradient behind."""
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def _is_watched(self) -> bool:
        """Whether somebody, such as a scheduler, would notice that the optimiser's own step is not taken."""
        own = self.optimizer
        return bool(
            "step" in vars(own)
            or own._optimizer_step_pre_hooks
            or own._optimizer_step_post_hooks
            or _global_optimizer_pre_hooks
            or _global_optimizer_post_hooks
        )


def make_update(optimizer: Optimizer) -> Update:
    """Return the leanest update that gives the optimiser's own numbers."""
    if type(optimizer) is SGD and all(_is_fused(group) for group in optimizer.param_groups):
        return FusedSGD(optimizer)
    return OptimizerUpdate(optimizer)


def _is_fused(group: dict[str, Any]) -> bool:
    """Whether a group has the fused form, and tensors that one call can take."""
    kinds = {(parameter.device, parameter.dtype) for parameter in group["params"]}
    return bool(group["fused"]) and len(kinds) <= 1
