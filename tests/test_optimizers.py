"""The optimisers by name: they step, they decay what should decay, and they refuse what they do not have."""

from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from goodfit.errors import ConfigError
from goodfit.training.optimizers import OPTIMIZERS, build_optimizer, default_learning_rate


def small_model() -> nn.Sequential:
    torch.manual_seed(0)
    layers = OrderedDict(fc1=nn.Linear(4, 8), norm=nn.BatchNorm1d(8), activation=nn.Tanh(), fc2=nn.Linear(8, 1))
    return nn.Sequential(layers)


def loss_of(model: nn.Module) -> Tensor:
    draws = torch.Generator().manual_seed(1)
    inputs = torch.randn(32, 4, generator=draws)
    return (model(inputs)[:, 0] - inputs.sum(1)).square().mean()


def take_step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    loss_of(model).backward()
    optimizer.step()


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimiser_lowers_the_loss_at_its_usual_rate(name: str, precision: str) -> None:
    model = small_model()
    optimizer = build_optimizer(name, model, lr=default_learning_rate(name), precision=precision)
    before = loss_of(model).item()
    for _ in range(10):
        take_step(model, optimizer)
    assert loss_of(model).item() < before


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_the_fused_form_computes_the_same(name: str) -> None:
    trained = []
    for precision in ("fp32", "fp16"):
        model = small_model()
        optimizer = build_optimizer(name, model, lr=0.01, weight_decay=0.1, precision=precision)
        assert bool(optimizer.param_groups[0]["fused"]) is (precision == "fp32")
        for _ in range(3):
            for parameter in model.parameters():
                parameter.grad = parameter.detach().sin()
            optimizer.step()
        trained.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
    torch.testing.assert_close(*trained)


def decays(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, float]:
    """The weight decay of each parameter by name."""
    by_id = {id(p): group.get("weight_decay", 0.0) for group in optimizer.param_groups for p in group["params"]}
    return {name: by_id[id(parameter)] for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name != "rprop"])
@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_decay_is_that_of_the_key_and_never_on_biases_and_norms(name: str, decay: float) -> None:
    model = small_model()
    found = decays(build_optimizer(name, model, lr=0.1, weight_decay=decay), model)
    assert found == {key: decay if key in ("fc1.weight", "fc2.weight") else 0.0 for key in found}


def test_decay_pulls_weights_towards_zero_and_leaves_biases() -> None:
    model = small_model()
    optimizer = build_optimizer("sgd", model, lr=0.1, weight_decay=0.5)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        factor = 1 - 0.1 * 0.5 if name in ("fc1.weight", "fc2.weight") else 1
        torch.testing.assert_close(parameter.detach(), before[name] * factor)


def test_frozen_parameters_are_left_out() -> None:
    model = small_model()
    model.fc1.requires_grad_(False)
    optimizer = build_optimizer("sgd", model, lr=0.1)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 4


def test_own_arguments_arrive() -> None:
    model = small_model()
    optimizer = build_optimizer("sgd", model, lr=0.1, momentum=0.9, arguments={"nesterov": True})
    assert all(group["nesterov"] and group["momentum"] == 0.9 for group in optimizer.param_groups)
    optimizer = build_optimizer("adam", model, lr=0.1, arguments={"betas": [0.8, 0.9], "amsgrad": True})
    assert all(list(group["betas"]) == [0.8, 0.9] and group["amsgrad"] for group in optimizer.param_groups)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("sdg", {}, r"unknown optimizer 'sdg'; did you mean sgd"),
        ("sgd", {"arguments": {"nestrov": True}}, r"unknown argument of sgd 'optim\.nestrov'; did you mean optim\.nesterov"),
        ("adam", {"momentum": 0.9}, r"unknown argument of adam 'optim\.momentum'"),
        ("rprop", {"weight_decay": 0.1}, r"unknown argument of rprop 'optim\.weight_decay'"),
        ("sgd", {"arguments": {"fused": True}}, r"unknown argument of sgd 'optim\.fused'"),
        ("sgd", {"arguments": {"params": []}}, r"unknown argument of sgd 'optim\.params'"),
        ("sgd", {"arguments": {"nesterov": True}}, r"sgd does not take .*optim\.nesterov = True.*momentum"),
        ("sgd", {"arguments": {"nesterov": "no"}}, r"optim\.nesterov = 'no' is not of the kind of its default, False"),
        ("sgd", {"arguments": {"dampening": True}}, r"optim\.dampening = True is not of the kind of its default, 0"),
        ("adam", {"arguments": {"betas": [2.0, 0.9]}}, r"adam does not take optim\.betas = \[2\.0, 0\.9\].*[Bb]eta"),
        ("adam", {"arguments": {"betas": 0.9}}, r"optim\.betas = 0\.9 is not of the kind of its default, \(0\.9, 0\.999\)"),
        ("adam", {"arguments": {"betas": [0.9]}}, r"optim\.betas = \[0\.9\] is not of the kind"),
        ("asgd", {"arguments": {"lambd": "small"}}, r"optim\.lambd = 'small' is not of the kind"),
    ],
)
def test_what_is_not_possible_is_named_in_one_line(name: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        build_optimizer(name, small_model(), lr=0.1, **values)
    assert "\n" not in str(raised.value)
