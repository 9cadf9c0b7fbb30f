"""The trial: what is measured, what is chosen, and that a run does not notice it. Durations are played: a test has no clock."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness import OwnExamples, fingerprints, request, run_through, silent, tiny_pictures
from torch import Tensor, nn

from goodfit import trial
from goodfit.config import Layer
from goodfit.data.cache import cache_directory
from goodfit.models.own import own_model
from goodfit.planning import Plan
from goodfit.signals import StopSignals
from goodfit.training.own import OwnCode
from goodfit.trial import Way, try_out
from goodfit.workflows import Request, plan, train

DATA = {"train": tiny_pictures(count=120)}
SETTINGS: dict[str, Any] = {"model.name": "mlp", "model.hidden": [8], "train.batch_size": 4, "train.epochs": 40}
USUAL = Way(2, "bf16")
OTHERS = [Way(1, "bf16"), Way(1, "fp32"), Way(2, "fp32")]  # in the order in which they are tried


class Clock:
    """Says how long a step takes in each way, and counts what was asked."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys([USUAL, *OTHERS], 1.0)
        self.steps: list[Way] = []

    def step(self, session: Any, way: Way) -> float:
        self.steps.append(way)
        assert (session.plan.config.train.precision, session.trainer.precision) == (way.precision, way.precision)
        return self.seconds[way]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(trial, "_step", clock.step)
    return clock


@pytest.fixture(autouse=True)
def _two_fast_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("goodfit.planning.choose_threads", lambda asked: asked or 2)
    for module in ("planning", "trial"):
        monkeypatch.setattr(f"goodfit.{module}.choose_precision", lambda asked, _device: "bf16" if asked == "auto" else asked)


def make(**settings: Any) -> Plan:
    return plan(
        request(DATA, Path("unused"), SETTINGS | {key.replace("__", "."): value for key, value in settings.items()}), silent()
    )


def chosen(made: Plan) -> Way:
    train = made.config.train
    assert train.precision != "auto"
    return Way(train.threads, train.precision)


@pytest.mark.parametrize("fastest", OTHERS)
def test_the_fastest_way_is_taken_and_said_in_one_line(fastest: Way, clock: Clock) -> None:
    clock.seconds[fastest] = 0.5
    said: list[str] = []
    assert chosen(try_out(make(), said.append)) == fastest
    assert len(said) == 1
    assert said[0].startswith("tried for a step: 2 threads, bf16 1e+03 ms, 1 thread, bf16 ")
    assert said[0].endswith(f"; taking {fastest}")


def test_a_table_is_trained_in_float32_unless_the_trial_finds_bf16_faster(clock: Clock) -> None:
    made = plan(request({"train": (np.zeros((120, 3), np.float32), [0, 1] * 60)}, Path("unused"), SETTINGS), silent())
    assert chosen(made) == chosen(try_out(made, lambda _: None)) == Way(2, "fp32")
    clock.seconds[Way(2, "bf16")] = 0.5
    remembered = next((cache_directory().parent / "ways").iterdir())
    remembered.unlink()
    assert chosen(try_out(made, lambda _: None)) == Way(2, "bf16")


def test_a_way_that_is_hardly_faster_is_not_taken(clock: Clock) -> None:
    clock.seconds[OTHERS[0]] = 0.98
    assert chosen(try_out(make(), lambda _: None)) == USUAL


def test_the_ways_take_turns_and_no_more_steps_than_their_share(clock: Clock) -> None:
    made = make()
    try_out(made, lambda _: None)
    rounds = int(0.02 * made.total_steps / 4) - 1
    assert rounds >= 2
    warm = [USUAL, USUAL, USUAL, *OTHERS]
    assert clock.steps == warm + [USUAL, *OTHERS] * rounds


def test_the_choice_is_remembered_for_the_same_run(clock: Clock) -> None:
    clock.seconds[OTHERS[1]] = 0.5
    try_out(make(), lambda _: None)
    asked = len(clock.steps)
    said: list[str] = []
    assert chosen(try_out(make(), said.append)) == OTHERS[1]
    assert (len(clock.steps), said) == (asked, [])
    try_out(make(train__batch_size=5), lambda _: None)
    assert len(clock.steps) > asked, "of another batch nothing is known"


@pytest.mark.parametrize("text", ["{", "[]", '{"threads": 99, "precision": "fp32"}', '{"threads": 1}', "[" * 5000])
def test_a_memory_that_makes_no_sense_is_not_believed(text: str, clock: Clock) -> None:
    try_out(make(), lambda _: None)
    (file,) = (cache_directory().parent / "ways").iterdir()
    file.write_text(text)
    said: list[str] = []
    assert chosen(try_out(make(), said.append)) == USUAL
    assert len(said) == 1


