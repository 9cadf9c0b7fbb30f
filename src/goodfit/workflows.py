"""The verbs: train, resume, evaluate, predict. The one place that composes all the rest."""

import re
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from torch import Tensor

from goodfit.artefacts.checkpoint import Checkpoint
from goodfit.artefacts.environment import describe_environment, differences
from goodfit.artefacts.metrics_log import MetricsLog
from goodfit.artefacts.records import Observer
from goodfit.artefacts.run import START, Run, create_run
from goodfit.artefacts.tensorboard import TensorBoard
from goodfit.config import Config, Layer, dump_toml, merge, read_toml
from goodfit.data.examples import Examples
from goodfit.data.own import describe_inputs
from goodfit.devices import choose_device, computing
from goodfit.distributed import Ranks, ranks
from goodfit.errors import ConfigError, DataError, GoodfitError, Interrupted, ModelError
from goodfit.files import check_new_folder, write_atomically
from goodfit.fitting import Fitting
from goodfit.planning import Plan, make_plan
from goodfit.recovery import restore
from goodfit.session import Session, make_session
from goodfit.signals import StopSignals
from goodfit.training.own import OwnCode
from goodfit.trial import try_out
from goodfit.verification import Verification, verify_run

__all__ = ["Request", "Screen", "plan", "resume", "train", "verify"]

T = TypeVar("T")


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
    own: OwnCode = field(default_factory=OwnCode)

    @property
    def all_layers(self) -> list[Layer]:
        """The configuration file's layer, if one is named, under those of the flags."""
        file = [Layer(str(self.config_file), _read_config(self.config_file))] if self.config_file else []
        return [*file, *self.layers]


def plan(request: Request, screen: Screen) -> Plan:
    """Read the data and resolve the configuration, as `train` would; write nothing."""
    recipe = request.recipe or (None if request.config_file else "auto")
    complete = request.config_file is not None
    made = make_plan(request.data, request.all_layers, recipe, screen.progress, is_complete=complete, own=request.own)
    _check_inputs(made)
    return made


def _check_inputs(made: Plan) -> None:
    """Raise ModelError for inputs that only a user's own model can take: several of them, or whole numbers."""
    inputs, architecture = made.dataset.train.inputs, made.architecture
    if made.own.model or architecture.is_code or architecture.name == "sequential" or not isinstance(inputs, Examples):
        return
    first = inputs.first
    if not (isinstance(first, Tensor) and first.is_floating_point()):
        raise ModelError(
            f"{architecture.name} takes one tensor of float32 numbers for each example, and {made.dataset.name} gives "
            f"{describe_inputs(inputs)}; give such, or a model of your own that takes these"
        )


def train(request: Request, screen: Screen, signals: StopSignals) -> Run:
    """Train as requested and return the finished run.

    Raises InputError before anything is written, RunError when a run that was started fails, and Interrupted, with a
    checkpoint saved, when a signal stops it.
    """
    if request.out is not None:
        check_new_folder(request.out)  # before minutes are spent on the data
    with _ranks(request) as place:
        made = _in_turn(place, lambda: plan(request, screen))
        if place.world == 1:  # ranks share the processors, and would have to agree
            made = try_out(made, screen.say)
        session = make_session(made, place, signals.asked)
        with signals.deferred():  # from the moment that there is a run folder a signal leaves a checkpoint in it
            run = Run(_on_first(place, lambda: _create(session, request.out or _default_out(made))))
            with _locked(run, place):
                return _fit(session, run, screen, signals, seconds=0.0, is_resumed=False)


def _create(session: Session, path: Path) -> Path:
    """Make the run folder, with the model file that training goes on from if there is one, and return its path."""
    config, start = _kept_config(session.plan), session.plan.start
    environment = describe_environment(session.device, config.train.threads, session.ranks.world)
    environment["data"] = session.plan.dataset.fingerprint
    again = shlex.join(["goodfit", "train", "--config", str(path / "config.toml")])
    with create_run(path, config, environment, f"A run of goodfit; train again with: {again}") as folder:
        if start:
            start.save(folder / START)
        elif _has_start(session.plan):
            session.model_file(val=None).save(folder / START)
    return path


