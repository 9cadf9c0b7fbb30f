"""What ends a step: gradients become changes of the weights.

An optimiser of torch gathers, groups and checks its parameters anew in every step, which takes a tiny model longer than the
arithmetic does. Where goodfit has made the optimiser, and so knows what it holds, its kernel is called at once.
"""

from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

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
        self.parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    @torch.no_grad()
    def __call__(self) -> None:
        """Change the weights of each group in one call, and in another those that have their first gradient."""
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
            maximize=False,
            is_first_step=is_first_step,
        )

    def forget(self) -> None:
        """Leave no gradient behind."""
        for parameter in self.parameters:
            parameter.grad = None


def make_update(optimizer: Optimizer) -> Update:
    """Return the update of an optimiser that goodfit has made, and that nothing else is hooked on."""
    if type(optimizer) is SGD and all(_is_fused(group) for group in optimizer.param_groups):
        return FusedSGD(optimizer)
    return OptimizerUpdate(optimizer)


def _is_fused(group: dict[str, Any]) -> bool:
    """Whether a group has the fused form, and tensors that one call can take."""
    parameters: list[nn.Parameter] = group["params"]
    first = parameters[0]
    alike = all((each.device, each.dtype) == (first.device, first.dtype) for each in parameters)
    return bool(group["fused"]) and not group["maximize"] and alike
