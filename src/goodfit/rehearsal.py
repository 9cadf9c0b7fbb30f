"""Code of the user's own, tried on a few examples before anything is written: what it is, and that it fits the data."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from goodfit.artefacts.model_file import Architecture, ModelFile
from goodfit.config import Config
from goodfit.data.dataset import Dataset
from goodfit.data.stream import batches_per_epoch, first_examples
from goodfit.data.tensor_transform import TensorTransform
from goodfit.errors import ConfigError, ModelError
from goodfit.inputs import Inputs, apply, call
from goodfit.models.freezing import freeze_body, freeze_parts, frozen_parts
from goodfit.models.outputs import OutputMeaning, num_columns, prediction_of
from goodfit.models.own import load_weights, plain_tensors
from goodfit.models.probing import Probe, materialize, probe
from goodfit.models.sequential import NotDescribable, describe_layers
from goodfit.randomness import reseed
from goodfit.training.losses import CrossEntropy, Loss, build_loss, class_weights
from goodfit.training.optimizers import build_optimizer
from goodfit.training.own import (
    OwnCode,
    OwnLoss,
    OwnSchedule,
    build_own_optimizer,
    checked_factor,
    is_schedule_of_steps,
    wanted_outputs,
)
from goodfit.user_code import code_name, source_of

__all__ = ["Parts", "Rehearsal", "build_own_loss", "build_parts", "make_optimizer", "rehearse", "self_test"]

EXAMPLES = 4  # that a module is tried on
OF_SHAPES = re.compile(r"shape|size|dimension|channels")  # what torch says where they do not fit
MOST_NAMED = 3
FAR_FROM_ONE = 0.01  # of what an example's probabilities come to
LARGE = 10.0  # mean or deviation of targets that most models are slow to reach


@dataclass(frozen=True)
class Parts:
    """A module as it is before the first step, with the optimiser and schedule that were given for it, if any were."""

    module: nn.Module
    optimizer: Any
    schedule: Any


@dataclass(frozen=True)
class Rehearsal:
    """What a trial has shown: how files speak of the model, and configuration values that only it can tell."""

    architecture: Architecture
    classes: tuple[str, ...]
    values: dict[str, Any]
    notes: tuple[str, ...]


def self_test(own: OwnCode, config: Config, start: ModelFile | None, classes: Sequence[str], inputs: Inputs) -> None:
    """Send a batch through the user's module before the data are read; nothing of it is kept.

    `classes` are those of the data, none where they are not known yet. Raises ModelError where the shape of the inputs does not
    fit the module, with the layer's name, or where it gives another number of outputs. Whatever else fails may do so for these
    inputs alone, and is left to the rehearsal on real ones.
    """
    inputs = apply(lambda tensor: tensor[:EXAMPLES], inputs)
    name = config.model.name.rpartition(":")[2]
    try:
        columns = probe(build_parts(replace(own, copies=True), config, inputs, start, None).module, inputs, name).columns
    except ModelError as error:
        if type(error.__cause__) is RuntimeError and OF_SHAPES.search(str(error.__cause__)):
            raise
        return
    may_be_more = columns > len(classes) and _are_counted(classes)
    if classes and columns != len(classes) and not may_be_more and (columns, len(classes)) != (1, 2):
        raise ModelError(
            f"{_gives(name, columns)}, and there are {len(classes)} classes: its last layer must give {len(classes)}"
        )


def rehearse(
    own: OwnCode, config: Config, dataset: Dataset, start: ModelFile | None, architecture: Architecture | None
) -> Rehearsal:
    """Build what the user's code makes, and send a few examples through model and loss; nothing of it is kept.

    `architecture` is that of a model that is not the user's own. Raises ModelError where model and data do not fit together,
    and ConfigError where loss, optimiser or schedule do not.
    """
    inputs, targets = first_examples(dataset, EXAMPLES, config.train.seed)
    parts = build_parts(replace(own, copies=True), config, inputs, start, architecture)
    module, name = parts.module, config.model.name.rpartition(":")[2]
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise ModelError(f"every parameter of {name} is frozen, so nothing would learn; leave some with requires_grad=True")
    found = probe(module, inputs, name)
    dataset, notes = _widened(dataset, found.columns, name)
    meaning = _meaning(own, config, dataset, found)
    _check_columns(name, found.columns, meaning, dataset, config.train.loss)
    _check_total(name, found, meaning)
    notes += _try_optimizer(own, parts, config, dataset)
    if own.loss is not None:
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            outputs = call(module.eval(), inputs)
        notes += _try_loss(own, config, dataset, meaning, outputs, targets)
    notes += _unused(found, module)
    notes += _outside_of_files(module, name) if own.model else []
    values: dict[str, Any] = {"model.outputs": meaning}
    if own.model:
        architecture, why_code = _architecture(own, config, dataset, found.columns, module)
        notes += own.model.notes
        notes += _changed(start, module) if start else _told_once(module, architecture, why_code, dataset)
        values |= {"model.name": architecture.name, "model.frozen": _frozen(config, module)}
        values |= {f"model.{key}": value for key, value in architecture.arguments.items()}
    assert architecture
    return Rehearsal(architecture, dataset.classes, values, tuple(notes))


def _try_optimizer(own: OwnCode, parts: Parts, config: Config, dataset: Dataset) -> list[str]:
    """Build optimiser and schedule, if one is the user's own; return what is to be known of them.

    Raises ConfigError where they do not fit the model or the run.
    """
    if own.optimizer is None and own.schedule is None:
        return []
    optimizer = make_optimizer(own, parts, config)
    if own.schedule is not None:
        if not is_schedule_of_steps(own.schedule):
            OwnSchedule(parts.schedule, optimizer).check_length(_total_steps(config, dataset))
        _check_schedule(own, config, dataset)
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    left = [key for key, each in parts.module.named_parameters() if each.requires_grad and id(each) not in held]
    return [f"{_named(left)}: not among what the optimiser was given, so it will not learn"] if left else []


def _try_loss(
    own: OwnCode, config: Config, dataset: Dataset, meaning: OutputMeaning, outputs: Any, targets: torch.Tensor
) -> list[str]:
    """Call the user's loss once; return what is to be known of it."""
    loss = build_own_loss(own, config, dataset, meaning, torch.device("cpu"))
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        total = loss.total(outputs, targets)
    if prediction_of(outputs).requires_grad and not total.requires_grad:
        raise ConfigError(
            f"the loss {config.train.loss} has no gradient, so nothing would learn; is a result detached, or made a number by .item()?"
        )
    if isinstance(loss, CrossEntropy) and not loss.label_smoothing and loss.class_weights is None:
        return []
    plain = "cross-entropy" if dataset.classes else "squared error"
    measured = "val loss, which chooses the best epoch, and test loss are" if "val" in dataset.splits else "test loss is"
    return [f"your loss is what training makes small; {measured} the plain {plain}"]