def resume(
    path: Path,
    screen: Screen,
    signals: StopSignals,
    *,
    epochs: int | None = None,
    data: Any = None,
    own: OwnCode | None = None,
) -> Run:
    """Go on with a stopped run from its newest checkpoint, or give a finished one more epochs, and return it finished.

    `data` and `own` are the objects that it was started with, if there were any. Raises FileError if `path` is not a run
    folder or its checkpoints do not fit.
    """
    run = Run(path)
    layers = [Layer("config.toml", _read_config(path / "config.toml"))]
    if epochs is not None:
        layers.append(Layer("--epochs", {"train.epochs": epochs}))
    config, _ = merge(layers)
    if run.end and epochs is None:
        screen.say(f"this run has finished; give it more epochs with: goodfit resume {shlex.quote(str(path))} --epochs N")
        return run
    with ranks(choose_device(config.train.device)) as place, _locked(run, place):
        _on_first(place, run.tidy)
        made = _in_turn(place, lambda: make_plan(data, layers, None, screen.progress, is_complete=True, own=own))
        _check_data(run, made, screen)
        session = make_session(made, place, signals.asked)
        checkpoint = _restore(session, run, screen)
        if epochs is not None:
            session.state.epochs_since_best = 0
            _on_first(place, lambda: write_atomically(path / "config.toml", dump_toml(_kept_config(made))))
        _say_start(session, run, checkpoint, screen)
        place.wait()
        seconds = checkpoint.seconds if checkpoint else 0.0
        with signals.deferred():
            return _fit(session, Run(path), screen, signals, seconds=seconds, is_resumed=True)


def verify(path: Path, screen: Screen, *, data: Any = None, own: OwnCode | None = None) -> Verification:
    """Prove on a run's own folder that it repeats bit for bit; nothing in the folder changes.

    Raises FileError if `path` is not a run folder, has no whole checkpoint, or is being trained in.
    """
    run = Run(path)
    layers = [Layer("config.toml", _read_config(path / "config.toml"))]
    with run.locked():
        made = make_plan(data, layers, None, screen.progress, is_complete=True, own=own)
        _say_changes(run, made, 1, screen, "its last bits may differ for that alone")
        for news in verify_run(run, made):
            if isinstance(news, Verification):
                return news
            screen.say(news)
    raise AssertionError("verify_run ends with its result")


@contextmanager
def _locked(run: Run, place: Ranks) -> Iterator[None]:
    """Keep other processes from training in the run folder; the first rank holds the lock for all."""
    with ExitStack() as stack:
        _on_first(place, lambda: stack.enter_context(run.locked()))
        yield


def _kept_config(made: Plan) -> Config:
    """Return the configuration that the run folder keeps: a model file that training goes on from lies beside it."""
    start = [Layer("start", {"model.name": START})] if made.start or _has_start(made) else []
    return merge([Layer("config", made.config.flat()), *start])[0]


def _has_start(made: Plan) -> bool:
    """Whether the first weights are no function of the seed, so that they are kept like a model file's."""
    return made.own.model is not None or made.config.model.pretrained


def _read_config(path: Path) -> dict[str, Any]:
    """Read a configuration file; what `_kept_config` left beside it is named by its whole path."""
    values = read_toml(path)
    return values | ({"model.name": str(path.parent / START)} if values.get("model.name") == START else {})


def _check_data(run: Run, made: Plan, screen: Screen) -> None:
    """Raise DataError where a run is to go on with other data than it was started with.

    What code of the user's own gives may differ from one time to the next, so that is only said.
    """
    if run.environment.get("data") in (None, made.dataset.fingerprint):
        return
    what = f"{made.dataset.name} is not what the run was started with: other examples, labels or classes"
    if isinstance(made.dataset.train.inputs, Examples):
        screen.say(f"{what}, or its code gives others each time; it goes on, and ends otherwise than it would have")
        return
    raise DataError(f"{what}; give the same data, or start a new run from its weights: --model {run.model}")