def test_a_memory_that_cannot_be_written_is_no_trouble(clock: Clock) -> None:
    cache_directory().parent.mkdir(parents=True, exist_ok=True)
    (cache_directory().parent / "ways").write_text("in the way")
    assert chosen(try_out(make(), lambda _: None)) == USUAL


def test_a_short_run_has_no_trial(clock: Clock) -> None:
    clock.seconds = dict.fromkeys(clock.seconds, 0.004)
    made = make()
    assert made.total_steps * 0.004 < 5
    said: list[str] = []
    assert try_out(made, said.append) is made
    assert said == []
    assert len(clock.steps) == 2


@pytest.mark.parametrize(("epochs", "tried"), [(10, []), (15, [USUAL, OTHERS[0]]), (25, [USUAL, *OTHERS[:2]])])
def test_a_run_of_few_steps_tries_few_ways(epochs: int, tried: list[Way], clock: Clock) -> None:
    made = make(train__epochs=epochs)
    assert made.total_steps == 22 * epochs
    try_out(made, lambda _: None)
    assert sorted(set(clock.steps[2:]), key=[USUAL, *OTHERS].index) == tried


@pytest.mark.parametrize(
    ("settings", "open_ways"),
    [
        ({"train__threads": 2, "train__precision": "bf16"}, [USUAL]),
        ({"train__threads": 2}, [USUAL, Way(2, "fp32")]),
        ({"train__precision": "bf16"}, [USUAL, Way(1, "bf16")]),
        ({"train__precision": "fp32"}, [Way(2, "fp32"), Way(1, "fp32")]),
    ],
)
def test_what_was_chosen_is_not_tried(settings: dict[str, Any], open_ways: list[Way]) -> None:
    assert trial._ways(make(**settings)) == open_ways


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


def own_plan(own: OwnCode, data: Any = None) -> Plan:
    numbers = np.random.default_rng(0).normal(size=(120, 4)).astype(np.float32), np.arange(120) % 3
    layers = [Layer("test", {"data.name": "memory", "train.epochs": 40})]
    return plan(Request(data=data or {"train": numbers}, layers=layers, out=Path("unused"), own=own), silent())


def test_code_of_the_user_s_own_is_tried_only_where_it_can_be_copied() -> None:
    model = own_model(Net)
    assert trial._ways(own_plan(OwnCode(model=model))) == [Way(2, "fp32"), Way(1, "fp32")]
    loss = nn.CrossEntropyLoss()
    for own in (OwnCode(model=model, loss=loss), OwnCode(model=own_model(Net()), copies=False)):
        assert trial._ways(own_plan(own)) == [Way(2, "fp32")]
    made = plan(request({"train": OwnExamples()}, Path("unused"), SETTINGS), silent())
    assert len(trial._ways(made)) == 1


def test_a_run_does_not_notice_its_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With real steps: they are taken on another copy of everything."""
    monkeypatch.setattr("goodfit.planning.choose_threads", lambda asked: asked or 1)
    monkeypatch.setattr(trial, "SHORT", 0.0)
    monkeypatch.setattr(trial, "CLEARLY", 1e9)
    settings = SETTINGS | {"train.epochs": 20, "model.dropout": 0.2, "checkpoint.every_seconds": 0.0}
    heard: list[str] = []
    screen = silent()
    monkeypatch.setattr(screen, "say", heard.append)
    tried = train(request(DATA, tmp_path / "tried", settings), screen, StopSignals())
    assert [text.rpartition("; ")[2] for text in heard] == ["taking 1 thread, bf16"]
    assert tried.config.train.precision == "bf16"
    pinned = settings | {"train.threads": 1, "train.precision": "bf16"}
    assert fingerprints(tried) == fingerprints(run_through(DATA, tmp_path / "pinned", pinned))


def test_the_choice_is_in_the_run_s_configuration(tmp_path: Path, clock: Clock) -> None:
    clock.seconds[Way(1, "fp32")] = 0.1
    run = train(request(DATA, tmp_path / "run", SETTINGS), silent(), StopSignals())
    assert (run.config.train.threads, run.config.train.precision) == (1, "fp32")
    assert run.best is not None
    assert run.best.precision == "fp32"


def test_a_plan_keeps_all_else() -> None:
    made = make()
    changed = trial._with(made, Way(1, "fp32"))
    assert replace(changed, config=made.config) == made
    differences = {key for key, value in changed.config.flat().items() if made.config.flat()[key] != value}
    assert differences == {"train.threads", "train.precision"}