def _told_once(module: nn.Module, architecture: Architecture, why_code: str, dataset: Dataset) -> list[str]:
    """Return what is to be known of a model of the user's own that is trained from its beginning."""
    notes, name = [], type(module).__name__
    if why_code:
        notes.append(f"the Sequential cannot be stored as its layers, so its model file will ask for code: {why_code}")
    elif architecture.is_code:
        where = "" if architecture.name.startswith("__main__") else f"--model {architecture.name}, in Python "
        notes.append(f"the model file will ask for your code where it is used: {where}model=")
    if isinstance(dataset.transform, TensorTransform) and not dataset.transform.is_identity:
        notes.append(
            f"{name} is given numbers of mean 0 and deviation 1, which a predictor sees to; as they are: a TensorDataset, or "
            "transform.mean=0 and transform.std=1"
        )
    if dataset.task == "regression":
        mean, deviation = float(dataset.train.targets.mean()), float(dataset.train.targets.std())
        if max(abs(mean), deviation) > LARGE:
            notes.append(
                f"the targets have mean {mean:.3g} and deviation {deviation:.3g}, and {name} is given them as they are: most "
                "models learn faster from targets near 0 and 1, such as (y - mean) / deviation"
            )
    return notes


def build_parts(
    own: OwnCode, config: Config, inputs: Inputs, start: ModelFile | None, architecture: Architecture | None
) -> Parts:
    """Build the module on the CPU, or copy the user's, with the weights of `start` if there is one, and freeze what is to be."""
    module, optimizer, schedule = own.built_together()
    if own.model is None:
        assert architecture
        reseed(config.train.seed, "init")
        module = start.module() if start else architecture.build(pretrained=config.model.pretrained)
        module.requires_grad_(True)
    else:
        if module is None:
            reseed(config.train.seed, "init", libraries=True)
            module = start.module() if start and not start.architecture.is_code else own.model.build(own.arguments)
        elif not start and own.arguments:
            key = min(own.arguments)
            raise ConfigError(f"model.{key} is for a model that is still to be built, and this one is built; leave it out")
        materialize(module, inputs, own.model.name)
        if start:
            load_weights(module, start.tensors, own.model.name)
    freeze_parts(module, config.model.frozen)
    if config.model.freeze:
        freeze_body(module)
    return Parts(module, optimizer, schedule)


