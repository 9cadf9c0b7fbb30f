"""From a plan to the objects that train it: module, optimiser, loader, trainer, and the model to evaluate."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from goodfit.artefacts.model_file import ModelFile
from goodfit.artefacts.run import model_path
from goodfit.data.augment import Augmentation
from goodfit.data.dataset import Dataset, SplitName
from goodfit.data.examples import Examples
from goodfit.data.image_transform import ImageTransform
from goodfit.data.stream import StreamLoader, first_examples, make_loader
from goodfit.devices import sum_dtype
from goodfit.distributed import Ranks
from goodfit.errors import ConfigError, DataError, DeviceError, ModelError, in_python_words, unknown_name
from goodfit.evaluation.evaluate import TrainedModel, evaluate
from goodfit.evaluation.metrics import Evaluation
from goodfit.models import fit_first_layer, may_draw
from goodfit.planning import Plan
from goodfit.rehearsal import build_own_loss, build_parts, make_optimizer
from goodfit.training.ema import MovingAverage
from goodfit.training.losses import Loss, build_loss, class_weights
from goodfit.training.own import OwnSchedule, checked_factor, is_schedule_of_steps
from goodfit.training.schedules import Schedule, build_schedule, constant
from goodfit.training.state import RunState
from goodfit.training.trainer import Step, Trainer
from goodfit.training.updates import make_update
from goodfit.user_code import blame, said

__all__ = ["Session", "make_session", "make_state"]

# Where the run was made does not belong in the model file: equal runs give equal files.
NOT_RECORDED = ("data.name", "data.root", "train.device", "train.threads", "data.processes", "data.budget", "data.timeout")


FITTED_ON = 500  # examples, of a first layer that follows the data


@dataclass(frozen=True, repr=False)
class Session:
    """A plan with everything built; nothing has been written yet."""

    plan: Plan
    trainer: Trainer
    ranks: Ranks
    device: torch.device

    def __repr__(self) -> str:
        return f"Session({self.plan.dataset.name}, {self.plan.architecture.name}): step {self.state.step} of {self.total_steps}"

    @property
    def state(self) -> RunState:
        """The run's state."""
        return self.trainer.state

    @property
    def model(self) -> nn.Module:
        """The module that is trained."""
        return self.state.model

    @property
    def total_steps(self) -> int:
        """Updates of the whole run."""
        return self.plan.total_steps

    def steps(self, until: int | None = None) -> Iterator[Step]:
        """Perform one optimiser step per turn, up to step number `until` or the run's last, and yield each.

        Raises ConfigError for a number beyond the run's last step, after which there is no learning rate.
        """
        with in_python_words():
            if until is not None:
                _check_number("until", until)
                if until > self.total_steps:
                    raise ConfigError(f"until = {until} is beyond the run's {self.total_steps} steps; give it more --epochs")
        take = in_python_words()(partial(next, self.trainer.steps(until), None))
        return iter(take, None)  # nothing is held open between two steps: they may be left where they are

    @in_python_words()
    def set_learning_rate(self, rate: float) -> None:
        """Make `rate` the learning rate of what is to come, which the schedule goes on to scale.

        Raises ConfigError for what is no number from 0 on.
        """
        if not isinstance(rate, Real) or not 0 <= rate < math.inf:
            raise ConfigError(f"{rate!r:.80} is no learning rate; give a number from 0 on")
        self.trainer.set_learning_rate(rate)

    @in_python_words()
    def evaluate(self, split: SplitName = "val") -> Evaluation:
        """Measure the model as it is now on a split; raise ConfigError where the data have none of that name."""
        if split not in self.plan.dataset.splits:
            raise ConfigError(unknown_name("split", split, self.plan.dataset.splits))
        return evaluate(self.trained_model(), self.plan.dataset.splits[split], split, self.ranks)

    @in_python_words()
    def pictures(self, step: int = 0) -> tuple[Tensor, list[str]]:
        """Return the pictures (N, C, H, W) that the model sees at a step, from 0 to 1, and the name of what each shows.

        Raises DataError for data that are no pictures, and ConfigError for what is no step.
        """
        dataset = self.plan.dataset
        _check_number("step", step)
        inputs, targets = self.trainer.batch(step)
        if not isinstance(inputs, Tensor) or inputs.ndim != 4 or inputs.shape[1] not in (1, 3):
            raise DataError(f"{dataset.name} has no pictures: its examples are {dataset.transform.input_shape}; give some")
        if isinstance(dataset.transform, ImageTransform):
            return dataset.transform.undo(inputs).cpu(), _named(targets, dataset.classes)
        low, high = inputs.min(), inputs.max()  # how they were normalised is not known
        return ((inputs - low) / (high - low).clamp(min=1e-12)).cpu(), _named(targets, dataset.classes)

    @in_python_words(out="path=")
    def save(self, path: str | Path) -> Path:
        """Write the model as it is now to a model file, and return its path."""
        target = model_path(path)
        self.model_file(val=None).save(target)
        return target

    def trained_model(self) -> TrainedModel:
        """Return the model as it is now, to be evaluated."""
        dataset = self.plan.dataset
        return TrainedModel(
            module=self.state.evaluated_model,
            transform=dataset.transform,
            task=dataset.task,
            classes=dataset.classes,
            outputs=self.plan.outputs,
            target_scale=self.plan.target_scale,
            precision=self.trainer.precision,
            device=self.device,
            channels_last=self.trainer.channels_last,
        )

    def model_file(self, val: Evaluation | None, test: Evaluation | None = None) -> ModelFile:
        """Return the model as it is now, as a file's content; its tensors are the model's own, which later steps change."""
        model = self.trained_model()
        return ModelFile(
            task=model.task,
            architecture=self.plan.architecture,
            outputs=model.outputs,
            precision=model.precision,
            transform=model.transform,
            classes=model.classes,
            target_scale=model.target_scale,
            tensors={name: tensor.detach() for name, tensor in model.module.state_dict().items()},
            training=self._training_record(),
            val=val.to_json() if val else None,
            test=test.to_json() if test else None,
        )

    def _training_record(self) -> dict[str, Any]:
        plan = self.plan
        settings = {key: value for key, value in plan.config.flat().items() if key not in NOT_RECORDED}
        inputs = plan.dataset.train.inputs
        order = inputs.sampling.order if isinstance(inputs, Examples) else ""
        return {
            "data": plan.dataset.name,
            "fingerprint": plan.dataset.fingerprint,
            "examples": {name: len(split) for name, split in plan.dataset.splits.items()},
            "steps": self.state.step,
            "epochs": round(self.state.step / plan.steps_per_epoch, 6),
            "ranks": self.ranks.world,
            "configuration": settings,
        } | ({"order": order} if order else {})


