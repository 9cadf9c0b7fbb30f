"""The Python face: the verbs of the command line as functions, with the same defaults."""

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from goodfit import testing, workflows
from goodfit.artefacts.predictor import Predictor
from goodfit.artefacts.run import Run
from goodfit.config import Layer
from goodfit.conversion import Conversion, convert_file
from goodfit.display import Display
from goodfit.distributed import Ranks
from goodfit.errors import ConfigError, DataError, FileError, Interrupted, in_python, in_python_words
from goodfit.evaluation.metrics import Evaluation
from goodfit.models.own import own_model
from goodfit.randomness import kept_generators
from goodfit.session import Session, make_session
from goodfit.signals import StopSignals
from goodfit.training.own import OwnCode
from goodfit.user_code import check_not_imported, is_code

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Options", "convert", "evaluate", "load", "plot_batch", "resume", "train", "trainer"]

PathLike = str | os.PathLike[str]

SYNONYMS = {"criterion": "loss", "scheduler": "schedule", "learning_rate": "lr", "valid": "val", "validation": "val"}
OBJECTS = ("model", "loss", "optimizer", "schedule")  # that may be given in place of a name


class Options(TypedDict, total=False):
    """What `train` and `trainer` take beside the data; the names and defaults are those of the command line.

    `settings` holds any further configuration under dotted keys, such as {"augment.flip": True}.
    """

    model: Any  # a name, a model file, a torch.nn.Module, or a class or function that builds one
    recipe: str
    target: str
    task: str
    epochs: int
    batch_size: int | str
    loss: Callable[..., Any]  # of what the model gives and the targets: their mean
    optimizer: Any  # a name, a class, a function of parameters, or an optimiser of the module's parameters
    schedule: Any  # a name, a function of the step, or a scheduler of torch
    lr: float
    device: str
    seed: int
    data_root: PathLike
    config: PathLike
    settings: Mapping[str, Any]


KEYS = {
    "model": "model.name",
    "target": "data.target",
    "task": "data.task",
    "epochs": "train.epochs",
    "batch_size": "train.batch_size",
    "optimizer": "optim.name",
    "loss": "train.loss",
    "schedule": "schedule.name",
    "lr": "optim.lr",
    "device": "train.device",
    "seed": "train.seed",
    "data_root": "data.root",
}


@in_python_words()
def train(
    data: Any = "digits",
    *,
    val: Any = None,
    test: Any = None,
    out: PathLike | None = None,
    quiet: bool = False,
    **options: Unpack[Options],
) -> Run:
    """Train a model on labelled data, test it, and return the run.

    `data` is a data set's name, a path, or data in memory: a pair (X, y) of tensors, arrays or lists, a Dataset or a
    DataLoader, with `val` and `test` of their kind beside it if there are any; `val` may also be the share to validate on.
    `model` may be a torch.nn.Module: its weights are the start, and it has the best ones when training has ended. The other
    `options` are those of the command line: recipe, target, task, epochs, batch_size, loss, optimizer, schedule, lr, device,
    seed, data_root and config, and settings for all the rest under dotted keys, such as settings={"train.ema": 0.99};
    `goodfit train --dry-run` lists these with their defaults. Raises InputError before anything is written, RunError for a
    run that failed, and KeyboardInterrupt, with a checkpoint saved, on Ctrl-C.
    """
    request = _request(data, val, test, Path(out) if out is not None else None, options)
    with _listening() as signals, _screen(quiet) as screen:
        run = workflows.train(request, screen, signals)
    return _give_back(run, request.own, request.data)


