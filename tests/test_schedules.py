"""Learning-rate schedules: their shapes, and what they refuse."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from goodfit.errors import ConfigError
from goodfit.training.schedules import SCHEDULES, build_schedule, schedule_arguments

STEPS = 20


def factors(name: str, total: int = STEPS, warmup: float = 0.0, **arguments: float) -> list[float]:
    schedule = build_schedule(name, total, warmup=warmup, arguments=arguments)
    return [schedule(step) for step in range(total)]


def torch_factors(make: type, **arguments: float) -> list[float]:
    """The learning rates of torch's own scheduler over an optimiser whose rate is 1."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = make(optimizer, **arguments)
    rates = []
    for _ in range(STEPS):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_constant_stays() -> None:
    assert factors("constant") == [1.0] * STEPS


def test_linear_is_torch_s() -> None:
    expected = torch_factors(lr_scheduler.LinearLR, start_factor=1.0, end_factor=0.2, total_iters=STEPS)
    assert factors("linear", final=0.2) == pytest.approx(expected)


def test_cosine_is_torch_s() -> None:
    expected = torch_factors(lr_scheduler.CosineAnnealingLR, T_max=STEPS, eta_min=0.1)
    assert factors("cosine", final=0.1) == pytest.approx(expected)


def test_step_is_torch_s() -> None:
    expected = torch_factors(lr_scheduler.StepLR, step_size=STEPS // 4, gamma=0.5)
    assert factors("step", drops=3, gamma=0.5) == pytest.approx(expected)


def test_one_cycle_rises_to_its_peak_and_falls_to_its_end() -> None:
    shape = factors("one-cycle", total=100, peak=0.3, start=0.1, final=0.05)
    assert shape[0] == pytest.approx(0.1)
    assert shape[15] == pytest.approx((0.1 + 1) / 2)  # half-way up a cosine
    assert shape.index(max(shape)) == 30
    assert shape[30] == 1.0
    assert shape[65] == pytest.approx((1 + 0.05) / 2)
    assert shape[-1] == pytest.approx(0.05, abs=0.001)
    assert shape[:31] == sorted(shape[:31])
    assert shape[30:] == sorted(shape[30:], reverse=True)


def test_warm_up_rises_in_a_straight_line_and_the_schedule_takes_the_rest() -> None:
    shape = factors("cosine", total=10, warmup=0.4)
    assert shape[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert shape[4:] == pytest.approx(factors("cosine", total=6))


@given(st.sampled_from(sorted(SCHEDULES)), st.integers(1, 50), st.floats(0, 0.99))
@settings(deadline=None)
def test_no_factor_is_above_one_or_below_zero(name: str, total: int, warmup: float) -> None:
    schedule = build_schedule(name, total, warmup=warmup)
    assert all(0 <= schedule(step) <= 1 for step in range(total + 2))  # also where a run is given more steps


def test_arguments_are_listed_with_their_defaults() -> None:
    assert schedule_arguments("constant") == {}
    assert schedule_arguments("one-cycle") == {"peak": 0.3, "start": 0.04, "final": 0.0}


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("cosin", {}, r"unknown schedule 'cosin'; did you mean cosine\?"),
        ("linear", {"finl": 0.1}, r"unknown argument of the linear schedule 'schedule\.finl'; did you mean schedule\.final\?"),
        ("linear", {"final": 1.5}, r"schedule\.final = 1\.5 is out of range; its default is 0\.0"),
        ("linear", {"final": float("nan")}, r"schedule\.final = nan must be a number"),
        ("linear", {"final": "low"}, r"schedule\.final = 'low' must be a number"),
        ("linear", {"final": True}, r"schedule\.final = True must be a number"),
        ("one-cycle", {"peak": 0.0}, r"schedule\.peak = 0\.0 is out of range"),
        ("one-cycle", {"peak": 1.0}, r"schedule\.peak = 1\.0 is out of range"),
        ("step", {"drops": 2.5}, r"schedule\.drops = 2\.5 must be a whole number"),
        ("step", {"drops": -1}, r"schedule\.drops = -1 is out of range"),
    ],
)
def test_what_is_not_possible_is_named(name: str, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_schedule(name, STEPS, arguments=arguments)
