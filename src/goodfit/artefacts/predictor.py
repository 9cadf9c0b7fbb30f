"""The predictor: a model file in use. Input and preprocessing come from the file alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from goodfit.artefacts.model_file import ModelFile
from goodfit.data.given_transform import GivenTransform
from goodfit.data.table import TABLE_SUFFIXES, read_rows
from goodfit.data.table_transform import TableTransform
from goodfit.data.tensor_transform import TensorTransform, as_array
from goodfit.devices import choose_device
from goodfit.errors import ConfigError, DataError
from goodfit.evaluation.evaluate import TrainedModel
from goodfit.html import table
from goodfit.inputs import Inputs, count, split
from goodfit.models.own import OwnModel

__all__ = ["ClassProbability", "Estimate", "Prediction", "Predictor"]

BATCH_SIZE = 256


@dataclass(frozen=True)
class ClassProbability:
    """A class and how probable it is, from 0 to 1."""

    label: str
    probability: float

    def to_json(self) -> dict[str, Any]:
        """Return the pair as JSON values."""
        return {"label": self.label, "probability": self.probability}


@dataclass(frozen=True)
class Prediction:
    """What a classifier says of one example: the most probable class, and the `top` classes, most probable first."""

    label: str
    probability: float
    top: tuple[ClassProbability, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the prediction as JSON values."""
        return {"label": self.label, "probability": self.probability, "top": [item.to_json() for item in self.top]}

    def _repr_html_(self) -> str:
        return table([(item.label, f"{item.probability:.1%}") for item in self.top], ("class", "probability"))


@dataclass(frozen=True)
class Estimate:
    """What a regressor says of one example, in the target's unit."""

    value: float

    def to_json(self) -> dict[str, Any]:
        """Return the estimate as JSON values."""
        return {"value": self.value}

    def _repr_html_(self) -> str:
        return table([("value", f"{self.value:,.6g}")])


class Predictor:
    """Predicts from raw examples of the kind that the model was trained on."""

    def __init__(self, model: TrainedModel, path: Path, own: OwnModel | None = None) -> None:
        self.model = model
        self.path = path
        self.own = own  # the user's code, where the model is that

    @classmethod
    def load(cls, path: str | Path, device: str = "cpu", own: OwnModel | None = None) -> "Predictor":
        """Load a model file, or a run folder's best, with the user's code for its model where it is that.

        Raises FileError if it is damaged or foreign, and CodeNeededError where the code is missing.
        """
        path = Path(path)
        path = path / "best.safetensors" if path.is_dir() else path
        return cls(ModelFile.load(path).trained_model(choose_device(device), own), path, own)

    def __repr__(self) -> str:
        what, transform = f"{len(self.classes)} classes" if self.classes else "a number", self.model.transform
        shapes = transform.shapes if isinstance(transform, GivenTransform) else [transform.input_shape]
        return f"Predictor({str(self.path)!r}): {what} from inputs of shape {' and '.join(map(str, shapes))}"

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes in the order of the model's outputs; empty for a regression."""
        return self.model.classes

    def __call__(self, examples: Any, *, top: int = 3) -> Any:
        """Predict one example, giving a Prediction (or Estimate), or many, giving a list of them.

        Takes a path, a PIL image, an array or tensor of one example or a batch of them, a table's row as a dict, a table
        file or data frame, and lists of these. Raises DataError naming what does not fit, ConfigError for a `top` below 1.
        """
        if top < 1:
            raise ConfigError(f"top = {top!r} is no number of classes; ask for at least 1")
        many, raw = self._as_many(examples)
        predictions = self.predict_stored(self.model.transform.encode(raw), top=top)
        return predictions if many else predictions[0]

    def predict_stored(self, stored: Inputs, *, top: int = 3) -> list[Prediction | Estimate]:
        """Predict examples (N, ...) that the transform has encoded."""
        left = count(stored)
        sizes = [min(BATCH_SIZE, left - done) for done in range(0, left, BATCH_SIZE)]
        return [item for batch in split(stored, sizes) for item in self._predict_batch(batch, top)]

    def _predict_batch(self, stored: Inputs, top: int) -> list[Prediction | Estimate]:
        if self.model.task == "regression":
            return [Estimate(value) for value in self.model.values(stored).tolist()]
        best = torch.topk(self.model.probabilities(stored).cpu(), min(top, len(self.classes)), dim=1)
        rows = zip(best.values.tolist(), best.indices.tolist(), strict=True)
        tops = [tuple(ClassProbability(self.classes[i], p) for p, i in zip(*row, strict=True)) for row in rows]
        return [Prediction(items[0].label, items[0].probability, items) for items in tops]

    def _as_many(self, examples: Any) -> tuple[bool, Any]:
        """Say whether `examples` are many, and return them in the form that the transform encodes."""
        shape = self.model.transform.input_shape
        is_file = isinstance(examples, str | bytes | Path)
        if is_file and isinstance(self.model.transform, GivenTransform | TensorTransform):
            what = "bytes" if isinstance(examples, bytes) else repr(str(examples))
            raise DataError(f"{what}: this model takes numbers, not files; prepare it as for its training, and give the array")
        if isinstance(self.model.transform, GivenTransform):
            return self.model.transform.are_many(examples), examples
        if isinstance(self.model.transform, TensorTransform):
            array = as_array(examples, "the input")
            return array.ndim > len(shape), array
        if isinstance(examples, str | Path):
            if isinstance(self.model.transform, TableTransform) and Path(examples).suffix.lower() in TABLE_SUFFIXES:
                return True, read_rows(Path(examples))[0]
            return False, [examples]
        if isinstance(examples, bytes | Mapping):
            return False, [examples]
        if hasattr(examples, "shape") and hasattr(examples, "ndim"):
            many = examples.ndim > len(shape)
            return many, examples if many else [examples]
        if isinstance(examples, Sequence):
            return True, list(examples)
        return hasattr(examples, "columns"), examples if hasattr(examples, "columns") else [examples]
