"""From what was asked to a plan: data read and split, recipe chosen, every value resolved, and its source known."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from goodfit.artefacts.model_file import Architecture, ModelFile
from goodfit.config import Config, Layer, ModelConfig, merge
from goodfit.data.dataset import Dataset, RawData, TargetScale
from goodfit.data.examples import Examples
from goodfit.data.picture_files import PictureFiles
from goodfit.data.sources import Progress, read_data
from goodfit.data.splits import build_dataset
from goodfit.data.stream import batches_per_epoch
from goodfit.devices import choose_device, choose_precision, choose_threads
from goodfit.errors import CodeNeededError, ConfigError
from goodfit.inputs import SelfTest
from goodfit.models import model_arguments
from goodfit.models.outputs import OutputMeaning
from goodfit.rehearsal import rehearse, self_test
from goodfit.training.optimizers import default_learning_rate, optimizer_arguments
from goodfit.training.own import OwnCode
from goodfit.training.recipes import LEVELS, Recipe, load_recipe
from goodfit.training.recipes.auto import auto_recipe
from goodfit.training.schedules import schedule_arguments
from goodfit.user_code import is_code

__all__ = ["Plan", "make_plan"]

LOGS_PER_EPOCH = 10


@dataclass(frozen=True)
class Plan:
    """A run before its first step: data and configuration, both complete."""

    dataset: Dataset
    config: Config
    sources: dict[str, str]  # where each value comes from, by dotted key
    recipe: Recipe | None
    architecture: Architecture
    start: ModelFile | None  # the weights that training goes on from
    own: OwnCode = field(default_factory=OwnCode)  # what was given as Python objects
    notes: tuple[str, ...] = ()  # what the user should be told once

    @property
    def batch_size(self) -> int:
        """Examples of one update."""
        asked = self.config.train.batch_size
        return len(self.dataset.train) if asked == "full" else int(asked)

    @property
    def steps_per_epoch(self) -> int:
        """Updates of one epoch."""
        return batches_per_epoch(self.dataset.train, self.batch_size)

    @property
    def outputs(self) -> OutputMeaning:
        """What the model's outputs mean."""
        assert self.config.model.outputs != "auto"
        return self.config.model.outputs

    @property
    def target_scale(self) -> TargetScale:
        """The terms in which the model predicts numbers: a user's own one in the target's unit."""
        if self.start:
            return self.start.target_scale
        return TargetScale() if self.own.model else self.dataset.target_scale

    @property
    def total_steps(self) -> int:
        """Updates of the whole run."""
        return self.config.train.epochs * self.steps_per_epoch

    @property
    def logs_as_asked(self) -> bool:
        """Whether the loss is logged at steps that somebody chose, who then wants to see it."""
        return self.config.log.every_steps != _usual_log_steps(self.steps_per_epoch)


def make_plan(
    data: Any,
    layers: Sequence[Layer],
    recipe_name: str | None = None,
    progress: Progress | None = None,
    is_complete: bool = False,
    own: OwnCode | None = None,
) -> Plan:
    """Read the data, choose the recipe, and resolve every value.

    `data` is None where `data.name` of the layers says which; `is_complete` says that the layers are a run's own
    configuration, so that no recipe is chosen for them; `own` is what was given as Python objects, whose names the
    layers hold. Raises InputError for anything that cannot be done.
    """
    own = own or OwnCode()
    recipe = None if recipe_name in (None, *LEVELS) else load_recipe(recipe_name)
    start, layers = _model_file(layers)
    layers = _with_own_code(layers, own, start)
    config, _ = _merged(recipe, layers)
    _check_names(config, own)  # what is misspelt is said before data are read, or even fetched
    module_test = partial(self_test, _with_arguments(own, config, start), config, start) if own.model else None
    dataset, layers = _read_dataset(data, layers, recipe, progress, module_test)
    if start and is_complete:
        dataset = _with_classes_of(start, dataset)
    if recipe is None and not is_complete:
        recipe = auto_recipe(dataset, _chosen(layers, "model.name"), recipe_name or "auto", _chosen(layers, "model.pretrained"))
    config, sources = _resolve(*_merged(recipe, layers), dataset, own)
    _check_accumulate(config, dataset)
    made = Plan(dataset, config, sources, recipe, _architecture(config, dataset), start, own, _notes(recipe, dataset))
    if own.is_given:
        made = _rehearsed(made)
    if start:
        start.check_start(made.architecture)
    return made


def _with_own_code(layers: Sequence[Layer], own: OwnCode, start: ModelFile | None) -> list[Layer]:
    """Return the layers with the names of what is given as objects over them, and what these make usual under them."""
    usual: dict[str, Any] = {"data.task": own.task} if own.task else {}
    if own.optimizer is not None:
        usual["schedule.name"] = "constant"  # its learning rate is as it was given
    named = [Layer("--model", {"model.name": own.model.name})] if own.model and not start else []
    return [Layer("Python", usual), *layers, Layer("Python", own.names()), *named]


def _merged(recipe: Recipe | None, layers: Sequence[Layer]) -> tuple[Config, dict[str, str]]:
    return merge([*_recipe_layer(recipe, layers), *layers])


