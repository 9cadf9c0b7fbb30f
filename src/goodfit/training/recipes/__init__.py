"""Recipes: presets as data, a TOML file each, with the evidence for it; and `auto`, which chooses one from the data."""

import tomllib
from dataclasses import dataclass, field, replace
from importlib.resources import files
from typing import Any

from goodfit.errors import ConfigError, unknown_name

__all__ = ["LEVELS", "RECIPES", "Recipe", "load_recipe"]

LEVELS = ("fast", "auto", "best")  # of time for accuracy; what they become follows from the data

# Name -> file. The levels and those of the first group ask for no data set; the tutorials' name their own.
RECIPES = {
    "small-pictures": "small_pictures.toml",
    "small-colour-pictures": "small_colour_pictures.toml",
    "pictures": "pictures.toml",
    "pretrained-pictures": "pretrained_pictures.toml",
    "table": "table.toml",
    "own-model": "own_model.toml",
    "mnist-mlp": "mnist_mlp.toml",
    "cifar10-lenet": "cifar10_lenet.toml",
    "cifar10-quick": "cifar10_quick.toml",
}


@dataclass(frozen=True)
class Recipe:
    """Configuration values under dotted keys, what they are for, and what they have been seen to reach."""

    name: str
    about: str
    evidence: str
    values: dict[str, Any]
    sizing: dict[str, int]  # how epochs and batch are chosen for the number of examples
    levels: dict[str, "Recipe"] = field(default_factory=dict)  # `fast` and `best`, where there is evidence for them
    note: str = ""  # what the user should be told of the choice


def load_recipe(name: str) -> Recipe:
    """Return a recipe by name; raise ConfigError for an unknown one, with the nearest name."""
    if name in LEVELS:
        raise ConfigError(
            f"the recipe {name!r} is chosen from the data; goodfit train DATA --recipe {name} --dry-run shows what it becomes"
        )
    if name not in RECIPES:
        raise ConfigError(unknown_name("recipe", name, [*LEVELS, *RECIPES]))
    document = tomllib.loads(files(__package__).joinpath(RECIPES[name]).read_text(encoding="utf-8"))
    about, evidence, levels = document.pop("about"), " ".join(document.pop("evidence").split()), document.pop("levels", {})
    recipe = Recipe(name, about, evidence, _flat(document), document.get("sizing", {}))
    return replace(recipe, levels={level: _changed(recipe, changes) for level, changes in levels.items()})


def _changed(recipe: Recipe, changes: dict[str, dict[str, Any]]) -> Recipe:
    return replace(recipe, values=recipe.values | _flat(changes), sizing=recipe.sizing | changes.get("sizing", {}))


def _flat(document: dict[str, dict[str, Any]]) -> dict[str, Any]:
    sections = ((section, items) for section, items in document.items() if section != "sizing")
    return {f"{section}.{key}": value for section, items in sections for key, value in items.items()}