def _named(targets: Tensor, classes: tuple[str, ...]) -> list[str]:
    """Say what each target is: a class, a number, or the shares of mixed classes."""
    if not classes:
        return [f"{value:.4g}" for value in targets.tolist()]
    if targets.ndim == 1:
        return [classes[index] for index in targets.tolist()]
    mixed = [sorted(zip(shares, classes, strict=True), reverse=True)[:2] for shares in targets.tolist()]
    return [", ".join(f"{name} ({share:.0%})" for share, name in parts if share > 0) for parts in mixed]


def _check_number(name: str, steps: int) -> None:
    if not isinstance(steps, Integral) or steps < 0:
        raise ConfigError(f"{name} = {steps!r:.80} is no number of steps; give a whole number from 0 on")


def make_session(plan: Plan, ranks: Ranks, stop_asked: Callable[[], bool]) -> Session:
    """Build everything that a plan asks for; raise InputError for what does not fit together."""
    config, dataset = plan.config, plan.dataset
    device, precision = torch.device(config.train.device), config.train.precision
    assert precision != "auto"
    _check_augmentation(plan)
    channels_last = plan.architecture.channels_last
    state = make_state(plan, device)
    augmentation = Augmentation(**config.augment.model_dump())
    loader = make_loader(
        dataset.train,
        plan.batch_size,
        seed=config.train.seed,
        device=device,
        ranks=ranks,
        whole=augmentation.mixes,
        prepare=dataset.transform.normalize if augmentation.is_nothing else None,
    )
    state.reader = loader if isinstance(loader, StreamLoader) else None
    trainer = Trainer(
        state=state,
        loader=loader,
        transform=dataset.transform,
        augmentation=augmentation,
        loss=_make_loss(plan, device),
        schedule=_make_schedule(plan),
        seed=config.train.seed,
        num_classes=len(dataset.classes),
        total_steps=plan.total_steps,
        device=device,
        precision=precision,
        channels_last=channels_last,
        accumulate=config.train.accumulate,
        clip=config.train.clip,
        frozen=config.model.freeze,
        draws=plan.own.is_given or may_draw(plan.architecture.name, state.model),
        reseeds_libraries=plan.own.model is not None or plan.own.loss is not None,
        ranks=ranks,
        stop_asked=stop_asked,
        make_update=make_update,
    )
    return Session(plan, trainer, ranks, device)


