"""From a plan to the objects that train it: module, optimiser, loader, trainer, and the model to evaluate."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from goodfit.artefacts.model_file import ModelFile
from goodfit.data.augment import Augmentation
from goodfit.data.loader import Loader
from goodfit.devices import Precision, sum_dtype
from goodfit.distributed import Ranks
from goodfit.errors import ConfigError
from goodfit.evaluation.evaluate import TrainedModel
from goodfit.evaluation.metrics import Evaluation
from goodfit.models.freezing import freeze_body
from goodfit.models.outputs import OutputMeaning
from goodfit.planning import Plan
from goodfit.randomness import reseed
from goodfit.training.ema import MovingAverage
from goodfit.training.losses import build_loss, class_weights
from goodfit.training.optimizers import build_optimizer
from goodfit.training.schedules import build_schedule
from goodfit.training.state import RunState
from goodfit.training.trainer import Trainer

__all__ = ["Session", "make_session"]

# Where the run was made does not belong in the model file: equal runs give equal files.
NOT_RECORDED = ("data.name", "data.root", "train.device", "train.threads", "data.processes", "data.budget", "data.timeout")


@dataclass(frozen=True)
class Session:
    """A plan with everything built; nothing has been written yet."""

    plan: Plan
    trainer: Trainer
    ranks: Ranks
    device: torch.device

    @property
    def state(self) -> RunState:
        """The run's state."""
        return self.trainer.state

    def trained_model(self) -> TrainedModel:
        """Return the model as it is now, to be evaluated."""
        dataset = self.plan.dataset
        return TrainedModel(
            module=self.state.evaluated_model,
            transform=dataset.transform,
            task=dataset.task,
            classes=dataset.classes,
            outputs=_meaning(self.plan),
            target_scale=dataset.target_scale,
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
        return {
            "data": plan.dataset.name,
            "fingerprint": plan.dataset.fingerprint,
            "examples": {name: len(split) for name, split in plan.dataset.splits.items()},
            "steps": self.state.step,
            "epochs": round(self.state.step / plan.steps_per_epoch, 6),
            "ranks": self.ranks.world,
            "configuration": settings,
        }


def _meaning(plan: Plan) -> OutputMeaning:
    if plan.dataset.task == "regression":
        return "value"
    return "one-logit" if plan.config.model.one_logit else "logits"


def make_session(plan: Plan, ranks: Ranks, stop_asked: Callable[[], bool]) -> Session:
    """Build everything that a plan asks for; raise InputError for what does not fit together."""
    config, dataset = plan.config, plan.dataset
    device, precision = torch.device(config.train.device), config.train.precision
    assert precision != "auto"
    _check_augmentation(plan)
    channels_last = len(dataset.transform.input_shape) == 3
    state = _make_state(plan, device, precision, channels_last)
    augmentation = Augmentation(**config.augment.model_dump())
    trainer = Trainer(
        state=state,
        loader=Loader(
            dataset.train, plan.batch_size, seed=config.train.seed, device=device, ranks=ranks, whole=augmentation.mixes
        ),
        transform=dataset.transform,
        augmentation=augmentation,
        loss=build_loss(
            dataset,
            one_logit=config.model.one_logit,
            label_smoothing=config.train.label_smoothing,
            weights=class_weights(config.train.class_weights, dataset, device),
        ),
        schedule=build_schedule(
            config.schedule.name, plan.total_steps, warmup=config.schedule.warmup, arguments=config.schedule.arguments
        ),
        seed=config.train.seed,
        num_classes=len(dataset.classes),
        total_steps=plan.total_steps,
        device=device,
        precision=precision,
        channels_last=channels_last,
        accumulate=config.train.accumulate,
        clip=config.train.clip,
        frozen=config.model.freeze,
        ranks=ranks,
        stop_asked=stop_asked,
    )
    return Session(plan, trainer, ranks, device)


def _make_state(plan: Plan, device: torch.device, precision: Precision, channels_last: bool) -> RunState:
    config = plan.config
    model = _make_module(plan).to(device)
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
    optimizer = build_optimizer(
        config.optim.name,
        model,
        lr=float(config.optim.lr or 0),
        momentum=config.optim.momentum,
        weight_decay=config.optim.weight_decay,
        arguments=config.optim.arguments,
        # A fused step that the scaler skips leaves momentum buffers uninitialised.
        fused=precision != "fp16",
    )
    return RunState(
        model=model,
        optimizer=optimizer,
        ema=MovingAverage(model, config.train.ema) if config.train.ema else None,
        scaler=torch.amp.GradScaler(device.type, enabled=precision == "fp16"),
        loss_sum=torch.zeros((), dtype=sum_dtype(device), device=device),
        weight_sum=torch.zeros((), dtype=sum_dtype(device), device=device),
    )


def _make_module(plan: Plan) -> nn.Module:
    if plan.start:
        model = plan.start.module()
        model.requires_grad_(True)
    else:
        reseed(plan.config.train.seed, "init")
        model = plan.architecture.build(pretrained=plan.config.model.pretrained)
    if plan.config.model.freeze:
        freeze_body(model)
    return model


def _check_augmentation(plan: Plan) -> None:
    shape = plan.dataset.transform.input_shape
    augment = Augmentation(**plan.config.augment.model_dump())
    if augment.needs_pictures and not (len(shape) == 3 and plan.dataset.transform.to_json()["kind"] == "image"):
        keys = [f"augment.{key}" for key, value in plan.config.augment if value and key != "mixup"]
        raise ConfigError(f"{', '.join(keys)} is for pictures, and {plan.dataset.name} has none; leave it out")
    if augment.mixes and plan.dataset.task == "regression":
        raise ConfigError("augment.mixup and augment.cutmix are for classes, and the target is a number; leave them out")