def _restore(session: Session, run: Run, screen: Screen) -> Checkpoint | None:
    """Load the newest complete checkpoint, if there is one, into the session; raise ConfigError if no step is left to do."""
    checkpoint, damage = restore(session, run)
    for line in damage:
        screen.say(f"{line}; going back to the one before")
    step, total = session.state.step, session.plan.total_steps
    if step > total or (run.end and step == total):
        done = step // session.plan.steps_per_epoch
        raise ConfigError(f"{str(run.path)!r} has already trained {done} epochs; ask for more than that with --epochs")
    return checkpoint


def _say_start(session: Session, run: Run, checkpoint: Checkpoint | None, screen: Screen) -> None:
    if checkpoint:
        screen.say(f"resuming from step {checkpoint.step}")
    else:
        screen.say("no checkpoint was written yet: starting from step 0")
    for halving in session.state.halvings:
        screen.say(f"from step {halving.step + 1} on batches are computed in {halving.accumulate} parts: memory ran out there")
    _say_changes(run, session.plan, session.ranks.world, screen, "it goes on, but its last bits will differ")


def _say_changes(run: Run, made: Plan, world: int, screen: Screen, consequence: str) -> None:
    """Say it where this process computes in another determinism class than the run was started in."""
    settings = made.config.train
    changed = differences(run.environment, describe_environment(choose_device(settings.device), settings.threads, world))
    if changed:
        screen.say(f"this is not where the run was started ({'; '.join(changed)}): {consequence}")


def _fit(session: Session, run: Run, screen: Screen, signals: StopSignals, *, seconds: float, is_resumed: bool) -> Run:
    """Train into the run folder; signals are deferred to the end of a step."""
    first = session.ranks.is_first
    log = MetricsLog(run.path / "metrics.jsonl", session.state.log_length) if first else None
    board = [TensorBoard(run.path, session.state.step if is_resumed else None)] if first else []
    observers: list[Observer] = [*board, screen]
    try:
        settings = session.plan.config.train
        with computing(session.device, settings.threads, settings.deterministic) as heard:
            screen.begin(session, run.path)
            ended = Fitting(session, run, log, observers, heard, seconds_before=seconds).fit()
    finally:
        for observer in [*observers, *([log] if log else [])]:
            observer.close()
    if not ended:
        (number,) = session.ranks.largest((signals.signum or 0,), session.device)  # a rank may have heard nothing itself
        raise Interrupted(number, saved=True)
    return Run(run.path)


@contextmanager
def _ranks(request: Request) -> Iterator[Ranks]:
    """Join the ranks of this run; which device they are on must be known before the data are."""
    config, _ = merge(request.all_layers)
    with ranks(choose_device(config.train.device)) as place:
        yield place


def _in_turn(place: Ranks, work: Callable[[], T]) -> T:
    """Do `work` on the first rank, then on the others, which find in the cache what it decoded."""
    mine: list[T] = []
    _on_first(place, lambda: mine.append(work()))
    return mine[0] if mine else work()


def _on_first(place: Ranks, work: Callable[[], T]) -> T:
    """Do `work` on the first rank and give every rank its result, or its error."""
    outcome: Any = None
    if place.is_first:
        try:
            outcome = work()
        except GoodfitError as error:
            if place.world == 1:
                raise
            outcome = error
    outcome = place.share_object(outcome)
    if isinstance(outcome, GoodfitError):
        raise outcome
    result: T = outcome
    return result


def _default_out(made: Plan) -> Path:
    model = re.sub(r"[^\w./-]", "", made.config.model.name.rpartition(":")[2]) or "model"
    name = f"{made.dataset.name}-{model}-{time.strftime('%Y%m%d-%H%M%S')}".replace("/", "-")
    path, number = Path("runs") / name, 1
    while path.exists():
        number += 1
        path = Path("runs") / f"{name}-{number}"
    return path
