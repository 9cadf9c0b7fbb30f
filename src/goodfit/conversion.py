"""From an old file of weights to a model file: its tensors given to a model, with the preprocessing and classes it never had."""

import inspect
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from goodfit.artefacts.model_file import ModelFile
from goodfit.artefacts.old_files import OldFile, read_old_file
from goodfit.artefacts.predictor import Predictor
from goodfit.artefacts.tensor_file import is_finite
from goodfit.config import Config, Layer, ModelConfig, merge
from goodfit.data.dataset import TargetScale
from goodfit.data.stream import first_examples
from goodfit.devices import choose_device, computing
from goodfit.errors import ConfigError, DataError, ModelError
from goodfit.evaluation.evaluate import evaluate
from goodfit.evaluation.metrics import Evaluation
from goodfit.files import check_new_file, file_sha256
from goodfit.models import MODELS, model_arguments
from goodfit.models.matching import Matching, match_tensors
from goodfit.models.own import OwnModel
from goodfit.models.probing import materialize, probe
from goodfit.planning import Plan, make_plan
from goodfit.testing import DATA_KEYS
from goodfit.training.own import OwnCode

__all__ = ["Conversion", "convert_file"]

OTHER_KEYS = ("train.seed", "train.device", "train.threads", "train.precision")  # that a conversion heeds, beside its sections'
NOT_HEEDED = ("model.pretrained", "model.freeze", "model.frozen")
GIVE_DATA = "give as --data what it was trained on, which tells how its inputs are prepared"
MOST_NUMBERS = 1 << 28  # of examples that stand in for data


class Screen(Protocol):
    """Where a conversion says what it does."""

    def say(self, text: str) -> None:
        """Show one line."""

    def progress(self, what: str, done: int, total: int) -> None:
        """Show how far a long piece of work is."""


@dataclass(frozen=True)
class Conversion:
    """A model file that was made of an old one, and what is known of it."""

    model: Path
    matched: Matching
    test: Evaluation | None  # on the test split of the data, if data were given
    own: OwnModel | None = field(default=None, repr=False)

    def predictor(self, device: str = "cpu") -> Predictor:
        """Return the model in use."""
        return Predictor.load(self.model, device, self.own)

    def to_json(self) -> dict[str, Any]:
        """Return the same as JSON values."""
        test = self.test.to_json() if self.test else None
        return {"model": str(self.model), "matched": self.matched.to_json(), "test": test}


def convert_file(
    path: Path,
    screen: Screen,
    *,
    data: Any = None,
    layers: Sequence[Layer] = (),
    own: OwnModel | None = None,
    out: Path | None = None,
    trust_pickle: bool = False,
) -> Conversion:
    """Write a model file with the weights of an old file, and measure it on the test split of the data, if there are any.

    `layers` name the model, where it is not the user's `own`, and the data, where they are not given as objects: classes and
    preprocessing are those that training on them would have. Without data the preprocessing has to be set, and the model
    has to take a row of numbers. Raises FileError for an old file that is damaged or does not fit the model, and InputError
    for what is missing.
    """
    target = out or path.with_suffix(".safetensors")
    check_new_file(target)
    config = _check_layers(layers, own)
    old = read_old_file(path, trust_pickle=trust_pickle, definitions=_definitions(own), say=screen.say)
    known = _known_arguments(old, config, own)
    if known:
        said = ", ".join(f"{key} = {value!s:.60}" for key, value in known.items() if key != "model.layers") or "its own layers"
        is_shaped = not own and "model.hidden" in known
        evidence = f"the weights in {path.name} are shaped" if is_shaped else f"{path.name} says"
        screen.say(f"the model is built with {said}, as {evidence}")
    has_data = data is not None or any("data.name" in layer.values for layer in layers)
    layers = [Layer("convert", {"train.precision": "fp32"}), Layer(path.name, known), *layers]
    if not has_data:
        data, setting = _stand_in(old, merge(layers)[0], own)
        layers = [*layers, Layer("convert", setting)]
    made = make_plan(data, layers, None, screen.progress, is_complete=True, own=OwnCode(own))
    module = _build(made, own)
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    matched = match_tensors(expected, old.shapes, made.architecture.name, str(path))
    screen.say(matched.describe())
    if changed := matched.changed_types(module, old.tensors):
        screen.say(changed)
    for name, tensor in old.tensors.items():
        if not is_finite(tensor):
            screen.say(f"{name} holds numbers that are not finite; what the model gives is of no use")
    file = _model_file(made, matched.tensors_for(module, old.tensors), _record(made, old, matched, has_data))
    test = _measure(made, file, own) if has_data else None
    _say_rest(made, test is not None, screen)
    if test and "test" in made.dataset.parts:
        file = replace(file, test=test.to_json())
    file.save(target)
    return Conversion(target, matched, test, own)


