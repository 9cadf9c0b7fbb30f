"""Saving a run off its loop's path: a thread copies the state before the next update changes it, and writes the copy."""

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Literal

from goodfit.artefacts.checkpoint import Snapshot, remove_old, save_checkpoint
from goodfit.artefacts.host_copy import HostCopy
from goodfit.artefacts.metrics_log import MetricsLog
from goodfit.artefacts.model_file import ModelFile
from goodfit.artefacts.tensor_file import is_finite
from goodfit.errors import NotFiniteError, RunError
from goodfit.training.state import RunState

__all__ = ["Saver"]


class Saver:
    """Writes the checkpoints and model files of one run, one save at a time and in order.

    Between two updates most of a state does not change, so the thread copies it while the loop computes the next gradient;
    the update waits for it. With `at_once`, for code that may change anything at any time, the loop copies all of it itself.
    An error of the thread is raised by the next `wait`: RunError where the disk does not take a save, and
    NotFiniteError, before anything is written, for numbers that nobody wants to have saved.
    """

    def __init__(
        self, folder: Path, log: MetricsLog, keep: int | Literal["best", "all"], state: RunState, *, at_once: bool
    ) -> None:
        self._folder = folder
        self._state = state
        self._at_once = at_once
        self._log = log
        self._keep = keep
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="saver")
        self._writing: Future[None] | None = None
        self._copy = HostCopy()
        self._models: dict[Path, HostCopy] = {}
        self._waiting: dict[Path, ModelFile] = {}
        self._preparing: Future[None] | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a save is being written."""
        return self._writing is not None and not self._writing.done()

    def prepare(self) -> None:
        """Let the thread allocate the buffers for the state, once, so that the first save does not have to."""
        if self._preparing is None and self._writing is None:
            self._preparing = self._thread.submit(self._copy.prepare, self._state.tensors())

    def hold(self, path: Path, file: ModelFile) -> None:
        """Copy a model file's content, to be written to `path` with the next save; none may be being written."""
        copy = self._models.setdefault(path, HostCopy())
        now = None if self._at_once else [name.removeprefix("model.") for name in self._state.changed_by_passes()]
        self._waiting[path] = replace(file, tensors=copy.take(file.tensors, now))
        self._state.copying = self._thread.submit(copy.finish)

    def begin(self, seconds: float) -> None:
        """Copy the state, and let the thread write it with the model files that wait; none may be being written."""
        if self._preparing:
            self._preparing.result()
        state = self._state
        state.log_length = self._log.length
        now = None if self._at_once else state.changed_by_passes()
        snapshot = Snapshot.take(state, seconds, self._copy, now)
        state.copying = self._thread.submit(self._copy.finish)
        self._writing = self._thread.submit(self._write, snapshot, state.best.step if state.best else None)

    def wait(self) -> bool:
        """Return when nothing is being written, and whether something was; raise what went wrong."""
        writing, self._writing = self._writing, None
        if writing:
            writing.result()
        return writing is not None

    def forget(self) -> None:
        """Wait for the thread, whatever came of its save, and drop the model files that wait: the run goes back behind them."""
        with suppress(RunError):
            self.wait()
        self._waiting.clear()

    def close(self) -> None:
        """Wait for the thread to end."""
        self._thread.shutdown()

    def _write(self, snapshot: Snapshot, best_step: int | None) -> None:
        _check_finite(snapshot)
        self._log.sync()
        for path in list(self._waiting):
            self._waiting[path].save(path)
            del self._waiting[path]
        save_checkpoint(self._folder, snapshot)
        remove_old(self._folder, self._keep, best_step)


def _check_finite(snapshot: Snapshot) -> None:
    """Raise NotFiniteError naming the first of the weights, their average or the loss that is not finite."""
    for name, tensor in snapshot.tensors.items():
        if (name.startswith(("model.", "ema.")) or name == "loss_sum") and not is_finite(tensor):
            raise NotFiniteError(f"{name} is no longer finite at step {snapshot.step}")