def make_state(plan: Plan, device: torch.device) -> RunState:
    """Return the state of a plan's run before its first step."""
    config, own, precision = plan.config, plan.own, plan.config.train.precision
    inputs, _ = first_examples(plan.dataset, 1, config.train.seed)
    parts = build_parts(own, config, inputs, plan.start, plan.architecture)
    if plan.start is None and not plan.own.model:
        fit_first_layer(plan.architecture.name, parts.module, lambda: _some_inputs(plan.dataset))
    try:
        model = parts.module.to(device)
    except torch.OutOfMemoryError as error:
        raise DeviceError(
            f"the model {plan.architecture.name} does not fit into the memory of {device}; choose another"
        ) from error
    if plan.architecture.channels_last:
        model = model.to(memory_format=torch.channels_last)
    optimizer = make_optimizer(own, replace(parts, module=model), config)
    has_schedule = own.schedule is not None and not is_schedule_of_steps(own.schedule)
    return RunState(
        model=model,
        optimizer=optimizer,
        ema=_make_average(model, config.train.ema) if config.train.ema else None,
        scaler=torch.amp.GradScaler(device.type, enabled=precision == "fp16"),
        loss_sum=torch.zeros((), dtype=sum_dtype(device), device=device),
        weight_sum=torch.zeros((), dtype=sum_dtype(device), device=device),
        schedule=OwnSchedule(parts.schedule, optimizer) if has_schedule else None,
    )


def _make_average(model: nn.Module, decay: float) -> MovingAverage:
    try:
        return MovingAverage(model, decay)
    except Exception as error:
        message = f"{type(model).__name__} cannot be copied ({said(error)}), and train.ema averages the weights of a copy; leave it out"
        raise blame(ModelError(message), error) from error


def _some_inputs(dataset: Dataset) -> Tensor:
    """Return training examples (N, ...) from all over the split, as the model sees them."""
    split = dataset.train
    rows = split.rows[:: max(1, len(split) // FITTED_ON)][:FITTED_ON]
    if isinstance(split.inputs, Examples):
        inputs, _ = split.inputs.head(rows.tolist(), FITTED_ON, 0)
        assert isinstance(inputs, Tensor)
        return inputs
    inputs = dataset.transform.normalize(split.inputs.index_select(0, rows.to(split.inputs.device)).cpu())
    assert isinstance(inputs, Tensor)
    return inputs


def _make_loss(plan: Plan, device: torch.device) -> Loss:
    if plan.own.loss is not None:
        return build_own_loss(plan.own, plan.config, plan.dataset, plan.outputs, device)
    settings = plan.config.train
    weights = class_weights(settings.class_weights, plan.dataset, device)
    return build_loss(
        plan.dataset, outputs=plan.outputs, label_smoothing=settings.label_smoothing, weights=weights, scale=plan.target_scale
    )


def _make_schedule(plan: Plan) -> Schedule:
    settings, own = plan.config.schedule, plan.own.schedule
    if own is None:
        return build_schedule(settings.name, plan.total_steps, warmup=settings.warmup, arguments=settings.arguments)
    return checked_factor(own, []) if is_schedule_of_steps(own) else constant


def _check_augmentation(plan: Plan) -> None:
    shape = plan.dataset.transform.input_shape
    augment = Augmentation(**plan.config.augment.model_dump())
    if isinstance(plan.dataset.train.inputs, Examples) and (augment.needs_pictures or augment.mixes):
        keys = [f"augment.{key}" for key, value in plan.config.augment if value and key != "fill"]
        raise ConfigError(f"{', '.join(keys)}: {plan.dataset.name} prepares its examples by its own code; change them there")
    if augment.needs_pictures and not (len(shape) == 3 and plan.dataset.transform.to_json()["kind"] == "image"):
        keys = [f"augment.{key}" for key, value in plan.config.augment if value and key not in ("mixup", "fill")]
        raise ConfigError(f"{', '.join(keys)} is for pictures, and {plan.dataset.name} has none; leave it out")
    if augment.mixes and plan.dataset.task == "regression":
        raise ConfigError("augment.mixup and augment.cutmix are for classes, and the target is a number; leave them out")
