"""goodfit: from labelled data to a tested, reusable model, trained fast and shipped as one safe file."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from goodfit.api import convert, evaluate, load, plot_batch, resume, train, trainer
    from goodfit.artefacts.predictor import Estimate, Prediction, Predictor
    from goodfit.artefacts.run import Run
    from goodfit.errors import GoodfitError
    from goodfit.plots import plot_confusion, plot_history, plot_prediction

__all__ = [
    "Estimate",
    "GoodfitError",
    "Prediction",
    "Predictor",
    "Run",
    "convert",
    "evaluate",
    "load",
    "plot_batch",
    "plot_confusion",
    "plot_history",
    "plot_prediction",
    "resume",
    "train",
    "trainer",
]

# Where each public name lives; it is imported when first used, so that `import goodfit` costs nothing.
_HOMES = {
    "Estimate": "goodfit.artefacts.predictor",
    "GoodfitError": "goodfit.errors",
    "Prediction": "goodfit.artefacts.predictor",
    "Predictor": "goodfit.artefacts.predictor",
    "Run": "goodfit.artefacts.run",
    "convert": "goodfit.api",
    "evaluate": "goodfit.api",
    "load": "goodfit.api",
    "plot_batch": "goodfit.api",
    "plot_confusion": "goodfit.plots",
    "plot_history": "goodfit.plots",
    "plot_prediction": "goodfit.plots",
    "resume": "goodfit.api",
    "train": "goodfit.api",
    "trainer": "goodfit.api",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'goodfit' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
