"""`auto` measures, it does not guess: a few steps with each number of threads and precision tell which is the fastest here.

1. A run that would take less than five seconds has no trial, nor has one with code of the user's own that cannot be copied.
2. A session of its own, from the same weights, takes every step of it: the run is as if there had been none.
3. The ways take steps in turn, as many ways and steps as 2% of the run allow; a way has to be clearly faster than the usual one
   to be chosen.
4. The choice is part of the run's configuration, so that a resumed run and `--config` repeat it.
5. It is kept for this machine, model and batch, so that the same command gives the same weights twice.
"""

import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from statistics import median
from typing import Any, Literal

import torch

from goodfit.artefacts.environment import CLASS_KEYS, describe_environment
from goodfit.config import Layer, merge
from goodfit.data.cache import cache_directory
from goodfit.devices import choose_precision, computing
from goodfit.distributed import Ranks
from goodfit.errors import RunError
from goodfit.files import write_atomically
from goodfit.memory import keeping_memory
from goodfit.planning import Plan
from goodfit.session import Session, make_session

__all__ = ["try_out"]

SHORT = 5.0  # seconds of a run that is not worth a trial
SHARE = 0.02  # of the run that a trial may take
ROUNDS = 3  # steps of each way at least, of which the first warms up
CLEARLY = 1.03  # times as fast


@dataclass(frozen=True)
class Way:
    """A way of computing that repeats bit for bit."""

    threads: int
    precision: Literal["fp32", "bf16", "fp16"]

    def __str__(self) -> str:
        return f"{self.threads} thread{'s' * (self.threads > 1)}, {self.precision}"


def try_out(plan: Plan, say: Callable[[str], None]) -> Plan:
    """Return the plan with the fastest of the ways that nobody has chosen among, and say which it is."""
    ways = _ways(plan)
    if len(ways) == 1:
        return plan
    file = _file(plan, ways)
    way = _kept(file, ways)
    if way is None:
        with keeping_memory():
            seconds = _measure(plan, ways)
        if not seconds:
            return plan
        fastest = min(ways, key=lambda each: seconds.get(each, float("inf")))
        way = fastest if seconds[ways[0]] > CLEARLY * seconds[fastest] else ways[0]
        listed = ", ".join(f"{each} {1000 * taken:.3g} ms" for each, taken in seconds.items())
        say(f"tried for a step: {listed}; taking {way}")
        with suppress(RunError, OSError):  # a cache that cannot be written costs the next run a trial
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(file, json.dumps(vars(way)))
    return _with(plan, way)


def _ways(plan: Plan) -> list[Way]:
    """Return the ways that are open, the usual one first."""
    settings, asked = plan.config.train, plan.sources
    assert settings.precision != "auto"
    usual = Way(settings.threads, settings.precision)
    own = plan.own
    if not isinstance(plan.dataset.train.inputs, torch.Tensor) or own.loss is not None or (own.is_given and not own.copies):
        return [usual]  # code of the user's own that cannot be copied might notice
    threads = {settings.threads, 1} if asked["train.threads"] == "auto" and settings.device == "cpu" else {settings.threads}
    precisions = {settings.precision}
    if asked["train.precision"] == "auto" and not plan.architecture.is_code and plan.architecture.name != "sequential":
        precisions |= {"fp32", choose_precision("auto", torch.device(settings.device))}
    ways = [Way(count, precision) for precision in precisions for count in threads]
    # The most promising first: on a machine that is busy, threads wait for each other.
    return sorted(ways, key=lambda way: (way != usual, way.precision != usual.precision, way.threads != 1))


def _with(plan: Plan, way: Way) -> Plan:
    values = {"train.threads": way.threads, "train.precision": way.precision}
    config, _ = merge([Layer("config", plan.config.flat()), Layer("auto", values)])
    return replace(plan, config=config)


def _measure(plan: Plan, ways: list[Way]) -> dict[Way, float]:
    """Return the median seconds of a step in each way that there was time for; empty for a run that is too short."""
    sessions = {ways[0].precision: _session(_with(plan, ways[0]))}
    _step(sessions[ways[0].precision], ways[0])
    taken: dict[Way, list[float]] = {ways[0]: [_step(sessions[ways[0].precision], ways[0])]}
    whole = plan.total_steps * taken[ways[0]][0]
    ways = ways[: int(SHARE * plan.total_steps / ROUNDS)]
    if whole < SHORT or len(ways) < 2:
        return {}
    rounds = int(SHARE * plan.total_steps / len(ways)) - 1
    for way in ways:
        if way.precision not in sessions:
            sessions[way.precision] = _session(_with(plan, way))
        _step(sessions[way.precision], way)
        taken.setdefault(way, [])
    started = time.perf_counter()
    while time.perf_counter() - started < SHARE * whole and len(taken[ways[-1]]) < rounds:
        for way in ways:
            taken[way].append(_step(sessions[way.precision], way))
    return {way: median(seconds) for way, seconds in taken.items() if seconds}


def _session(plan: Plan) -> Session:
    return make_session(plan, Ranks(), lambda: False)


def _step(session: Session, way: Way) -> float:
    """Take a step, beginning anew where the run would end, and return its seconds."""
    session.state.step %= session.total_steps
    with computing(session.device, way.threads, session.plan.config.train.deterministic):
        started = time.perf_counter()
        step = next(session.trainer.steps())
        float(step.loss)  # waits for the device
        return time.perf_counter() - started


def _file(plan: Plan, ways: list[Way]) -> Path:
    """Return where the choice for such a run on this machine is kept."""
    settings = plan.config.train
    environment = describe_environment(torch.device(settings.device), settings.threads, 1)
    facts: Any = [
        {key: environment[key] for key in CLASS_KEYS},
        [vars(way) for way in ways],
        [plan.architecture.name, plan.architecture.arguments, plan.architecture.input_shape, plan.architecture.num_outputs],
        [plan.batch_size, settings.accumulate, plan.config.optim.name, plan.config.augment.model_dump(), settings.ema],
    ]
    return cache_directory().parent / "ways" / f"{sha256(json.dumps(facts, default=str).encode()).hexdigest()[:32]}.json"


def _kept(file: Path, ways: list[Way]) -> Way | None:
    """Return the way that was chosen before, None where there was no trial or the file says something else."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return next((way for way in ways if vars(way) == values), None)