def _frozen(config: Config, module: nn.Module) -> list[str]:
    """Return what of the module is not trained: what was asked for, and what came so."""
    if config.model.freeze:
        return config.model.frozen
    below = tuple(f"{name}." for name in config.model.frozen)
    return [
        *config.model.frozen,
        *(name for name in frozen_parts(module) if not name.startswith(below) and name not in config.model.frozen),
    ]


def make_optimizer(own: OwnCode, parts: Parts, config: Config) -> Optimizer:
    """Return the optimiser over the module's parameters: the user's, or the one that is named."""
    settings = config.optim
    if own.optimizer is not None:
        return build_own_optimizer(parts.optimizer, parts.module, settings)
    return build_optimizer(
        settings.name,
        parts.module,
        lr=float(settings.lr or 0),
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        arguments=settings.arguments,
        precision=config.train.precision,
    )


def build_own_loss(own: OwnCode, config: Config, dataset: Dataset, meaning: OutputMeaning, device: torch.device) -> Loss:
    """Return the user's loss; torch's cross-entropy of class indices becomes ours, which any cut of a batch adds up to.

    Raises ConfigError for settings that a loss of the user's own has no place for.
    """
    loss = own.loss
    assert loss is not None
    for key, value in (("label_smoothing", config.train.label_smoothing), ("class_weights", config.train.class_weights)):
        if value not in (0.0, "none"):
            raise ConfigError(f"train.{key} = {value!r} has no effect on a loss of your own; set it there, or leave loss= out")
    if type(loss) is nn.CrossEntropyLoss and loss.reduction == "mean" and loss.ignore_index < 0 and dataset.classes:
        weights = None if loss.weight is None else class_weights(loss.weight.tolist(), dataset, device)
        return build_loss(dataset, outputs=meaning, label_smoothing=loss.label_smoothing, weights=weights)
    if isinstance(loss, nn.Module):
        if any(True for _ in loss.parameters()):
            raise ConfigError(f"the loss {type(loss).__name__} has parameters, which nothing would train; make them buffers")
        loss = loss.to(device)
    return OwnLoss(loss, config.train.loss)


def _meaning(own: OwnCode, config: Config, dataset: Dataset, found: Probe) -> OutputMeaning:
    """Say what the outputs mean, by what was asked for, else by the loss and the last operation, which have to agree."""
    asked, wanted, name = config.model.outputs, wanted_outputs(own.loss), config.model.name.rpartition(":")[2]
    if dataset.task == "regression":
        if asked not in ("auto", "value") or wanted:
            what = f"model.outputs = {asked!r}" if asked not in ("auto", "value") else f"the loss {config.train.loss}"
            raise ConfigError(f"{what} is for classes, and {dataset.name} has a number to predict; leave it out")
        return "value"
    if asked == "value":
        raise ConfigError(f"model.outputs = 'value' is for numbers to predict, and {dataset.name} has classes; leave it out")
    if asked != "auto":
        return asked
    way_out = "or say what the outputs mean: --set model.outputs=..."
    if wanted in ("logits", "one-logit") and found.meaning == "probabilities":
        raise ModelError(
            f"{name} ends in a softmax or sigmoid, and the loss {config.train.loss} has its own: trained with both it learns "
            f"far less; leave the loss out, take the model's last operation away, {way_out}"
        )
    if wanted == "log-probabilities" and found.meaning != "log-probabilities":
        raise ModelError(
            f"the loss {config.train.loss} wants log-probabilities, and {name} does not end in log_softmax; add that, "
            f"leave the loss out, {way_out}"
        )
    if wanted and (wanted, found.meaning) != ("logits", "log-probabilities"):  # whose log-softmax changes nothing
        return wanted
    return found.meaning or ("one-logit" if found.columns == 1 and len(dataset.classes) == 2 else "logits")


def _widened(dataset: Dataset, columns: int, name: str) -> tuple[Dataset, list[str]]:
    """Return the data with as many classes as the model has outputs, where classes are counted and the last have no examples."""
    count = len(dataset.classes)
    if columns <= count or not _are_counted(dataset.classes):
        return dataset, []
    note = f"{name} tells {columns} classes apart, and {dataset.name} has examples of the first {count} only"
    return replace(dataset, classes=tuple(map(str, range(columns)))), [note]