def _read_dataset(
    data: Any, layers: Sequence[Layer], recipe: Recipe | None, progress: Progress | None, module_test: SelfTest | None
) -> tuple[Dataset, list[Layer]]:
    """Read and split the data; return them, and the layers over those settings that they bring along."""
    config, _ = _merged(recipe, layers)
    raw = read_data(config.data.name if data is None else data, config.data, config.transform, progress, self_test=module_test)
    layers = _with_data_settings(raw, layers)
    config, _ = _merged(recipe, layers)
    settings = config.data
    dataset = build_dataset(raw, val=settings.val, test=settings.test, max_train=settings.max_train, seed=config.train.seed)
    batch_size = raw.settings.get("train.batch_size", 0)
    if batch_size > len(dataset.train):  # of a loader that gives all examples at once, some of which are validated or tested on
        layers[0] = Layer("data", {**raw.settings, "train.batch_size": "full"})
    return dataset, layers


def _with_classes_of(start: ModelFile, dataset: Dataset) -> Dataset:
    """Return the data with all classes of the model, of which the last may have no examples here."""
    known = dataset.classes and dataset.classes == start.classes[: len(dataset.classes)]
    return replace(dataset, classes=start.classes) if known else dataset


def _chosen(layers: Sequence[Layer], key: str) -> Any:
    """Return what the layers set a key to, None where none does."""
    return next((layer.values[key] for layer in reversed(layers) if key in layer.values), None)


def _rehearsed(made: Plan) -> Plan:
    """Try what the user gave as objects, and take what that shows into the plan."""
    config = made.config
    own = _with_arguments(made.own, config, made.start)
    found = rehearse(own, config, made.dataset, made.start, None if own.model else made.architecture)
    taken = {f"model.{key}" for key in own.arguments}  # by the user's code, of which layers may be all that is left
    config, sources = _overlay(config, made.sources, found.values, "auto", without=taken)
    return replace(
        made,
        dataset=replace(made.dataset, classes=found.classes),
        config=config,
        sources=sources,
        architecture=found.architecture,
        own=own,
        notes=made.notes + found.notes,
    )


def _with_arguments(own: OwnCode, config: Config, start: ModelFile | None) -> OwnCode:
    """Return the user's code with what its model is built with."""
    if not own.model:
        return own
    given = start.architecture.arguments if start else config.model.arguments
    return replace(own, arguments={} if config.model.name == "sequential" else given)


def _notes(recipe: Recipe | None, dataset: Dataset) -> tuple[str, ...]:
    return (*filter(None, [recipe.note if recipe else ""]), *_same_examples(dataset))


def _same_examples(dataset: Dataset) -> tuple[str, ...]:
    """Say it where what is to be tested or validated on is the training data themselves."""
    train = dataset.parts["train"]
    return tuple(
        f"{name} has the very examples of train: its accuracy says nothing about others; give other data, or leave it out"
        for name, part in dataset.parts.items()
        if name != "train" and torch.equal(part.targets, train.targets) and _is_same(part.inputs, train.inputs)
    )


def _is_same(inputs: Any, others: Any) -> bool:
    if isinstance(inputs, Examples):
        return isinstance(others, Examples) and inputs.source is others.source
    if isinstance(inputs, PictureFiles):
        return isinstance(others, PictureFiles) and inputs.survey.has_pictures_of(others.survey)
    return isinstance(others, torch.Tensor) and torch.equal(inputs, others)


def _check_names(config: Config, own: OwnCode) -> None:
    """Raise ConfigError for an unknown model, optimiser or schedule, and CodeNeededError for code that was not given."""
    if not own.model and is_code(config.model.name):
        raise CodeNeededError(config.model.name)
    for key, keyword, name, given in (
        ("train.loss", "loss", config.train.loss, own.loss),
        ("optim.name", "optimizer", config.optim.name, own.optimizer),
        ("schedule.name", "schedule", config.schedule.name, own.schedule),
    ):
        if is_code(name) and given is None:
            raise ConfigError(f"{key} = {name!r} is code of your own, which no file can bring; give it in Python: {keyword}=")
    if config.train.loss != "auto" and own.loss is None:
        raise ConfigError(f"train.loss = {config.train.loss!r} is unknown; a loss of your own is given in Python: loss=")
    if not own.model:
        model_arguments(config.model.name)
    if own.optimizer is None:
        default_learning_rate(config.optim.name)
    if own.schedule is None:
        schedule_arguments(config.schedule.name)


def _with_data_settings(raw: RawData, layers: Sequence[Layer]) -> list[Layer]:
    """Return the layers over those of the data; raise ConfigError where they contradict what the data decide."""
    for key in raw.settings:
        for layer in layers:
            if key in layer.values and layer.values[key] != raw.settings[key]:
                raise ConfigError(
                    f"{key} = {layer.values[key]!r} (from {layer.source}), and the data loader has {raw.settings[key]!r}; set it in one of them"
                )
    return [Layer("data", raw.settings), *layers]


