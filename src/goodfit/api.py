"""The Python face: the verbs of the command line as functions, with the same defaults."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypedDict, Unpack

from goodfit import testing, workflows
from goodfit.artefacts.predictor import Predictor
from goodfit.artefacts.run import Run
from goodfit.config import Layer
from goodfit.display import Display
from goodfit.distributed import Ranks
from goodfit.errors import DataError, Interrupted, ModelError
from goodfit.evaluation.metrics import Evaluation
from goodfit.session import make_session
from goodfit.signals import StopSignals
from goodfit.training.trainer import Trainer

__all__ = ["Options", "evaluate", "load", "resume", "train", "trainer"]

PathLike = str | os.PathLike[str]


class Options(TypedDict, total=False):
    """What `train` and `trainer` take beside the data; the names and defaults are those of the command line.

    `settings` holds any further configuration under dotted keys, such as {"augment.flip": True}.
    """

    model: str
    recipe: str
    target: str
    epochs: int
    batch_size: int | str
    optimizer: str
    lr: float
    device: str
    seed: int
    data_root: PathLike
    config: PathLike
    settings: Mapping[str, Any]


KEYS = {
    "model": "model.name",
    "target": "data.target",
    "epochs": "train.epochs",
    "batch_size": "train.batch_size",
    "optimizer": "optim.name",
    "lr": "optim.lr",
    "device": "train.device",
    "seed": "train.seed",
    "data_root": "data.root",
}


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

    `data` is a data set's name, a path, or data in memory: a pair (X, y) of tensors, arrays or lists, with pairs `val`
    and `test` beside it if there are any; `val` may also be the share to validate on. Raises InputError before anything
    is written, RunError for a run that failed, and KeyboardInterrupt, with a checkpoint saved, on Ctrl-C.
    """
    request = _request(data, val, test, Path(out) if out is not None else None, options)
    with _listening() as signals, _screen(quiet) as screen:
        return workflows.train(request, screen, signals)


def resume(run: PathLike, *, data: Any = None, epochs: int | None = None, quiet: bool = False) -> Run:
    """Go on with a stopped run, or give a finished one more epochs in all; `data` are needed if they were in memory."""
    with _listening() as signals, _screen(quiet) as screen:
        return workflows.resume(Path(run), screen, signals, epochs=epochs, data=data)


def load(path: PathLike, *, device: str = "cpu") -> Predictor:
    """Load a model file, or a run folder's best; raise FileError if it is damaged or foreign."""
    return Predictor.load(Path(path), device)


def evaluate(model: Predictor | Run | PathLike, data: Any = None, *, split: str = "test") -> Evaluation:
    """Measure a model (a predictor, run, or path) on a split of `data`; without data, on its run's own."""
    path = model.path if isinstance(model, Predictor | Run) else Path(model)
    return testing.evaluate_model(path, data, split)


def trainer(data: Any = "digits", *, val: Any = None, test: Any = None, **options: Unpack[Options]) -> Trainer:
    """Return the trainer that `train` would use, for a loop of your own: `for step in trainer.steps(until=100)`.

    Nothing is written.
    """
    made = workflows.plan(_request(data, val, test, None, options), _screen(quiet=True))
    return make_session(made, Ranks(), lambda: False).trainer


def _request(data: Any, val: Any, test: Any, out: Path | None, options: Options) -> workflows.Request:
    """Turn keywords into the request that the command line would have made of them."""
    unknown = set(options) - set(Options.__annotations__)
    if unknown:
        raise TypeError(f"train() got an unexpected keyword {min(unknown)!r}; further keys go into settings={{...}}")
    given: dict[str, Any] = dict(options)
    model = given.get("model")
    if model is not None and not isinstance(model, str | os.PathLike):
        raise ModelError(
            f"a {type(model).__name__} as the model is not built yet; name one of `goodfit models`, or a model file"
        )
    keyed = {
        KEYS[name]: os.fspath(value) if isinstance(value, os.PathLike) else value
        for name, value in given.items()
        if name in KEYS
    }
    in_memory = not isinstance(data, str | os.PathLike)
    keyed["data.name"] = "memory" if in_memory else os.fspath(data)
    if isinstance(val, float | int):
        keyed["data.val"], val = val, None
    own_splits = {name: pair for name, pair in (("val", val), ("test", test)) if pair is not None}
    if own_splits and not in_memory:
        raise DataError(f"{' and '.join(own_splits)} in memory go with training data in memory, and data={data!r} is not")
    layers = [Layer(name, {name: value}) for name, value in {**keyed, **given.get("settings", {})}.items()]
    config = given.get("config")
    return workflows.Request(
        data={**(data if isinstance(data, Mapping) else {"train": data}), **own_splits} if in_memory else None,
        layers=layers,
        recipe=given.get("recipe"),
        config_file=Path(config) if config is not None else None,
        out=out,
    )


def _screen(quiet: bool) -> Display:
    import sys

    return Display(sys.stdout, is_silent=quiet)


@contextmanager
def _listening() -> Iterator[StopSignals]:
    """Hear signals for the length of a call; Ctrl-C then ends in KeyboardInterrupt, as Python's own would."""
    with StopSignals().listening() as signals:
        try:
            yield signals
        except Interrupted as stop:
            raise KeyboardInterrupt(f"stopped by signal {stop.signum}; the run folder is whole") from None
