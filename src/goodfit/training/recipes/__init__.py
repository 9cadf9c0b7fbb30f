"""Recipes: presets as data, a TOML file each, with the evidence for it; and `auto`, which chooses one from the data."""

import tomllib
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from goodfit.errors import ConfigError, unknown_name

__all__ = ["RECIPES", "Recipe", "load_recipe"]

# Name -> file. `auto` and those of the first group ask for no data set; the tutorials' name their own.
RECIPES = {
    "small-pictures": "small_pictures.toml",
    "pictures": "pictures.toml",
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
    sizing: dict[str, int]  # how `auto` chooses epochs and batch for the number of examples


def load_recipe(name: str) -> Recipe:
    """Return a recipe by name; raise ConfigError for an unknown one, with the nearest name."""
    if name == "auto":
        raise ConfigError("the recipe 'auto' is chosen from the data; goodfit train DATA --dry-run shows what it becomes")
    if name not in RECIPES:
        raise ConfigError(unknown_name("recipe", name, ["auto", *RECIPES]))
    document = tomllib.loads(files(__package__).joinpath(RECIPES[name]).read_text(encoding="utf-8"))
    about, evidence, sizing = document.pop("about"), " ".join(document.pop("evidence").split()), document.pop("sizing", {})
    values = {f"{section}.{key}": value for section, items in document.items() for key, value in items.items()}
    return Recipe(name, about, evidence, values, sizing)
