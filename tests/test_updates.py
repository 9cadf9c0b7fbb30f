"""The update without the optimiser's checks gives torch's own numbers, to the last bit, and its own state."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from goodfit.training.optimizers import build_optimizer
from goodfit.training.updates import FusedSGD, OptimizerUpdate, make_update

KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "momentum": {"momentum": 0.9},
    "nesterov with decay": {"momentum": 0.9, "weight_decay": 0.1, "arguments": {"nesterov": True}},
    "dampening": {"momentum": 0.5, "arguments": {"dampening": 0.3}},
    "decay": {"weight_decay": 0.1},
    "maximised": {"momentum": 0.5},
}


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))


def give_gradients(module: nn.Module, step: int) -> None:
    draws = torch.Generator().manual_seed(step)
    for parameter in module.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=draws)


def trained(kind: dict[str, Any], own: bool, skipped: int = -1, precision: str = "fp32") -> tuple[list[Tensor], Optimizer]:
    module = model()
    optimizer = build_optimizer("sgd", module, lr=0.1, precision=precision, **kind)
    optimizer.param_groups[0]["maximize"] = kind is KINDS["maximised"]
    update = make_update(optimizer) if own else OptimizerUpdate(optimizer)
    assert isinstance(update, FusedSGD) is own
    for step in range(5):
        update.forget()
        assert all(parameter.grad is None for parameter in module.parameters())
        give_gradients(module, step)
        if step == skipped:
            next(module.parameters()).grad = None
        optimizer.param_groups[0]["lr"] = 0.1 / (step + 1)  # as a schedule sets it
        update()
    return [parameter.detach() for parameter in module.parameters()], optimizer


@pytest.mark.parametrize("skipped", [-1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_weights_and_momentum_are_torchs(kind: str, skipped: int) -> None:
    (mine, my_optimizer), (theirs, their_optimizer) = (trained(KINDS[kind], own, skipped) for own in (True, False))
    assert all(map(torch.equal, mine, theirs))
    my_state, their_state = my_optimizer.state_dict()["state"], their_optimizer.state_dict()["state"]
    assert my_state.keys() == their_state.keys()
    for index, values in their_state.items():
        for key, value in values.items():
            assert value is None or torch.equal(value, my_state[index][key])


@pytest.mark.parametrize("kind", KINDS)
def test_a_parameter_may_have_its_first_gradient_later(kind: str) -> None:
    mine, _ = trained(KINDS[kind], own=True, skipped=0)
    theirs, _ = trained(KINDS[kind], own=False, skipped=0, precision="fp16")
    torch.testing.assert_close(mine, theirs)


def test_a_state_that_is_loaded_is_gone_on_from() -> None:
    module = model()
    optimizer = build_optimizer("sgd", module, lr=0.1, momentum=0.9)
    update = make_update(optimizer)
    for step in range(2):
        give_gradients(module, step)
        update()
    saved = {key: value.clone() for key, value in module.state_dict().items()}, deepcopy(optimizer.state_dict())
    other = model()
    again = build_optimizer("sgd", other, lr=0.5, momentum=0.9)
    going_on = make_update(again)
    other.load_state_dict(saved[0])
    again.load_state_dict(saved[1])
    for each, take in ((module, update), (other, going_on)):
        give_gradients(each, 2)
        take()
    assert all(map(torch.equal, module.parameters(), other.parameters()))


@pytest.mark.parametrize(
    "optimizer",
    [
        SGD(model().parameters(), lr=0.1),
        SGD([*model().parameters(), nn.Parameter(torch.zeros(2, dtype=torch.float64))], lr=0.1, fused=True),
        torch.optim.Adam(model().parameters(), fused=True),
        type("Own", (SGD,), {})(model().parameters(), lr=0.1, fused=True),
    ],
    ids=["not fused", "two dtypes", "Adam", "a class of its own"],
)
def test_any_other_optimizer_takes_its_own_step(optimizer: Optimizer) -> None:
    assert isinstance(make_update(optimizer), OptimizerUpdate)


def test_a_step_that_somebody_watches_is_the_optimizers_own() -> None:
    module = model()
    optimizer = SGD(module.parameters(), lr=0.1, fused=True)
    update, seen = make_update(optimizer), []
    assert isinstance(update, FusedSGD)
    give_gradients(module, 0)
    handle = optimizer.register_step_post_hook(lambda *_: seen.append("hook"))
    update()
    handle.remove()
    update()
    assert seen == ["hook"]
    handle = register_optimizer_step_pre_hook(lambda *_: seen.append("global"))
    update()
    handle.remove()
    assert seen == ["hook", "global"]
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    update()
    scheduler.step()  # warns where it has seen no step


def test_a_group_may_be_empty() -> None:
    parameter = nn.Parameter(torch.ones(2))
    update = make_update(SGD([{"params": [parameter]}, {"params": []}], lr=0.1, momentum=0.9, fused=True))
    assert isinstance(update, FusedSGD)
    parameter.grad = torch.ones(2)
    update()
    torch.testing.assert_close(parameter.detach(), torch.full((2,), 0.9))
