"""The recipe `auto`: what a person gets by default, chosen from the data alone; `fast` and `best` on either side of it."""

from dataclasses import replace
from typing import Any

from goodfit.data.dataset import Dataset
from goodfit.data.examples import Examples
from goodfit.errors import ConfigError
from goodfit.models import has_weights
from goodfit.training.recipes import Recipe, load_recipe
from goodfit.user_code import is_code

__all__ = ["auto_recipe"]

LARGEST_SMALL_PICTURE = 64  # pixels a side
PRETRAINED = "pretrained-pictures"
BACKBONE = "resnet18"  # of torchvision: that recipe's
NO_WEIGHTS = (
    f"the pretrained weights of torchvision/{BACKBONE} are not on this disk; for photographs they are worth more than any longer "
    "training: --set model.pretrained=true fetches them once (45 MB)"
)
FOR_ANY_MODEL = ("own-model", PRETRAINED)


def auto_recipe(dataset: Dataset, model: str | None = None, level: str = "auto", pretrained: bool | None = None) -> Recipe:
    """Return the recipe for the kind and size of the data, and for `model` if that is already chosen.

    Colour pictures over 64 pixels a side get a network with pretrained weights where these lie on this disk, or are
    asked for by `pretrained`.

    The number of epochs falls with the number of examples, from the recipe's `max_epochs` to its `min_epochs`, so that
    training sees about `examples` of them; the batch grows with it, from `min_batch` to `max_batch`, at about
    `steps_per_epoch` to the epoch. A model other than the recipe's own has the optimiser of `table`, which suits most.
    Raises ConfigError for a level that there is no evidence for.
    """
    shape = dataset.transform.input_shape
    recipe, table = load_recipe(_name(shape, model, pretrained)), load_recipe("table")
    if level != "auto":
        if level not in recipe.levels:
            raise ConfigError(
                f"the recipe {level!r} is not built yet for {dataset.name} ({recipe.name}); use auto, and --epochs"
            )
        recipe = recipe.levels[level]
    values = dict(recipe.values)
    note = NO_WEIGHTS if recipe.name == "pictures" and shape[0] == 3 and model is None and pretrained is None else ""
    if recipe.name not in FOR_ANY_MODEL and model not in (None, recipe.values["model.name"]):
        # The learning rate for a network with batch normalisation makes one without it diverge.
        values = _without(values, "optim.") | {key: value for key, value in table.values.items() if key.startswith("optim.")}
    if dataset.transform.to_json()["kind"] != "image" or isinstance(dataset.train.inputs, Examples):
        values = _without(values, "augment.")
    elif recipe.name != "table":
        # Colour pictures are of things, and things have no handedness; digits do.
        values["augment.flip"] = values.get("augment.flip", True) if shape[0] == 3 else False
    if dataset.task == "regression":
        values.pop("train.label_smoothing", None)
    values |= _sizes(recipe.sizing, len(dataset.train))
    return replace(recipe, name=f"{level}: {recipe.name}", values=values, note=note)


def _name(shape: tuple[int, ...], model: str | None, pretrained: bool | None) -> str:
    if model and is_code(model):
        return "own-model"
    if model == "mlp" or len(shape) != 3 or shape[0] not in (1, 3):
        return "table"
    if pretrained:
        return PRETRAINED
    if max(shape[1:]) > LARGEST_SMALL_PICTURE:
        is_here = shape[0] == 3 and model is None and pretrained is None and has_weights(BACKBONE)
        return PRETRAINED if is_here else "pictures"
    is_colour = shape[0] == 3 and model != "convnet"
    return "small-colour-pictures" if is_colour or model == "whitened-vgg" else "small-pictures"


def _sizes(sizing: dict[str, int], count: int) -> dict[str, Any]:
    """Return epochs and batch size for `count` training examples."""
    epochs = round(sizing["examples"] / count)
    batch = 1 << max(0, round(count / sizing["steps_per_epoch"]).bit_length() - 1)
    return {
        "train.epochs": min(max(epochs, sizing["min_epochs"]), sizing["max_epochs"]),
        "train.batch_size": min(max(batch, sizing["min_batch"]), sizing["max_batch"], count),
    }


def _without(values: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {key: value for key, value in values.items() if not key.startswith(prefix)}