@in_python_words()
def resume(
    run: PathLike,
    *,
    data: Any = None,
    val: Any = None,
    test: Any = None,
    model: Any = None,
    loss: Callable[..., Any] | None = None,
    optimizer: Any = None,
    schedule: Any = None,
    epochs: int | None = None,
    quiet: bool = False,
) -> Run:
    """Go on with a stopped run, or give a finished one more epochs in all.

    What the run was given as Python objects it is given again: `data` with `val` and `test`, `model`, `loss` and the rest.
    """
    check_not_imported()
    own = _own_code({"model": model, "loss": loss, "optimizer": optimizer, "schedule": schedule})
    parts = _in_memory(data, val, test)
    with _listening() as signals, _screen(quiet) as screen:
        again = workflows.resume(Path(run), screen, signals, epochs=epochs, data=parts, own=own)
    return _give_back(again, own, parts)


@in_python_words()
def load(path: PathLike, *, model: Any = None, device: str = "cpu") -> Predictor:
    """Load a model file, or a run folder's best; `model` is the code of a model that is the user's own.

    Raises FileError if it is damaged or foreign, and CodeNeededError where the code is missing.
    """
    if not isinstance(path, str | os.PathLike):
        raise FileError(f"{path!r:.80} is no path; give that of a model file or a run folder")
    return Predictor.load(Path(path), device, own_model(model) if model is not None else None)


@in_python_words()
def evaluate(model: Predictor | Run | PathLike, data: Any = None, *, split: str = "test", tta: bool = False) -> Evaluation:
    """Measure a model (a predictor, run, or path) on a split of `data`; without data, on its run's own.

    With `tta` the evaluation has another one under `tta`: that of the mean over flipped and shifted views of each picture.
    A path does not bring code of the user's own: a predictor does, `load(path, model=Net)`, and a run that was trained here.
    """
    path, own = (model.path, model.own) if isinstance(model, Predictor | Run) else (Path(model), None)
    if data is None and isinstance(model, Run):
        data = model.data
    return testing.evaluate_model(path, data, split, own=own, tta=tta)


@in_python_words()
def convert(
    file: PathLike,
    *,
    model: Any,
    data: Any = None,
    val: Any = None,
    test: Any = None,
    out: PathLike | None = None,
    trust_pickle: bool = False,
    quiet: bool = False,
    settings: Mapping[str, Any] | None = None,
) -> Conversion:
    """Make a model file of the weights that another program saved with torch.save, or as a .safetensors.

    `model` is what they were saved from: a name, a torch.nn.Module, or what builds one. `data`, as for `train`, give the
    classes, the preprocessing and a test. A file that is more than weights can run any code, and is read with `trust_pickle`
    only. Raises FileError for a file that is damaged or does not fit the model, and InputError for what is missing.
    """
    own = own_model(model) if _is_object(model) else None
    keyed = {} if own else {"model.name": os.fspath(model)}
    keyed |= {"data.name": os.fspath(data)} if isinstance(data, str | os.PathLike) else {}
    layers = [Layer(name, {name: value}) for name, value in {**keyed, **(settings or {})}.items()]
    with _screen(quiet) as screen, kept_generators():
        return convert_file(
            Path(file),
            screen,
            data=_in_memory(data, val, test),
            layers=layers,
            own=own,
            out=Path(out) if out is not None else None,
            trust_pickle=trust_pickle,
        )


@in_python_words()
def trainer(data: Any = "digits", *, val: Any = None, test: Any = None, **options: Unpack[Options]) -> Session:
    """Return what `train` would train, for a loop of your own: `for step in trainer.steps(until=100)`.

    Between two turns its loss, predictions, gradients and weights are at hand; a module that is given is trained itself,
    and not a copy of it. Nothing is written but what `trainer.save(path)` is asked for.
    """
    request = _request(data, val, test, None, options)
    request = replace(request, own=replace(request.own, copies=False))
    return make_session(workflows.plan(request, _screen(quiet=True)), Ranks(), lambda: False)


@in_python_words()
def plot_batch(
    data: Any = "digits", *, val: Any = None, test: Any = None, step: int = 0, **options: Unpack[Options]
) -> "Figure":
    """Draw the pictures of a training batch as the model sees them, augmented, with the normalisation undone.

    `step` says which; the rest is as for `train`. Raises DataError for data that are no pictures.
    """
    from goodfit.plots import draw_pictures

    session = trainer(data, val=val, test=test, **options)
    return draw_pictures(*session.pictures(step))


