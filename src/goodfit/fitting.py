"""The visible loop: what happens between two steps of a run, and when."""

import math
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from shlex import quote

import torch

from goodfit.artefacts.metrics_log import MetricsLog
from goodfit.artefacts.model_file import ModelFile
from goodfit.artefacts.records import (
    BackRecord,
    EndRecord,
    EvaluationRecord,
    HalvingRecord,
    NondeterministicRecord,
    Observer,
    Record,
    SkipRecord,
    TestRecord,
    TrainRecord,
    TroubleRecord,
)
from goodfit.artefacts.run import Run, line_of_test_use
from goodfit.artefacts.saver import Saver
from goodfit.data.dataset import SplitName
from goodfit.errors import DivergedError, NotFiniteError, OutOfMemoryError, RunError
from goodfit.evaluation.evaluate import EvaluationStopped, TrainedModel, evaluate
from goodfit.evaluation.metrics import Evaluation
from goodfit.files import PatientFile
from goodfit.recovery import find_bad_step, go_back, write_halvings
from goodfit.session import Session
from goodfit.training.state import Best, Halving, SkippedStep

__all__ = ["Fitting"]

MIN_SECONDS_BETWEEN_SAVES = 2.0  # of short epochs: waiting for the disk after each would take longer than they do
MAX_FAILED_SAVES, MAX_SECONDS_UNSAVED = 3, 600.0  # in a row
MAX_BAD_STEPS = 3  # in one run


