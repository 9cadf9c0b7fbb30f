"""Going back: what a run does when its numbers are no longer finite, or the device has too little memory for a step.

A run is a function of its configuration, so the steps since the last checkpoint can be done again: reading each, so that the
one that breaks the numbers is found and left out; or with fewer examples at a time from the step that was too large.
"""

import json
from dataclasses import asdict

import torch

from goodfit.artefacts.checkpoint import Checkpoint, newest_checkpoint
from goodfit.artefacts.run import HALVINGS, Run
from goodfit.errors import FileError
from goodfit.files import write_atomically
from goodfit.session import Session, make_state
from goodfit.training.state import Halving, SkippedStep

__all__ = ["find_bad_step", "go_back", "restore", "write_halvings"]


def restore(session: Session, run: Run) -> tuple[Checkpoint | None, list[str]]:
    """Load the newest complete checkpoint, if there is one, and what was journalled since into the session.

    Returns it, and what is wrong with those that are newer.
    """
    checkpoint, damage = newest_checkpoint(run.checkpoints)
    if checkpoint:
        checkpoint.restore(session.state)
    session.state.halvings = _read_halvings(run) or session.state.halvings
    return checkpoint, damage


def go_back(session: Session, run: Run, skipped: list[SkippedStep], halvings: list[Halving]) -> None:
    """Take the session back to the newest checkpoint, or to before its first step, with what is to change from there."""
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    checkpoint, _ = restore(session, run)
    if not checkpoint:
        start = make_state(session.plan, torch.device("cpu"))  # where there is memory for a second one
        session.state.load(start.tensors(), json.loads(json.dumps(start.values())))  # as a checkpoint would hold them
    session.state.skipped_steps = list(skipped)
    session.state.halvings = list(halvings)


def find_bad_step(session: Session, until: int) -> SkippedStep | None:
    """Repeat the steps up to number `until`; return the first whose loss, or the weights after it, are not finite."""
    for step in session.trainer.steps(until):
        if not session.trainer.is_finite(step):
            train = session.plan.dataset.train
            positions = session.trainer.loader.positions(step.index)
            return SkippedStep(step.index, tuple(train.name(position) for position in positions.tolist()))
    return None


def write_halvings(run: Run, halvings: list[Halving]) -> None:
    """Journal from which steps on the micro-batch is smaller: memory may suffice when they are repeated, and nothing may change."""
    write_atomically(run.path / HALVINGS, json.dumps([asdict(halving) for halving in halvings]))


def _read_halvings(run: Run) -> list[Halving]:
    path = run.path / HALVINGS
    if not path.exists():
        return []
    try:
        found = [Halving(int(each["step"]), int(each["accumulate"])) for each in json.loads(path.read_text(encoding="utf-8"))]
    except (LookupError, OSError, OverflowError, RecursionError, TypeError, ValueError) as error:
        raise FileError(f"cannot read {str(path)!r}: {error!s:.200}; was it changed by hand?") from error
    return found
