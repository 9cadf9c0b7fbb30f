"""The recipe `auto`: what a person gets by default, chosen from the data alone."""

from dataclasses import replace

from goodfit.data.dataset import Dataset
from goodfit.training.recipes import Recipe, load_recipe

__all__ = ["auto_recipe"]

LARGEST_SMALL_PICTURE = 64  # pixels a side


def auto_recipe(dataset: Dataset, model: str | None = None) -> Recipe:
    """Return the recipe for the kind and size of the data, and for `model` if that is already chosen.

    The number of epochs falls with the number of examples, from the recipe's `max_epochs` to its `min_epochs`, so that
    training sees about `examples` of them; the batch grows with it, from `min_batch` to `max_batch`, at about
    `steps_per_epoch` to the epoch.
    """
    shape = dataset.transform.input_shape
    if len(shape) == 3 and shape[0] in (1, 3):
        small = max(shape[1:]) <= LARGEST_SMALL_PICTURE
        recipe = load_recipe("small-pictures" if small else "pictures")
    else:
        recipe = load_recipe("table")
    if model == "mlp" or (model is None and len(shape) != 3):
        recipe = load_recipe("table")
    count, sizing = len(dataset.train), recipe.sizing
    epochs = round(sizing["examples"] / count)
    batch = 1 << max(0, round(count / sizing["steps_per_epoch"]).bit_length() - 1)
    values = {
        **recipe.values,
        "train.epochs": min(max(epochs, sizing["min_epochs"]), sizing["max_epochs"]),
        "train.batch_size": min(max(batch, sizing["min_batch"]), sizing["max_batch"], count),
    }
    if shape[0] == 3 and len(shape) == 3 and recipe.name != "table":
        values["augment.flip"] = True  # colour pictures are of things, and things have no handedness; digits do
    return replace(recipe, name=f"auto: {recipe.name}", values=values)
