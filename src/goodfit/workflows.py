"""The verbs: train, resume, evaluate, predict. The one place that composes all the rest."""

import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from goodfit.artefacts.checkpoint import newest_checkpoint
from goodfit.artefacts.environment import describe_environment, differences
from goodfit.artefacts.metrics_log import MetricsLog
from goodfit.artefacts.records import Observer
from goodfit.artefacts.run import Run, create_run
from goodfit.artefacts.tensorboard import TensorBoard
from goodfit.config import Layer, dump_toml, merge, read_toml
from goodfit.devices import choose_device, computing
from goodfit.distributed import Ranks, ranks
from goodfit.errors import ConfigError, Interrupted
from goodfit.files import write_atomically
from goodfit.fitting import Fitting
from goodfit.planning import Plan, make_plan
from goodfit.session import Session, make_session
from goodfit.signals import StopSignals

__all__ = ["Request", "Screen", "plan", "resume", "train"]


class Screen(Observer, Protocol):
    """What a person sees of a run; a plain object that is told things."""

    def say(self, text: str) -> None:
        """Show one line."""

    def progress(self, what: str, done: int, total: int) -> None:
        """Show how far a long piece of work is."""

    def begin(self, session: Session, run: Path) -> None:
        """Show what is about to be trained; from here on the state's step may be looked at at any time."""


@dataclass(frozen=True)
class Request:
    """What was asked of `train`: data (a name, a path, or objects), and layers of configuration over the recipe's."""

    data: Any = None
    layers: Sequence[Layer] = ()
    recipe: str | None = None
    config_file: Path | None = None
    out: Path | None = None

    @property
    def all_layers(self) -> list[Layer]:
        """The configuration file's layer, if one is named, under those of the flags."""
        file = [Layer(str(self.config_file), read_toml(self.config_file))] if self.config_file else []
        return [*file, *self.layers]


def plan(request: Request, screen: Screen) -> Plan:
    """Read the data and resolve the configuration, as `train` would; write nothing."""
    recipe = request.recipe or (None if request.config_file else "auto")
    return make_plan(request.data, request.all_layers, recipe, screen.progress, is_complete=request.config_file is not None)


def train(request: Request, screen: Screen, signals: StopSignals) -> Run:
    """Train as requested and return the finished run.

    Raises InputError before anything is written, RunError when a run that was started fails, and Interrupted, with a
    checkpoint saved, when a signal stops it.
    """
    with _ranks(request) as place:
        made = _in_turn(place, lambda: plan(request, screen))
        session = make_session(made, place, signals.asked)
        environment = describe_environment(session.device, made.config.train.threads, place.world)
        path = Path(place.share_text(str(request.out or _default_out(made))))
        if place.is_first:
            heading = f"A run of goodfit; train again with: goodfit train --config {path / 'config.toml'}"
            with create_run(path, made.config, environment, heading):
                pass
        place.wait()
        return _fit(session, Run(path), screen, signals, seconds=0.0, is_resumed=False)


def resume(path: Path, screen: Screen, signals: StopSignals, *, epochs: int | None = None, data: Any = None) -> Run:
    """Go on with a stopped run from its newest checkpoint, or give a finished one more epochs, and return it finished.

    Raises FileError if `path` is not a run folder or its checkpoints do not fit.
    """
    run = Run(path)
    layers = [Layer("config.toml", run.config.flat())]
    if epochs is not None:
        layers.append(Layer("--epochs", {"train.epochs": epochs}))
    config, _ = merge(layers)
    if run.end and epochs is None:
        screen.say(f"this run has finished; give it more epochs with: goodfit resume {shlex.quote(str(path))} --epochs N")
        return run
    with ranks(choose_device(config.train.device)) as place:
        made = _in_turn(place, lambda: make_plan(data, layers, None, screen.progress, is_complete=True))
        session = make_session(made, place, signals.asked)
        seconds = _restore(session, run, screen)
        if session.state.step > made.total_steps or (run.end and session.state.step == made.total_steps):
            done = session.state.step // made.steps_per_epoch
            raise ConfigError(f"{str(path)!r} has already trained {done} epochs; ask for more than that with --epochs")
        if epochs is not None:
            session.state.epochs_since_best = 0
            if place.is_first:
                write_atomically(path / "config.toml", dump_toml(made.config))
        _say_differences(session, run, screen)
        place.wait()
        return _fit(session, Run(path), screen, signals, seconds=seconds, is_resumed=True)


def _restore(session: Session, run: Run, screen: Screen) -> float:
    """Load the newest complete checkpoint into the session; return how long the run had trained by then."""
    checkpoint, damage = newest_checkpoint(run.checkpoints)
    for line in damage:
        screen.say(f"{line}; going back to the one before")
    if checkpoint is None:
        screen.say("no checkpoint was written yet: starting from step 0")
        return 0.0
    checkpoint.restore(session.state)
    screen.say(f"resuming from step {checkpoint.step}")
    return checkpoint.seconds


def _say_differences(session: Session, run: Run, screen: Screen) -> None:
    now = describe_environment(session.device, session.plan.config.train.threads, session.ranks.world)
    changed = differences(run.environment, now)
    if changed:
        screen.say(f"this is not where the run was started ({'; '.join(changed)}): it goes on, but its last bits will differ")


def _fit(session: Session, run: Run, screen: Screen, signals: StopSignals, *, seconds: float, is_resumed: bool) -> Run:
    """Train into the run folder, with signals deferred to the end of a step."""
    first = session.ranks.is_first
    log = MetricsLog(run.path / "metrics.jsonl", session.state.log_length) if first else None
    board = [TensorBoard(run.path, session.state.step if is_resumed else None)] if first else []
    observers: list[Observer] = [*board, screen]
    try:
        settings = session.plan.config.train
        with signals.deferred(), computing(session.device, settings.threads, settings.deterministic):
            screen.begin(session, run.path)
            ended = Fitting(session, run, log, observers, seconds_before=seconds).fit()
    finally:
        for observer in [*observers, *([log] if log else [])]:
            observer.close()
    if not ended:
        raise Interrupted(signals.signum or 0, saved=True)
    return Run(run.path)


@contextmanager
def _ranks(request: Request) -> Iterator[Ranks]:
    """Join the ranks of this run; which device they are on must be known before the data are."""
    config, _ = merge(request.all_layers)
    with ranks(choose_device(config.train.device)) as place:
        yield place


def _in_turn(place: Ranks, work: Any) -> Any:
    """Do `work` on the first rank, then on the others, which find in the cache what it decoded."""
    result = work() if place.is_first else None
    place.wait()
    return result if place.is_first else work()


def _default_out(made: Plan) -> Path:
    name = f"{made.dataset.name}-{made.config.model.name}-{time.strftime('%Y%m%d-%H%M%S')}".replace("/", "-")
    path, number = Path("runs") / name, 1
    while path.exists():
        number += 1
        path = Path("runs") / f"{name}-{number}"
    return path
