"""Muon: momentum whose steps are made orthogonal, for the matrices inside a network; Adam for all else."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from goodfit.models.freezing import find_head

__all__ = ["Muon", "muon_groups"]

# Of the quintic iteration that brings all singular values near 1 in few steps (Jordan et al. 2024).
A, B, C = 3.4445, -4.7750, 2.0315
EPS = 1e-7


class Muon(Optimizer):
    """Matrices step by Nesterov momentum with singular values near 1 (Jordan et al. 2024).

    A weight of more dimensions is the matrix (outputs, all else). A group that is not `orthogonal` has Adam's steps, with
    `adam_lr` and `betas`. `weight_decay` is decoupled; `iterations` are those of Newton and Schulz, computed in `dtype`.
    With `normalize` matrices are brought to one norm after a step (airbench, Jordan 2024), for layers before a normalisation.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.02,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        iterations: int = 5,
        adam_lr: float = 0.003,
        betas: tuple[float, float] = (0.9, 0.95),
        normalize: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "orthogonal": True})
        self.momentum, self.betas, self.iterations = momentum, betas, iterations
        self.normalize, self.dtype = normalize, dtype
        for group in self.param_groups:
            group["lr"] = lr if group["orthogonal"] else adam_lr

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Change every parameter that has a gradient."""
        assert closure is None
        for group in self.param_groups:
            take_step = self._orthogonal_step if group["orthogonal"] else self._adam_step
            for parameter in group["params"]:
                if parameter.grad is not None:
                    if group["weight_decay"]:
                        parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    take_step(parameter, parameter.grad, group)

    def _orthogonal_step(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        buffer = state["momentum_buffer"]
        buffer.lerp_(gradient, 1 - self.momentum)
        direction = torch.lerp(gradient, buffer, self.momentum).reshape(len(weight), -1)
        rows, columns = direction.shape
        change = orthogonal(direction.to(self.dtype), self.iterations).reshape(weight.shape)
        weight.add_(change, alpha=-group["lr"] * max(1.0, rows / columns) ** 0.5)
        if self.normalize:
            weight.mul_(len(weight) ** 0.5 / (weight.norm() + EPS))

    def _adam_step(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state, (first, second) = self.state[weight], self.betas
        if not state:
            state |= {"step": 0, "exp_avg": torch.zeros_like(weight), "exp_avg_sq": torch.zeros_like(weight)}
        state["step"] += 1
        state["exp_avg"].lerp_(gradient, 1 - first)
        state["exp_avg_sq"].lerp_(gradient.square(), 1 - second)
        deviation = (state["exp_avg_sq"] / (1 - second ** state["step"])).sqrt_().add_(1e-8)
        rate = group["lr"] / (1 - first ** state["step"])
        weight.addcdiv_(state["exp_avg"], deviation, value=-rate)


def orthogonal(matrix: Tensor, iterations: int) -> Tensor:
    """Return the matrix with its singular values brought near 1, between about 0.7 and 1.2, in its own dtype."""
    is_tall = matrix.shape[0] > matrix.shape[1]
    found = matrix.T if is_tall else matrix
    found = found / (found.norm() + EPS)
    for _ in range(iterations):
        square = found @ found.T
        found = torch.addmm(found, torch.addmm(square, square, square, beta=B, alpha=C), found, beta=A)
    return found.T if is_tall else found


def muon_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return what is trained in groups: the matrices but for the head's, the head's, and all else, which does not decay."""
    head = {id(parameter) for parameter in find_head(model)[1].parameters()}
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    inside = [each for each in parameters if each.ndim > 1 and id(each) not in head]
    outside = [each for each in parameters if each.ndim > 1 and id(each) in head]
    small = [each for each in parameters if each.ndim <= 1]
    return [
        {"params": inside, "orthogonal": True, "weight_decay": weight_decay},
        {"params": outside, "orthogonal": False, "weight_decay": weight_decay},
        {"params": small, "orthogonal": False, "weight_decay": 0.0},
    ]
