"""Going back: what a run does when its loss or its weights are no longer finite.

A run is a function of its configuration, so the steps since the last checkpoint can be done again, this time reading each,
and the one that breaks the numbers is found and left out.
"""

import json

from goodfit.artefacts.checkpoint import newest_checkpoint
from goodfit.artefacts.run import Run
from goodfit.session import Session, make_session
from goodfit.training.state import SkippedStep

__all__ = ["find_bad_step", "go_back"]


def go_back(session: Session, run: Run, skipped: list[SkippedStep]) -> None:
    """Take the session back to the newest checkpoint, or to before its first step, with the steps to leave out from there."""
    checkpoint, _ = newest_checkpoint(run.checkpoints)
    if checkpoint:
        checkpoint.restore(session.state)
    else:
        start = make_session(session.plan, session.ranks, lambda: False).state
        session.state.load(start.tensors(), json.loads(json.dumps(start.values())))  # as a checkpoint would hold them
    session.state.skipped_steps = list(skipped)


def find_bad_step(session: Session, until: int) -> SkippedStep | None:
    """Repeat the steps up to number `until`; return the first whose loss, or the weights after it, are not finite."""
    for step in session.trainer.steps(until):
        if not session.trainer.is_finite(step):
            train = session.plan.dataset.train
            positions = session.trainer.loader.positions(step.index)
            return SkippedStep(step.index, tuple(train.name(position) for position in positions.tolist()))
    return None
