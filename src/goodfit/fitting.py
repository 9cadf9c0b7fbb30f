"""The visible loop: what happens between two steps of a run, and when."""

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path

from goodfit.artefacts.checkpoint import remove_old, save_checkpoint
from goodfit.artefacts.metrics_log import MetricsLog
from goodfit.artefacts.model_file import ModelFile
from goodfit.artefacts.records import EndRecord, EvaluationRecord, Observer, Record, TestRecord, TrainRecord
from goodfit.artefacts.run import Run
from goodfit.data.dataset import SplitName
from goodfit.errors import DivergedError
from goodfit.evaluation.evaluate import evaluate
from goodfit.session import Session
from goodfit.training.state import Best

__all__ = ["Fitting"]

MIN_SECONDS_BETWEEN_SAVES = 2.0  # of short epochs: waiting for the disk after each would take longer than they do


@dataclass
class Fitting:
    """Trains a session into a run folder; with ranks, only the first writes and speaks."""

    session: Session
    run: Run
    log: MetricsLog | None  # of the first rank
    observers: Sequence[Observer]
    seconds_before: float = 0.0
    started: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        self.state = self.session.state
        self.config = self.session.plan.config
        self.curve_split: SplitName = "val" if "val" in self.session.plan.dataset.splits else "test"
        self.last_save = time.perf_counter()
        self.unsaved: dict[Path, ModelFile] = {}  # model files that wait for the next save
        self.last_log = (self.state.step, self.started)

    def fit(self) -> bool:
        """Train until the epochs are done, early stopping, or a signal; return whether training ended.

        Raises DivergedError when the loss is no longer finite; what was saved before stays.
        """
        plan, state = self.session.plan, self.state
        reason = "early stopping" if self._stops_early() else "all epochs done"
        until = state.step if self._stops_early() else plan.total_steps
        for step in self.session.trainer.steps(until):
            epoch_ends = state.step % plan.steps_per_epoch == 0
            if epoch_ends or state.step % self.config.log.every_steps == 0:
                self._log_loss(step.learning_rate)
            if epoch_ends:
                self._evaluate()
            if step.stop or self._stops_early():
                reason = "a signal" if step.stop else "early stopping"
                break
            if self._save_is_due(epoch_ends):
                self._save()
        self._save()
        ended = reason != "a signal"
        if ended:
            self._test()
            self._tell(EndRecord(state.step, state.step / plan.steps_per_epoch, reason, self._seconds()))
        return ended

    def _log_loss(self, learning_rate: float) -> None:
        """Read the loss of the steps since the last time, and refuse to go on with one that is not finite."""
        step, now = self.state.step, time.perf_counter()
        loss = self.session.trainer.take_loss()
        _check_finite("training", loss, step)
        examples = (step - self.last_log[0]) * self.session.plan.batch_size
        speed = examples / max(1e-9, now - self.last_log[1])
        self.last_log = (step, now)
        self._tell(TrainRecord(step, step / self.session.plan.steps_per_epoch, loss, learning_rate, self._seconds(), speed))

    def _evaluate(self) -> None:
        """Evaluate at the end of an epoch; only the validation split chooses the best step."""
        state, plan = self.state, self.session.plan
        evaluation = evaluate(
            self.session.trained_model(), plan.dataset.splits[self.curve_split], self.curve_split, self.session.ranks
        )
        _check_finite("validation" if self.curve_split == "val" else "test", evaluation.loss, state.step)
        validates = self.curve_split == "val"
        better = validates and (state.best is None or evaluation.loss < state.best.loss)
        state.epochs_since_best = 0 if better or not validates else state.epochs_since_best + 1
        if better:
            state.best = Best(state.step, evaluation.loss)
        if self.session.ranks.is_first:
            if not validates:
                self.run.count_test_use("curve", state.step)
            file = self.session.model_file(val=evaluation if validates else None)
            self.unsaved[self.run.last] = file
            if better or not validates:
                self.unsaved[self.run.model] = file
        self._tell(EvaluationRecord(state.step, state.step // plan.steps_per_epoch, evaluation, better, self._seconds()))
        self.last_log = (state.step, time.perf_counter())  # so that the next throughput is of training alone

    def _test(self) -> None:
        """Test the best model, and write the result into its file."""
        file = ModelFile.load(self.run.model) if self.session.ranks.is_first else None
        now = self.session.trained_model()
        best = replace(now, module=copy.deepcopy(now.module))
        if file:
            best.module.load_state_dict(file.tensors)
        self.session.ranks.share(best.module.state_dict().values())
        evaluation = evaluate(best, self.session.plan.dataset.splits["test"], "test", self.session.ranks)
        step = self.state.best.step if self.state.best else self.state.step
        if file:
            self.run.count_test_use("train", step)
            replace(file, test=evaluation.to_json()).save(self.run.model)
        self._tell(TestRecord(step, evaluation))

    def _stops_early(self) -> bool:
        patience = self.config.train.early_stopping
        return patience > 0 and self.state.epochs_since_best >= patience

    def _save_is_due(self, epoch_ends: bool) -> bool:
        settings, waited = self.config.checkpoint, time.perf_counter() - self.last_save
        by_steps = settings.every_steps > 0 and self.state.step % settings.every_steps == 0
        by_clock = settings.every_seconds > 0 and waited >= settings.every_seconds
        by_epoch = epoch_ends and (waited >= MIN_SECONDS_BETWEEN_SAVES or settings.keep in ("best", "all"))
        return by_steps or by_clock or by_epoch

    def _save(self) -> None:
        """Write the model files and then a checkpoint, and remove those that are not to be kept."""
        if self.log:
            _check_finite("training", float(self.state.loss_sum), self.state.step)  # before a good checkpoint makes way
            for path, file in self.unsaved.items():
                file.save(path)
            self.unsaved.clear()
            self.state.log_length = self.log.length()
            save_checkpoint(self.run.checkpoints, self.state, self._seconds())
            remove_old(self.run.checkpoints, self.config.checkpoint.keep, self.state.best.step if self.state.best else None)
        self.last_save = time.perf_counter()

    def _seconds(self) -> float:
        return self.seconds_before + time.perf_counter() - self.started

    def _tell(self, record: Record) -> None:
        if self.log:
            self.log.observe(record)
        for observer in self.observers:
            observer.observe(record)


def _check_finite(name: str, loss: float, step: int) -> None:
    if not isfinite(loss):
        raise DivergedError(
            f"the {name} loss became {loss} by step {step}; try a lower learning rate (--lr), "
            "--set train.clip=1, or --set train.precision=fp32"
        )
