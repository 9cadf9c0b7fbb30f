"""Learning-rate schedules: pure functions from the share of the run that is done to a factor on the learning rate."""

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

from goodfit.errors import ConfigError, unknown_name

__all__ = ["SCHEDULES", "Schedule", "build_schedule", "schedule_arguments"]

Schedule = Callable[[int], float]  # step -> factor on the learning rate


def constant(_done: float) -> float:
    """The learning rate as it is."""
    return 1.0


def linear(done: float, *, final: float = 0.0) -> float:
    """Straight from 1 to `final`."""
    return 1.0 + (final - 1.0) * done


def cosine(done: float, *, final: float = 0.0) -> float:
    """Half a cosine wave from 1 to `final` (Loshchilov and Hutter 2017)."""
    return final + (1.0 - final) * (1.0 + math.cos(math.pi * done)) / 2


def step(done: float, *, drops: int = 3, gamma: float = 0.1) -> float:
    """Times `gamma` at each of `drops` moments that part the run into equal stretches."""
    return gamma ** min(drops, int(done * (drops + 1)))


def one_cycle(done: float, *, peak: float = 0.3, start: float = 0.04, final: float = 0.0) -> float:
    """Up from `start` to 1 at the share `peak` of the run, then down to `final`, both by cosine (Smith and Topin 2018)."""
    if done < peak:
        return cosine(1.0 - done / peak, final=start)
    return cosine((done - peak) / (1.0 - peak), final=final)


SCHEDULES: dict[str, Callable[..., float]] = {
    "constant": constant,
    "linear": linear,
    "cosine": cosine,
    "step": step,
    "one-cycle": one_cycle,
}


def schedule_arguments(name: str) -> dict[str, Any]:
    """Return a schedule's own arguments with their defaults; raise ConfigError for an unknown schedule."""
    if name not in SCHEDULES:
        raise ConfigError(unknown_name("schedule", name, SCHEDULES))
    parameters = inspect.signature(SCHEDULES[name]).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}


def build_schedule(name: str, total_steps: int, *, warmup: float = 0.0, arguments: Mapping[str, Any] | None = None) -> Schedule:
    """Return the factor on the learning rate at each step of a run of `total_steps`.

    `warmup` is the share of the run in which the factor first rises in a straight line; the schedule takes the rest.
    Raises ConfigError for an unknown schedule or argument, or a value out of range.
    """
    values = dict(arguments or {})
    _check(name, values)
    shape = SCHEDULES[name]
    rising = round(warmup * total_steps)

    def factor(step: int) -> float:
        if step < rising:
            return (step + 1) / (rising + 1)
        return shape(min(1.0, (step - rising) / max(1, total_steps - rising)), **values)

    return factor


def _check(name: str, values: Mapping[str, Any]) -> None:
    known = schedule_arguments(name)
    for key, value in values.items():
        if key not in known:
            raise ConfigError(
                unknown_name(f"argument of the {name} schedule", f"schedule.{key}", [f"schedule.{k}" for k in known])
            )
        whole = isinstance(known[key], int)
        if isinstance(value, bool) or not isinstance(value, int if whole else int | float) or not math.isfinite(value):
            raise ConfigError(f"schedule.{key} = {value!r} must be a {'whole ' if whole else ''}number")
        inside = 0 < value < 1 if key == "peak" else 0 <= value <= (100 if whole else 1)
        if not inside:
            raise ConfigError(f"schedule.{key} = {value!r} is out of range; its default is {known[key]}")
