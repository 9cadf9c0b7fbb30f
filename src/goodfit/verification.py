"""Proving that a run repeats: its checkpoints' sums, and a replay from each of them to the next, compared bit for bit."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import load_file

from goodfit.artefacts.checkpoint import Checkpoint, whole_checkpoints
from goodfit.artefacts.metrics_log import MetricsLog
from goodfit.artefacts.run import HALVINGS, START, Run
from goodfit.devices import computing
from goodfit.distributed import Ranks
from goodfit.errors import FileError
from goodfit.fitting import Fitting
from goodfit.planning import Plan
from goodfit.recovery import restore
from goodfit.session import make_session

__all__ = ["Verification", "verify_run"]

COPIED = ("config.toml", "environment.json", START, HALVINGS, "metrics.jsonl")


@dataclass(frozen=True)
class Verification:
    """What was found: damaged checkpoints, the stretches of steps that were replayed, and the first difference."""

    damage: tuple[str, ...]
    replayed: tuple[tuple[int, int], ...]
    difference: str | None

    @property
    def holds(self) -> bool:
        """Whether every checkpoint is whole and every replay ended with the same bytes."""
        return not self.damage and self.difference is None

    def to_json(self) -> dict[str, Any]:
        """Return the object that `goodfit resume --verify --json` prints."""
        stretches = [list(stretch) for stretch in self.replayed]
        return {"verified": self.holds, "damage": list(self.damage), "replayed": stretches, "difference": self.difference}


def verify_run(run: Run, plan: Plan) -> Iterator[str | Verification]:
    """Check and replay a run in a scratch folder beside it; yield a line for each thing that is begun, and then the result.

    With one checkpoint the replay is from step 0. Raises FileError for a run without a whole checkpoint.
    """
    whole, damage = whole_checkpoints(run.checkpoints)
    if not whole:
        raise FileError(f"{str(run.path)!r} has no whole checkpoint to verify; go on with it: goodfit resume {run.path}")
    starts: list[Checkpoint | None] = [None, *whole] if len(whole) == 1 else [*whole]
    replayed: list[tuple[int, int]] = []
    difference = None
    for start, end in pairwise(starts):
        assert end
        first = start.step if start else 0
        yield f"replaying steps {first:,} to {end.step:,}"
        with _scratch(run, start) as folder:
            difference = _replay(folder, plan, end)
        replayed.append((first, end.step))
        if difference:
            break
    yield Verification(tuple(damage), tuple(replayed), difference)


@contextmanager
def _scratch(run: Run, start: Checkpoint | None) -> Iterator[Path]:
    """Yield a run folder that is as the run's was when it had come to `start`."""
    with TemporaryDirectory(dir=run.path.parent, prefix=f".{run.path.name}.verify.") as name:
        folder = Path(name)
        for file in COPIED:
            if (run.path / file).exists():
                shutil.copyfile(run.path / file, folder / file)
        if start:
            shutil.copytree(start.path, folder / "checkpoints" / start.path.name)
        yield folder


def _replay(folder: Path, plan: Plan, end: Checkpoint) -> str | None:
    """Train in `folder` up to the step of `end`; return what differs from it, None if nothing does."""
    run = Run(folder)
    evaluated = json.loads((end.path / "state.json").read_text(encoding="utf-8"))["evaluated_step"]

    def stop_asked() -> bool:
        """In the last step, not in the evaluation before it; and in the evaluation after it, if none was done there."""
        state = session.state
        is_evaluating = state.step % plan.steps_per_epoch == 0 and state.evaluated_step < state.step
        return state.evaluated_step >= evaluated if state.step >= end.step else state.step == end.step - 1 and not is_evaluating

    session = make_session(plan, Ranks(), stop_asked)
    restore(session, run)
    log = MetricsLog(folder / "metrics.jsonl", session.state.log_length)
    settings = plan.config.train
    try:
        with computing(session.device, settings.threads, settings.deterministic) as heard:
            Fitting(session, run, log, [], heard).fit()
    finally:
        log.close()
    return _difference(end.path, run.checkpoints / end.path.name)


def _difference(one: Path, other: Path) -> str | None:
    """Return the name of the first tensor, or else the first value, in which two checkpoints differ."""
    tensors, replayed = load_file(one / "state.safetensors"), load_file(other / "state.safetensors")
    for name in sorted(tensors.keys() | replayed.keys()):
        if name not in tensors or name not in replayed or not _same_bits(tensors[name], replayed[name]):
            return f"{name} at {one.name}"
    values, repeated = (json.loads((path / "state.json").read_text(encoding="utf-8")) for path in (one, other))
    # The log's lines hold times, some of which are longer to write; what is read says where it is in its own words.
    for name in values.keys() - {"log_length", "reader"}:
        if values[name] != repeated.get(name):
            return f"{name} at {one.name}"
    return None


def _same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    alike = (one.shape, one.dtype) == (other.shape, other.dtype)
    return alike and torch.equal(one.reshape(-1).view(torch.uint8), other.reshape(-1).view(torch.uint8))
