"""Who takes part: a literal list; each is a function of this package that trains a work once."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

__all__ = ["CONTESTANTS", "Contestant", "choose"]

ALL = ("mnist-mlp", "cifar10-quick", "tiny")


@dataclass(frozen=True)
class Contestant:
    """Where the function is, what it needs, and what it can train."""

    module: str  # of this package; imported in the process that trains, and in no other
    library: str = "torch"
    function: str = "train"
    works: tuple[str, ...] = ALL

    @property
    def is_installed(self) -> bool:
        """Whether its library is there."""
        return find_spec(self.library) is not None

    @cache  # noqa: B019  (contestants live as long as the process)
    def load(self) -> Callable[..., Any]:
        """Import it, and return the function that trains a work."""
        function: Callable[..., Any] = getattr(import_module(f"benchmarks.peers.{self.module}"), self.function)
        return function


CONTESTANTS = {
    "goodfit": Contestant("with_goodfit", "goodfit"),
    "goodfit, precision auto": Contestant("with_goodfit", "goodfit", "train_in_any_precision", ("cifar10-quick",)),
    "the note's loop (MNIST)": Contestant("notes", "torchvision", "train_digits", ("mnist-mlp",)),
    "the note's loop (CIFAR-10)": Contestant("notes", "torchvision", "train_pictures", ("cifar10-quick",)),
    "hand-written loop": Contestant("hand_written"),
    "DataLoader loop": Contestant("hand_written", function="train_from_loader"),
    "Lightning, DataLoader": Contestant("with_lightning", "lightning", "train_from_loader"),
    "Lightning, ready batches": Contestant("with_lightning", "lightning"),
    "fastai": Contestant("with_fastai", "fastai"),
    "skorch": Contestant("with_skorch", "skorch"),
    "Keras on torch": Contestant("with_keras", "keras"),
    "ignite, ready batches": Contestant("with_ignite", "ignite"),
    "Hugging Face Trainer": Contestant("with_transformers", "transformers"),
}


def choose(work: str, only: list[str] | None) -> tuple[list[str], list[str]]:
    """Return who can train `work`, and who of them is left out because its library is not installed."""
    wanted = [name for name, contestant in CONTESTANTS.items() if work in contestant.works and name in (only or CONTESTANTS)]
    there = [name for name in wanted if CONTESTANTS[name].is_installed]
    return there, [name for name in wanted if name not in there]
