"""RunState: saved and taken over whole, or refused."""

import json
from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import nn

from goodfit.errors import FileError
from goodfit.training.ema import MovingAverage
from goodfit.training.optimizers import OPTIMIZERS, build_optimizer
from goodfit.training.state import Best, RunState, SkippedStep


def make(optimizer: str = "adam", width: int = 4, ema: bool = True, seed: int = 0) -> RunState:
    torch.manual_seed(seed)
    layers = OrderedDict(
        conv=nn.Conv2d(3, width, 3), norm=nn.BatchNorm2d(width), pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten()
    )
    model = nn.Sequential(layers).to(memory_format=torch.channels_last)
    return RunState(
        model=model,
        optimizer=build_optimizer(optimizer, model, lr=0.1),
        ema=MovingAverage(model, 0.5) if ema else None,
        scaler=torch.amp.GradScaler("cpu", init_scale=8.0),
        loss_sum=torch.zeros((), dtype=torch.float64),
        weight_sum=torch.zeros((), dtype=torch.float64),
    )


def take_step(state: RunState) -> None:
    draws = torch.Generator().manual_seed(state.step)
    state.optimizer.zero_grad()
    loss = state.model(torch.randn(5, 3, 8, 8, generator=draws)).square().sum()
    state.scaler.scale(loss).backward()
    state.wait_for_copy()
    state.scaler.step(state.optimizer)
    state.scaler.update()
    if state.ema:
        state.ema.update(state.step)
    state.loss_sum += loss.detach()
    state.weight_sum += 5
    state.step += 1


def saved(state: RunState) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """What a checkpoint holds: copies of the tensors in the usual memory layout, and JSON."""
    tensors = {name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in state.tensors().items()}
    return tensors, json.loads(json.dumps(state.values()))


def assert_same(one: RunState, other: RunState) -> None:
    assert one.tensors().keys() == other.tensors().keys()
    for name, tensor in one.tensors().items():
        assert torch.equal(tensor, other.tensors()[name]), name
    assert json.dumps(one.values()) == json.dumps(other.values())


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_state_is_taken_over_whole_and_goes_on_alike(optimizer: str) -> None:
    state = make(optimizer)
    for _ in range(2):
        take_step(state)
    state.best, state.epochs_since_best, state.log_length = Best(1, 0.25), 3, 99
    state.skipped_steps = [SkippedStep(0, ("a.png", "b.png")), SkippedStep(7, ())]
    other = make(optimizer, seed=1)
    other.load(*saved(state))
    assert_same(state, other)
    for each in (state, other):
        take_step(each)
    assert_same(state, other)


def test_a_state_before_its_first_step_is_taken_over() -> None:
    state, other = make("sgd"), make("sgd", seed=1)
    take_step(other)
    other.load(*saved(state))
    assert_same(state, other)


def test_the_evaluated_model_is_the_average_where_there_is_one() -> None:
    state, plain = make(), make(ema=False)
    assert state.ema is not None
    assert state.evaluated_model is state.ema.module
    assert plain.evaluated_model is plain.model


def test_tensors_have_names_of_their_own() -> None:
    state = make()
    take_step(state)
    names = state.tensors()
    assert {"model.conv.weight", "ema.conv.weight", "model.norm.running_mean", "loss_sum", "weight_sum"} <= names.keys()
    assert {name.split(".")[-1] for name in names if name.startswith("optimizer.0.")} == {"step", "exp_avg", "exp_avg_sq"}
    assert names["model.conv.weight"].data_ptr() == state.model.conv.weight.data_ptr()  # not copied


def test_the_state_of_another_configuration_is_refused_in_one_line() -> None:
    state = make()
    take_step(state)
    for other in (make(width=5), make("sgd", width=5), make(ema=False, width=5)):
        with pytest.raises(
            FileError, match=r"does not fit this run's configuration: .*was config\.toml changed, or what was given in Python\?"
        ) as raised:
            other.load(*saved(state))
        assert "\n" not in str(raised.value)


def test_a_state_with_a_part_missing_is_refused() -> None:
    state = make()
    take_step(state)
    tensors, values = saved(state)
    for name in ("model.conv.bias", "ema.norm.weight", "loss_sum"):
        with pytest.raises(FileError, match="does not fit"):
            make().load({key: tensor for key, tensor in tensors.items() if key != name}, values)
    for name in values:
        with pytest.raises(FileError, match="does not fit"):
            make().load(tensors, {key: value for key, value in values.items() if key != name})


def test_a_state_of_another_optimizer_or_without_the_average_is_refused() -> None:
    for other, reason in (
        (make(optimizer="sgd"), "another optimiser than Adam"),
        (make(ema=False), "no moving average"),
    ):
        take_step(other)
        with pytest.raises(FileError, match=reason):
            make().load(*saved(other))
    with pytest.raises(FileError, match="a moving average"):
        make(ema=False).load(*saved(make()))


def test_values_of_the_wrong_kind_are_refused() -> None:
    tensors, values = saved(make())
    for key, wrong in (("optimizer", []), ("param_groups", 3), ("step", "many"), ("best", 1)):
        with pytest.raises(FileError, match="does not fit this run's configuration"):
            make().load(tensors, values | {key: wrong})


def test_absurd_numbers_are_refused() -> None:
    tensors, values = saved(make())
    for key, wrong in (("step", float("inf")), ("log_length", 1e999), ("evaluated_step", float("nan")), ("step", "9" * 5_000)):
        with pytest.raises(FileError, match=r"does not fit this run's configuration: .*; was config") as raised:
            make().load(tensors, values | {key: wrong})
        assert len(str(raised.value)) < 500


def test_settings_of_another_form_are_refused() -> None:
    tensors, values = saved(make())
    group, scaler = values["param_groups"][0], values["scaler"]
    for wrong in (
        {"param_groups": [group | {"betas": [[]] * 1000}]},
        {"param_groups": [group | {"lr": "0.1"}]},
        {"param_groups": [group | {"eps": {}}]},
        {"param_groups": [group | {"params": [[]]}]},
        {"scaler": scaler | {"scale": "large"}},
        {"scaler": {}},
        {"best": {"step": 1, "loss": []}},
        {"skipped_steps": [{"step": [], "examples": []}]},
    ):
        with pytest.raises(FileError, match="does not fit this run's configuration"):
            make().load(tensors, values | wrong)


def test_the_sum_of_the_losses_does_not_depend_on_when_it_is_made() -> None:
    draws = torch.Generator().manual_seed(0)
    steps = [(torch.rand((), generator=draws), weight) for weight in (64.0, torch.tensor(3.5), 64.0, 17.0, 64.0, 1e-3)]
    sums = set()
    for cuts in ((), (1,), (2, 3, 5), (1, 2, 3, 4, 5)):
        state = make()
        for place, (loss, weight) in enumerate(steps):
            if place in cuts:
                state.load(*saved(state))
            state.add_loss(loss, weight)
        state.sum_losses()
        sums.add((float(state.loss_sum), float(state.weight_sum)))
    ((total, count),) = sums
    assert total == pytest.approx(sum(float(loss) * float(weight) for loss, weight in steps))
    assert count == pytest.approx(212.501)