def _are_counted(classes: Sequence[str]) -> bool:
    return len(classes) > 1 and list(classes) == [str(number) for number in range(len(classes))]


def _gives(name: str, columns: int) -> str:
    return f"{name} gives {columns} number{'s' if columns > 1 else ''} for each example"


def _check_columns(name: str, columns: int, meaning: OutputMeaning, dataset: Dataset, loss: str) -> None:
    wanted = num_columns(meaning, len(dataset.classes))
    if columns == wanted or (meaning == "probabilities" and columns == 1 and len(dataset.classes) == 2):
        return
    what = f"{len(dataset.classes)} classes" if dataset.classes else "one number to predict"
    gives = _gives(name, columns)
    if meaning == "one-logit" and columns > 1:
        raise ModelError(f"{gives}, and the loss {loss} wants one; for {what} use nn.CrossEntropyLoss(), or leave the loss out")
    if columns == wanted - 1 and dataset.classes[:1] == ("0",) and not (dataset.train.targets == 0).any():
        raise ModelError(f"{gives}, and the labels of {dataset.name} begin at 1: count them from 0, such as y - 1")
    classes = "" if dataset.classes or columns < 2 else "; if they are classes, give them as whole numbers"
    raise ModelError(f"{gives}, and {dataset.name} has {what}: its last layer must give {wanted}{classes}")


def _check_total(name: str, found: Probe, meaning: OutputMeaning) -> None:
    if meaning == found.meaning and abs(found.total - 1) > FAR_FROM_ONE:
        raise ModelError(
            f"{name} gives each example {found.columns} {meaning} that come to {found.total:.3g} and not to 1; a softmax is over "
            "dim=1, and a sigmoid is for one number: leave the last operation out"
        )


def _changed(start: ModelFile, module: nn.Module) -> list[str]:
    """Say it where the class is not written as it was when its weights were saved."""
    written, found = start.architecture.source, source_of(type(module))
    if not written or not found or written.sha256 == found.sha256:
        return []
    return [f"{type(module).__name__} is not written as it was when the run was started; what it gives may be other than then"]


def _outside_of_files(module: nn.Module, name: str) -> list[str]:
    held = plain_tensors(module)
    if not held:
        return []
    what = f"{_named(held)}: {'tensors' if len(held) > 1 else 'a tensor'} that no file keeps"
    return [
        f'{what}, so a loaded model has what {name} is built with; register_buffer("{held[0].rpartition(".")[2]}", ...) keeps it'
    ]


def _unused(found: Probe, module: nn.Module) -> list[str]:
    if not found.unused:
        return []
    trainable = sum(parameter.requires_grad for parameter in module.parameters())
    if len(found.unused) == trainable:
        raise ModelError("no parameter takes part in the model's outputs, so nothing would learn; is a result detached?")
    return [f"{_named(found.unused)}: no part of the outputs depends on it, so it will not learn"]


def _named(names: Sequence[str]) -> str:
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _check_schedule(own: OwnCode, config: Config, dataset: Dataset) -> None:
    if config.schedule.warmup or config.schedule.arguments:
        key = "warmup" if config.schedule.warmup else min(config.schedule.arguments)
        raise ConfigError(f"schedule.{key} has no effect on a schedule of your own; leave it out")
    if is_schedule_of_steps(own.schedule):
        checked_factor(own.schedule, [0, _total_steps(config, dataset) - 1])


def _total_steps(config: Config, dataset: Dataset) -> int:
    size = len(dataset.train) if config.train.batch_size == "full" else int(config.train.batch_size)
    return config.train.epochs * batches_per_epoch(dataset.train, size)


def _architecture(own: OwnCode, config: Config, dataset: Dataset, columns: int, module: nn.Module) -> tuple[Architecture, str]:
    """Return how files speak of the module: as layers, where it is nothing but them, else by the name of its code.

    Beside it, why a Sequential is not its layers.
    """
    assert own.model
    shape, why_code = dataset.transform.input_shape, ""
    if type(module) is nn.Sequential:
        try:
            return Architecture("sequential", {"layers": describe_layers(module)}, shape, columns), ""
        except NotDescribable as reason:
            why_code = str(reason)
    name = config.model.name if config.model.name != "sequential" else own.model.name
    named = code_name(type(module)) if "<" in name else name  # what has no name is known by what it builds
    arguments = {} if own.model.module is not None else own.arguments
    return Architecture(named, arguments, shape, columns, source_of(type(module))), why_code
