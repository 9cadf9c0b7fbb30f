"""From what was asked to a plan: data read and split, recipe chosen, every value resolved, and its source known."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from goodfit.artefacts.model_file import Architecture, ModelFile
from goodfit.config import Config, Layer, ModelConfig, merge
from goodfit.data.dataset import Dataset
from goodfit.data.loader import steps_per_epoch
from goodfit.data.sources import Progress, read_data
from goodfit.data.splits import build_dataset
from goodfit.devices import choose_device, choose_precision, choose_threads
from goodfit.errors import ConfigError
from goodfit.models import model_arguments
from goodfit.training.optimizers import default_learning_rate
from goodfit.training.recipes import Recipe, load_recipe
from goodfit.training.recipes.auto import auto_recipe
from goodfit.training.schedules import schedule_arguments

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

    @property
    def batch_size(self) -> int:
        """Examples of one update."""
        asked = self.config.train.batch_size
        return len(self.dataset.train) if asked == "full" else int(asked)

    @property
    def steps_per_epoch(self) -> int:
        """Updates of one epoch."""
        return steps_per_epoch(len(self.dataset.train), self.batch_size)

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
) -> Plan:
    """Read the data, choose the recipe, and resolve every value.

    `data` is None where `data.name` of the layers says which; `is_complete` says that the layers are a run's own
    configuration, so that no recipe is chosen for them. Raises InputError for anything that cannot be done.
    """
    recipe = None if recipe_name in (None, "auto") else load_recipe(recipe_name)
    start, layers = _model_file(layers)
    config, _ = merge([*_recipe_layer(recipe, layers), *layers])
    model_arguments(config.model.name)  # what is misspelt is said before data are read, or even fetched
    default_learning_rate(config.optim.name)
    schedule_arguments(config.schedule.name)
    raw = read_data(config.data.name if data is None else data, config.data, config.transform, progress)
    dataset = build_dataset(
        raw, val=config.data.val, test=config.data.test, max_train=config.data.max_train, seed=config.train.seed
    )
    if recipe is None and not is_complete:
        chosen = next((layer.values["model.name"] for layer in reversed(layers) if "model.name" in layer.values), None)
        recipe = auto_recipe(dataset, chosen)
    config, sources = merge([*_recipe_layer(recipe, layers), *layers])
    config, sources = _resolve(config, sources, dataset)
    _check_accumulate(config, dataset)
    architecture = _architecture(config, dataset)
    if start:
        start.check_start(architecture)
    return Plan(dataset, config, sources, recipe, architecture, start)


def _model_file(layers: Sequence[Layer]) -> tuple[ModelFile | None, list[Layer]]:
    """Take a model file out of `model.name`, if the last to set it names one: its architecture takes the file's place."""
    changed = list(layers)
    naming = [place for place, layer in enumerate(layers) if "model.name" in layer.values]
    name = layers[naming[-1]].values["model.name"] if naming else None
    if not (isinstance(name, str) and name.endswith(".safetensors")):
        return None, changed
    found, layer = ModelFile.load(Path(name)), layers[naming[-1]]
    inside = {f"model.{key}": value for key, value in found.architecture.arguments.items()}
    inside["model.one_logit"] = found.outputs == "one-logit"
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


def _resolve(config: Config, sources: dict[str, str], dataset: Dataset) -> tuple[Config, dict[str, str]]:
    """Fill in what depends on the data, the machine, or on the model, optimiser and schedule that were chosen."""
    device = choose_device(config.train.device)
    model_defaults = {
        key: value for key, value in model_arguments(config.model.name).items() if key not in ModelConfig.model_fields
    }
    schedule_defaults = schedule_arguments(config.schedule.name)
    batch_size = len(dataset.train) if config.train.batch_size == "full" else int(config.train.batch_size)
    per_epoch = steps_per_epoch(len(dataset.train), batch_size)
    values: dict[str, Any] = {
        "data.task": dataset.task,
        "train.device": str(device),
        "train.precision": choose_precision(config.train.precision, device),
        "train.threads": choose_threads(config.train.threads),
        "optim.lr": config.optim.lr or default_learning_rate(config.optim.name),
        "log.every_steps": config.log.every_steps or _usual_log_steps(per_epoch),
    }
    values |= {f"model.{key}": value for key, value in (model_defaults | config.model.arguments).items()}
    values |= {f"schedule.{key}": value for key, value in (schedule_defaults | config.schedule.arguments).items()}
    before = config.flat()
    merged, _ = merge([Layer("config", before), Layer("auto", values)])
    changed = {key: "auto" for key, value in values.items() if before.get(key) != value}
    return merged, sources | changed


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
    if config.model.one_logit and len(dataset.classes) != 2:
        found = f"{len(dataset.classes)} classes" if dataset.classes else "a number to predict"
        raise ConfigError(f"model.one_logit is for two classes, and {dataset.name} has {found}; leave it out")
    num_outputs = 1 if config.model.one_logit else dataset.num_outputs
    return Architecture(config.model.name, config.model.arguments, dataset.transform.input_shape, num_outputs)