def _model_file(layers: Sequence[Layer]) -> tuple[ModelFile | None, list[Layer]]:
    """Take a model file out of `model.name`, if the last to set it names one: its architecture takes the file's place."""
    changed = list(layers)
    naming = [place for place, layer in enumerate(layers) if "model.name" in layer.values]
    name = layers[naming[-1]].values["model.name"] if naming else None
    if not (isinstance(name, str) and name.endswith(".safetensors")):
        return None, changed
    found, layer = ModelFile.load(Path(name)), layers[naming[-1]]
    inside = {f"model.{key}": value for key, value in found.architecture.arguments.items()}
    inside["model.outputs"] = found.outputs
    changed[naming[-1]] = Layer(layer.source, {**layer.values, **inside, "model.name": found.architecture.name})
    return found, changed


def _recipe_layer(recipe: Recipe | None, layers: Sequence[Layer]) -> list[Layer]:
    """Return the recipe's layer, without its arguments for a model, optimiser or schedule that a later layer replaces."""
    if recipe is None:
        return []
    values = dict(recipe.values)
    for section in ("model", "optim", "schedule"):
        key = f"{section}.name"
        if any(layer.values.get(key, values.get(key)) != values.get(key) for layer in layers):
            values = {name: value for name, value in values.items() if not name.startswith(f"{section}.")}
    return [Layer(f"recipe {recipe.name}", values)]


def _resolve(config: Config, sources: dict[str, str], dataset: Dataset, own: OwnCode) -> tuple[Config, dict[str, str]]:
    """Fill in what depends on the data, the machine, or on the model, optimiser and schedule that were chosen."""
    device = choose_device(config.train.device)
    batch_size = len(dataset.train) if config.train.batch_size == "full" else int(config.train.batch_size)
    per_epoch = batches_per_epoch(dataset.train, batch_size)
    precision = config.train.precision
    if precision == "auto" and (own.model or config.model.name == "sequential" or len(dataset.transform.input_shape) == 1):
        precision = "fp32"  # what a module was not written for is not done to it unasked; for a table's network bf16 is slower
    values: dict[str, Any] = {
        "data.task": dataset.task,
        "train.device": str(device),
        "train.precision": choose_precision(precision, device),
        "train.threads": choose_threads(config.train.threads),
        "log.every_steps": config.log.every_steps or _usual_log_steps(per_epoch),
    }
    if not own.model:
        known = model_arguments(config.model.name)
        values |= {f"model.{key}": value for key, value in known.items() if key not in ModelConfig.model_fields}
        values |= {f"model.{key}": value for key, value in config.model.arguments.items()}
        values["model.outputs"] = _outputs(config, dataset)
    if own.optimizer is None:
        values["optim.lr"] = config.optim.lr or default_learning_rate(config.optim.name)
        if sources["optim.momentum"] == "default":
            values["optim.momentum"] = optimizer_arguments(config.optim.name).get("momentum", 0.0)
    if own.schedule is None:
        defaults = schedule_arguments(config.schedule.name) | config.schedule.arguments
        values |= {f"schedule.{key}": value for key, value in defaults.items()}
    return _overlay(config, sources, values, "auto")


def _overlay(
    config: Config, sources: dict[str, str], values: dict[str, Any], source: str, without: Collection[str] = ()
) -> tuple[Config, dict[str, str]]:
    """Set values over all `without` some, and name their source where they were others before."""
    before = config.flat()
    merged, _ = merge(
        [Layer("config", {key: value for key, value in before.items() if key not in without}), Layer(source, values)]
    )
    changed = {key: source for key, value in values.items() if before.get(key) != value}
    return merged, {key: value for key, value in sources.items() if key not in without or key in values} | changed


def _outputs(config: Config, dataset: Dataset) -> OutputMeaning:
    """Return what the outputs of a model of goodfit's mean; raise ConfigError where it is asked for another meaning."""
    asked = config.model.outputs
    usual: OutputMeaning = "logits" if dataset.classes else "value"
    if asked in ("auto", usual):
        return usual
    if asked != "one-logit":
        raise ConfigError(f"model.outputs = {asked!r}, and {config.model.name} gives {usual} for {dataset.name}; leave it out")
    if len(dataset.classes) != 2:
        found = f"{len(dataset.classes)} classes" if dataset.classes else "a number to predict"
        raise ConfigError(f"model.outputs = 'one-logit' is for two classes, and {dataset.name} has {found}; leave it out")
    return "one-logit"


def _check_accumulate(config: Config, dataset: Dataset) -> None:
    size = len(dataset.train) if config.train.batch_size == "full" else int(config.train.batch_size)
    if config.train.accumulate > size:
        raise ConfigError(
            f"train.accumulate = {config.train.accumulate} cuts a batch of {size} into more parts than it has examples; "
            f"use at most {size}"
        )


def _usual_log_steps(steps_per_epoch: int) -> int:
    return max(1, steps_per_epoch // LOGS_PER_EPOCH)


def _architecture(config: Config, dataset: Dataset) -> Architecture:
    num_outputs = 1 if config.model.outputs == "one-logit" else dataset.num_outputs
    return Architecture(config.model.name, config.model.arguments, dataset.transform.input_shape, num_outputs)