def _check_layers(layers: Sequence[Layer], own: OwnModel | None) -> Config:
    """Raise ConfigError for what a conversion cannot use, and ModelError for an unknown model."""
    for key in (key for layer in layers for key in layer.values):
        section = key.partition(".")[0]
        if (section not in ("data", "transform", "model") and key not in OTHER_KEYS) or key in NOT_HEEDED:
            raise ConfigError(f"{key} has no effect on a conversion; leave it out")
    config, _ = merge(layers)
    if not own:
        model_arguments(config.model.name)
    return config


def _definitions(own: OwnModel | None) -> dict[str, Any]:
    """Return what the user's code defines beside the model."""
    return vars(sys.modules[own.make.__module__]) if own and getattr(own.make, "__module__", None) in sys.modules else {}


def _known_arguments(old: OldFile, config: Config, own: OwnModel | None) -> dict[str, Any]:
    """Return what the file says about the model's arguments, less those that are set."""
    found: dict[str, Any] = {}
    if own and own.module is None:
        taken = _parameters(own).keys() - ModelConfig.model_fields.keys()
        found = {key: list(value) if isinstance(value, tuple) else value for key, value in old.values.items() if key in taken}
    elif not own and config.model.name == "mlp":
        widths = _widths(old.tensors)
        found = {"hidden": widths} if widths is not None else {}
    elif not own and config.model.name == "sequential":
        found = {"layers": old.layers} if old.layers else {}
    return {f"model.{key}": value for key, value in found.items() if key not in config.model.arguments}


def _parameters(own: OwnModel) -> Mapping[str, Any]:
    try:
        return inspect.signature(own.make).parameters
    except ValueError:  # built-in callables have none
        return {}


def _widths(tensors: Mapping[str, Tensor]) -> list[int] | None:
    """Return the widths between linear layers that follow each other, None where the file holds something else."""
    matrices = [tensor for tensor in tensors.values() if tensor.ndim == 2]
    chained = all(first.shape[0] == second.shape[1] for first, second in pairwise(matrices))
    is_alone = all(tensor.ndim in (1, 2) for tensor in tensors.values()) and len(tensors) == 2 * len(matrices)
    return [matrix.shape[0] for matrix in matrices[:-1]] if matrices and chained and is_alone else None


def _stand_in(old: OldFile, config: Config, own: OwnModel | None) -> tuple[Any, dict[str, Any]]:
    """Return examples of zeros, two for each class, in place of data that were not given, and what is to be set for them.

    The first matrix of the file says how many numbers an example has, the model how many classes there are. Raises
    InputError, naming what to give, where these do not suffice.
    """
    name = own.name if own else config.model.name
    weights = [tensor for tensor in old.tensors.values() if tensor.ndim > 1]
    if not weights or weights[0].ndim > 2 or not (own or name in ("mlp", "sequential")):
        raise DataError(f"the shape of the inputs of {name} is not to be known from {old.path.name}: {GIVE_DATA}")
    features, columns = weights[0].shape[1], weights[-1].shape[0]
    if features * columns > MOST_NUMBERS:
        raise DataError(
            f"{name} has {features:,} inputs and {columns:,} outputs, which is too large to do without data: {GIVE_DATA}"
        )
    if own:
        columns = _columns(own, config, features)
    _check_settings(name, config, features, columns)
    outputs = config.model.outputs
    targets = torch.arange(2.0) if outputs == "value" else torch.arange(max(columns, 2)).repeat(2)
    part = (torch.zeros(len(targets), features), targets)
    task = "regression" if outputs == "value" else "classification"
    return {"train": part, "test": part}, {"data.task": task, "data.val": 0.0}