def _request(data: Any, val: Any, test: Any, out: Path | None, options: Options) -> workflows.Request:
    """Turn keywords into the request that the command line would have made of them."""
    check_not_imported()
    unknown = set(options) - set(Options.__annotations__)
    if unknown:
        name = min(unknown)
        near = SYNONYMS.get(name) or next(iter(get_close_matches(name, Options.__annotations__, n=1)), None)
        hint = f"did you mean {near}?" if near else 'further keys go into settings, such as settings={"train.ema": 0.99}'
        raise TypeError(f"train() got an unexpected keyword {name!r}; {hint}")
    if data is None:
        raise DataError("the data are None; give a name, a path, or the data themselves")
    own, given = _own_code(options), dict(options)
    keyed = {
        KEYS[name]: os.fspath(value) if isinstance(value, os.PathLike) else value
        for name, value in given.items()
        if name in KEYS and not (name in OBJECTS and _is_object(value))
    }
    in_memory = not isinstance(data, str | os.PathLike)
    settings: Mapping[str, Any] = options.get("settings", {})
    keyed["data.name"] = "memory" if in_memory else os.fspath(data)
    if isinstance(val, float | int):
        keyed["data.val"], val = val, None
    if not isinstance(settings, Mapping):
        raise ConfigError(f'settings = {settings!r:.80} is no dict; give keys with their values, such as {{"train.ema": 0.99}}')
    keywords = {key: keyword for keyword, key in KEYS.items()} | {"data.name": "data", "data.val": "val"}
    layers = [Layer(f"{keywords[key]}=", {key: value}) for key, value in keyed.items()]
    layers += [Layer("settings", {key: value}) for key, value in settings.items()]
    config = options.get("config")
    return workflows.Request(
        data=_in_memory(data, val, test),
        layers=layers,
        recipe=options.get("recipe"),
        config_file=Path(config) if config is not None else None,
        out=out,
        own=own,
    )


def _in_memory(data: Any, val: Any, test: Any) -> dict[str, Any] | None:
    """Return the parts of data that are objects, None for data that are named."""
    own_splits = {name: part for name, part in (("val", val), ("test", test)) if part is not None}
    if data is not None and not isinstance(data, str | os.PathLike):
        return {**(data if isinstance(data, Mapping) else {"train": data}), **own_splits}
    if own_splits:
        raise DataError(f"{' and '.join(own_splits)} in memory go with training data in memory, and data={data!r} is not")
    return None


def _own_code(options: Mapping[str, Any]) -> OwnCode:
    """Gather what was given as objects; a string such as "net.py:Net" names code too."""
    model, loss, optimizer, schedule = (options.get(name) if _is_object(options.get(name)) else None for name in OBJECTS)
    return OwnCode(own_model(model) if model is not None else None, loss, optimizer, schedule)


def _is_object(value: Any) -> bool:
    return value is not None and (is_code(value) if isinstance(value, str) else not isinstance(value, os.PathLike))


def _give_back(run: Run, own: OwnCode, data: Any) -> Run:
    """Give the user's module the best weights; the run remembers code and data for as long as it lives."""
    module = own.model.module if own.model else None
    if module is not None and run.best:
        module.load_state_dict(run.best.tensors)
    return replace(run, own=own.model, data=data)


def _screen(quiet: bool) -> Display:
    import sys

    return Display(sys.stdout, is_silent=quiet, words=in_python)


@contextmanager
def _listening() -> Iterator[StopSignals]:
    """Hear signals for the length of a call; Ctrl-C then ends in KeyboardInterrupt, as Python's own would.

    The caller's random generators are left alone.
    """
    with StopSignals().listening() as signals, kept_generators():
        try:
            yield signals
        except Interrupted as stop:
            left = "go on with goodfit.resume" if stop.saved else "nothing was started"
            raise KeyboardInterrupt(f"stopped by {signal.Signals(stop.signum).name}; {left}") from None