@dataclass
class Fitting:
    """Trains a session into a run folder; with ranks, only the first writes and speaks."""

    session: Session
    run: Run
    log: MetricsLog | None  # of the first rank
    observers: Sequence[Observer]
    heard: Sequence[str] = ()  # operations without a deterministic form, as they are used
    seconds_before: float = 0.0
    started: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        self.state = self.session.state
        self.config = self.session.plan.config
        self.curve_split: SplitName = "val" if "val" in self.session.plan.dataset.splits else "test"
        self.tested: dict[int, Evaluation] = {}  # by its step, the last evaluation of a curve on the test split
        own, keep = self.session.plan.own, self.config.checkpoint.keep
        self.saver = Saver(self.run.checkpoints, self.log, keep, self.state, at_once=own.is_given) if self.log else None
        self.test_uses = PatientFile(self.run.path / "test_uses.jsonl" if self.log else Path(os.devnull))
        self.last_save = time.perf_counter()
        self.save_waits = False  # for the one that is being written
        self.failed_saves: list[float] = []  # when, in a row
        self.last_log = (self.state.step, self.started)

    def fit(self) -> bool:
        """Train until the epochs are done, early stopping, or a signal; return whether training ended.

        A step that makes the loss or the weights not finite is left out; one that memory does not suffice for is done in
        more parts. Raises DivergedError for the third of the first kind, and RunError where a step of one example at a time
        is too large or the disk does not take several saves in a row. What was saved before stays.
        """
        loader = self.session.trainer.loader
        with closing(self.saver) if self.saver else nullcontext(), closing(self.test_uses), closing(loader):
            reason = None
            while reason is None:
                try:
                    reason = self._train()
                    self._save_at_last()
                except NotFiniteError as error:
                    reason = None
                    self._leave_out(error)
                except OutOfMemoryError as error:
                    reason = None
                    self._halve(error)
                except torch.OutOfMemoryError as error:  # of the optimiser, or of an evaluation
                    raise RunError(
                        f"memory ran out beside the batch of step {self.state.step}, so smaller parts of it are no help; free some "
                        f"on {self.session.device}, then: goodfit resume {quote(str(self.run.path))}"
                    ) from error
            return reason != "a signal" and self._end(reason)

    def _train(self) -> str:
        """Do the steps that are left, and return why they ended."""
        state, per_epoch, log_steps = self.state, self.session.plan.steps_per_epoch, self.config.log.every_steps
        was_stopped = state.step % per_epoch == 0 and state.step > state.evaluated_step
        if was_stopped and not self._evaluate():
            return "a signal"
        if self._stops_early():
            return "early stopping"
        for step in self.session.trainer.steps():
            epoch_ends = state.step % per_epoch == 0
            if step.skipped:
                self._tell(SkipRecord(state.step, self._epoch(), step.skipped.examples))
            if state.halvings:
                self._tell_halvings(step.index)
            if self.heard:
                self._tell_nondeterministic()
            if epoch_ends or state.step % log_steps == 0:
                self._log_loss(step.learning_rate)
            if (epoch_ends and not self._evaluate()) or step.stop:
                return "a signal"
            if self._stops_early():
                return "early stopping"
            if self._save_is_due(epoch_ends):
                self._save()
        return "all epochs done"

    def _log_loss(self, learning_rate: float) -> None:
        """Read the loss of the steps since the last time."""
        step, now = self.state.step, time.perf_counter()
        loss = self.session.trainer.take_loss()
        examples = (step - self.last_log[0]) * self.session.plan.batch_size
        speed = examples / max(1e-9, now - self.last_log[1])
        self.last_log = (step, now)
        self._tell(TrainRecord(step, self._epoch(), loss, learning_rate, self._seconds(), speed))
        if self.saver:
            self.saver.prepare()

    def _evaluate(self) -> bool:
        """Evaluate at the end of an epoch, unless a signal prevents it; only the validation split chooses the best step."""
        state, plan = self.state, self.session.plan
        try:
            evaluation = self._measure(self.session.trained_model(), self.curve_split)
        except EvaluationStopped:
            return False
        validates = self.curve_split == "val"
        if not math.isfinite(evaluation.loss):
            raise NotFiniteError(f"the {self.curve_split} loss became {evaluation.loss} by step {state.step}")
        state.evaluated_step = state.step
        self.tested = {} if validates else {state.step: evaluation}
        better = validates and (state.best is None or evaluation.loss < state.best.loss)
        state.epochs_since_best = 0 if better or not validates else state.epochs_since_best + 1
        if better:
            state.best = Best(state.step, evaluation.loss)
        if state.schedule:
            state.schedule.after_evaluation(evaluation.loss)
        if self.saver:
            if not validates:
                self.test_uses.write(line_of_test_use("curve", state.step))
            self._settle()
            file = self.session.model_file(val=evaluation if validates else None)
            self.saver.hold(self.run.last, file)
            if better or not validates:
                self.saver.hold(self.run.model, file)
        self._tell(EvaluationRecord(state.step, state.step // plan.steps_per_epoch, evaluation, better, self._seconds()))
        self.last_log = (state.step, time.perf_counter())  # so that the next throughput is of training alone
        return True

    def _measure(self, model: TrainedModel, split: SplitName) -> Evaluation:
        splits = self.session.plan.dataset.splits
        return evaluate(model, splits[split], split, self.session.ranks, self.session.trainer.stop_asked)

    def _end(self, reason: str) -> bool:
        """Test the best model, write the result into its file, and say that training has ended; a signal may prevent it."""
        step = self.state.best.step if self.state.best else self.state.step
        file = ModelFile.load(self.run.model) if self.session.ranks.is_first else None
        try:
            evaluation = self.tested.get(step)
            if not evaluation:
                with self._best(file) as best:
                    evaluation = self._measure(best, "test")
        except EvaluationStopped:
            return False
        if file:
            self.test_uses.write(line_of_test_use("train", step))
            self.test_uses.sync()
            replace(file, test=evaluation.to_json()).save(self.run.model)
        self._tell(TestRecord(step, evaluation))
        self._tell(EndRecord(self.state.step, self._epoch(), reason, self._seconds()))
        return True

    @contextmanager
    def _best(self, file: ModelFile | None) -> Iterator[TrainedModel]:
        """Give the model the weights that the first rank's file holds, for a while: not every module can be copied."""
        self.state.wait_for_copy()  # of the weights as they are, which is saved
        model = self.session.trained_model()
        now = {name: tensor.clone() for name, tensor in model.module.state_dict().items()}
        try:
            if file:
                model.module.load_state_dict(file.tensors)
            self.session.ranks.share(model.module.state_dict().values())
            yield model
        finally:
            model.module.load_state_dict(now)

    def _stops_early(self) -> bool:
        patience = self.config.train.early_stopping
        return patience > 0 and self.state.epochs_since_best >= patience

    def _save_is_due(self, epoch_ends: bool) -> bool:
        """Whether to save after this step: at some steps exactly, otherwise as soon as the save before is written."""
        settings, waited = self.config.checkpoint, time.perf_counter() - self.last_save
        by_steps = settings.every_steps > 0 and self.state.step % settings.every_steps == 0
        exactly = by_steps or (epoch_ends and settings.keep in ("best", "all"))
        by_clock = settings.every_seconds > 0 and waited >= settings.every_seconds
        soon = by_clock or (epoch_ends and waited >= MIN_SECONDS_BETWEEN_SAVES) or self.save_waits
        self.save_waits = soon and not exactly and self.saver is not None and self.saver.is_busy
        return exactly or (soon and not self.save_waits)

    def _save(self) -> None:
        """Begin to save the state as it is now."""
        if self.saver:
            self._settle()
            self.saver.begin(self._seconds())
        self.last_save = time.perf_counter()

    def _settle(self) -> None:
        """Wait until nothing is being written; a save that failed is tried again when the next is due, but not for ever.

        Raises NotFiniteError for numbers that must not be saved, and RunError when too many saves have failed.
        """
        assert self.saver
        try:
            if self.saver.wait():
                self.failed_saves.clear()
        except NotFiniteError:
            # With ranks the others do not know: all of them will see it together in the next loss that is read.
            if self.session.ranks.world == 1:
                raise
        except RunError as error:
            self.failed_saves.append(time.perf_counter())
            if len(self.failed_saves) >= MAX_FAILED_SAVES or self.failed_saves[-1] - self.failed_saves[0] > MAX_SECONDS_UNSAVED:
                raise RunError(
                    f"{error}; that was save {len(self.failed_saves)} to fail in a row, and what was saved before is whole: "
                    f"goodfit resume {quote(str(self.run.path))}"
                ) from error
            self._tell(TroubleRecord(self.state.step, f"{error}; the next save tries again"))

    def _save_at_last(self) -> None:
        """Save, and return when it is done."""
        self._save()
        while self.saver:
            failed = len(self.failed_saves)
            self._settle()
            if len(self.failed_saves) <= failed:
                return
            self._save()

    def _tell_halvings(self, index: int) -> None:
        for halving in self.state.halvings:
            if halving.step == index:
                self._tell(HalvingRecord(self.state.step, self._epoch(), halving.accumulate))

    def _tell_nondeterministic(self) -> None:
        """Record each operation once in a run, whatever the number of its resumes."""
        for operation in self.heard:
            if operation not in self.state.nondeterministic:
                self.state.nondeterministic.append(operation)
                self._tell(NondeterministicRecord(self.state.step, self._epoch(), operation))

    def _leave_out(self, error: NotFiniteError) -> None:
        """Go back to the last good state and find the step to leave out from there; raise DivergedError if that is no help."""
        self._forget_saves()
        noticed, known, halvings = self.state.step, self.state.skipped_steps, self.state.halvings
        go_back(self.session, self.run, known, halvings)
        bad = find_bad_step(self.session, noticed)
        go_back(self.session, self.run, [*known, bad] if bad else known, halvings)
        if bad is None or len(known) + 1 >= MAX_BAD_STEPS:
            what = f"{len(known) + 1} steps did that" if bad else "no single step did it"
            raise DivergedError(
                f"{error}, and {what}; the run is good up to step {self.state.step}; try a lower learning rate (--lr), "
                "--set train.clip=1, or --set train.precision=fp32"
            ) from error
        self.last_log = (self.state.step, time.perf_counter())
        self._tell(BackRecord(self.state.step, self.state.log_length, f"{error}: {_said(bad)}"))

    def _halve(self, error: OutOfMemoryError) -> None:
        """Go back, to compute the batches from this step on in twice as many parts; raise RunError if they cannot be smaller."""
        self._forget_saves()
        trainer, step = self.session.trainer, self.state.step
        if trainer.micro_batch == 1:
            raise RunError(f"{error}; no less is possible: choose smaller inputs or a smaller model, and start a new run")
        halvings = [*self.state.halvings, Halving(step, 2 * trainer.parts)]
        if self.log:
            write_halvings(self.run, halvings)
        go_back(self.session, self.run, self.state.skipped_steps, halvings)
        self.last_log = (self.state.step, time.perf_counter())
        size = math.ceil(trainer.micro_batch * trainer.parts / halvings[-1].accumulate)
        self._tell(BackRecord(self.state.step, self.state.log_length, f"{error}: {size} from that step on"))

    def _forget_saves(self) -> None:
        """Drop what is not on disk, and wait for the other ranks, so that all go back to the same checkpoint."""
        if self.saver:
            self.saver.forget()
        self.session.ranks.wait()

    def _epoch(self) -> float:
        return self.state.step / self.session.plan.steps_per_epoch

    def _seconds(self) -> float:
        return self.seconds_before + time.perf_counter() - self.started

    def _tell(self, record: Record) -> None:
        if self.log:
            self.log.observe(record)
        for observer in self.observers:
            observer.observe(record)


def _said(bad: SkippedStep) -> str:
    first, more = bad.examples[0], len(bad.examples) - 1
    return f"step {bad.step + 1} is left out ({first}" + (f" and {more} more examples)" if more else ")")