def _check_settings(name: str, config: Config, features: int, columns: int) -> None:
    """Raise ConfigError where more has to be said of a model without data, naming all of it at once."""
    missing = []
    if config.transform.mean is None or config.transform.std is None:
        missing.append(
            f"nothing says how the inputs are prepared: for rows of {features} numbers --set transform.mean=... "
            "--set transform.std=... (0 and 1 where they are used as they are)"
        )
    if columns == 1 and config.model.outputs in ("auto", "logits", "log-probabilities"):
        missing.append(
            f"{name} gives one number: --set model.outputs=value if it is what is predicted, one-logit or probabilities if it "
            "decides between two classes"
        )
    if missing:
        raise ConfigError(f"{'; and '.join(missing)}; for pictures, tables or names of classes {GIVE_DATA}")


def _columns(own: OwnModel, config: Config, features: int) -> int:
    """Return how many numbers the user's model gives for a row of `features`."""
    inputs = torch.zeros(2, features)
    module = own.build(config.model.arguments if own.module is None else {})
    try:
        materialize(module, inputs, own.name)
        return probe(module, inputs, own.name).columns
    except ModelError as error:
        raise ModelError(f"{error}. The shape of its inputs is not known without data: {GIVE_DATA}") from error


def _build(made: Plan, own: OwnModel | None) -> nn.Module:
    """Build the module on the CPU, with weights that the file's are to replace."""
    if not made.architecture.is_code:
        return made.architecture.build()
    assert own
    module = own.build(made.architecture.arguments if own.module is None else {})
    materialize(module, first_examples(made.dataset, 1, made.config.train.seed)[0], own.name)
    return module


def _model_file(made: Plan, tensors: dict[str, Tensor], training: dict[str, Any]) -> ModelFile:
    precision = made.config.train.precision
    assert precision != "auto"
    return ModelFile(
        task=made.dataset.task,
        architecture=made.architecture,
        outputs=made.outputs,
        precision=precision,
        transform=made.dataset.transform,
        classes=made.dataset.classes,
        target_scale=TargetScale(),  # other programs predict in the target's own unit
        tensors=tensors,
        training=training,
    )


def _record(made: Plan, old: OldFile, matched: Matching, has_data: bool) -> dict[str, Any]:
    """Return where the weights come from; what they were trained on, and how, is not known."""
    dataset = made.dataset
    sections = ("model.", "transform.")
    return {
        "converted from": old.path.name,
        "sha256": file_sha256(old.path),
        "matched": matched.to_json(),
        "data": dataset.name if has_data else "",  # that the preprocessing was fitted on
        "fingerprint": dataset.fingerprint if has_data else "",
        "steps": 0,
        "configuration": {
            key: value for key, value in made.config.flat().items() if key in DATA_KEYS or key.startswith(sections)
        },
    }


def _measure(made: Plan, file: ModelFile, own: OwnModel | None) -> Evaluation:
    settings, device = made.config.train, choose_device(made.config.train.device)
    with computing(device, settings.threads, settings.deterministic):
        return evaluate(file.trained_model(device, own), made.dataset.splits["test"], "test")


def _say_rest(made: Plan, is_tested: bool, screen: Screen) -> None:
    """Say what the user has to know to trust the file."""
    dataset, config, described = made.dataset, made.config.transform, made.dataset.transform.to_json()
    for note in dataset.notes if is_tested else ():
        screen.say(note)
    is_set = config.mean is not None and config.std is not None
    if is_tested and not is_set and (any(described.get("mean", ())) or set(described.get("std", (1,))) != {1}):
        numbers = [[round(number, 4) for number in described[key]] for key in ("mean", "std")]
        mean, std = (f"{values[:3]}".replace("]", ", ...]" if len(values) > 3 else "]") for values in numbers)
        screen.say(
            f"preprocessing: mean {mean}, std {std}, as the training data are; where the old program had others, "
            "--set transform.mean=... --set transform.std=..."
        )
    if made.architecture.name in MODELS and "activation" in made.architecture.arguments:
        screen.say(
            f"activation: {made.architecture.arguments['activation']}, which no weights show; another is set by model.activation"
        )
    if is_tested and "test" not in dataset.parts:
        screen.say(
            f"{dataset.name} has no test split of its own, so the model may have been trained on what it is tested on here: the "
            "result is printed and not kept in the file"
        )
    if not is_tested:
        screen.say(
            f"it takes rows of {dataset.transform.input_shape[0]} numbers; give --data for pictures, tables or names of classes"
        )
    if made.architecture.is_code:
        screen.say(
            f"the model file will ask for your code where it is used: --model {made.architecture.name}, in Python model="
        )
