"""What there is to choose from, and what was chosen: data sets, models, recipes, and a run's whole configuration."""

import json
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from rich.text import Text

from goodfit.display.columns import Column, lay_out
from goodfit.display.heading import describe_plan, field, layers
from goodfit.display.text import count, flops, shape

if TYPE_CHECKING:
    from goodfit.models.summary import Summary
    from goodfit.planning import Plan
    from goodfit.training.recipes import Recipe

__all__ = ["describe_model", "list_datasets", "list_models", "list_recipes", "show_plan", "show_recipe", "show_summary"]


def show_plan(plan: "Plan", width: int) -> list[Text]:
    """Return what would be trained, and every key with its value and where that comes from."""
    total = f"{count(plan.total_steps, 'step')} in all; nothing was started"
    lines = describe_plan(plan, width) + field("", total, width)
    return lines + _settings(plan.config.flat(), plan.sources, width)


def _settings(values: Mapping[str, Any], sources: Mapping[str, str], width: int) -> list[Text]:
    """Return keys and values, grouped by section, with the source of each where it is known."""
    columns = [Column(""), Column("", flexible=True), Column("", style="dim")]
    rows: list[list[str]] = []
    sections: list[str] = []
    for key, value in values.items():
        section, _, name = key.partition(".")
        if section not in sections:
            sections.append(section)
            rows.append([section, "", ""])
        rows.append([f"  {name}", _toml(value), sources.get(key, "")])
    lines = lay_out(columns, rows, width, titles=False)
    for line in lines:
        if line.plain in sections:
            line.stylize("bold")
    return [Text(), *lines]


def _toml(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def list_datasets(rows: Sequence[Mapping[str, Any]], width: int) -> list[Text]:
    """Return a table of the data sets that are known by name."""
    columns = [
        Column("name", style="bold"),
        *(Column(title, right=True) for title in ("classes", "train", "test", "size")),
        Column("on disk"),
        Column("about", wraps=True),
    ]
    cells = [
        [
            row["name"],
            count(row["classes"]),
            count(row["train"]),
            count(row["test"]) if row["test"] else "-",
            shape(row["shape"]),
            "yes" if row["on_disk"] else "-",
            row["title"],
        ]
        for row in rows
    ]
    return lay_out(columns, cells, width)


def describe_model(name: str) -> list[str]:
    """Return what a built-in model is, what it needs to be given, and its arguments with their defaults."""
    import inspect

    from goodfit.models import MODELS, model_arguments, model_needs

    about = (inspect.getdoc(inspect.getmodule(MODELS[name])) or "").split("\n")[0]
    needed = [f"It needs model.{key}, {kind}" for key, kind in model_needs(name).items()]
    arguments = ", ".join(f"model.{key} = {_toml(value)}" for key, value in model_arguments(name).items())
    return [about, *needed, *([arguments] if arguments else [])]


def list_models(width: int) -> list[Text]:
    """Return a table of the built-in models with their arguments, and where others come from."""
    from goodfit.models import LIBRARIES, MODELS

    rows = [[label, line] for name in MODELS for label, line in zip_longest([name], describe_model(name), fillvalue="")]
    rows += [[f"{library}/NAME", f"An architecture of {library}."] for library in LIBRARIES]
    return lay_out(
        [Column("name", style="bold"), Column("about, and its arguments with their defaults", wraps=True)], rows, width
    )


def show_summary(summary: "Summary", width: int) -> list[Text]:
    """Return a model's layers and totals."""
    total = count(summary.parameters, "parameter")
    if summary.trainable_parameters < summary.parameters:
        total += f" ({count(summary.trainable_parameters)} trained)"
    return [*layers(summary.layers, width), Text(), Text(f"{total}, {flops(summary.flops)} for one example", "bold")]


def list_recipes(recipes: Sequence["Recipe"], width: int) -> list[Text]:
    """Return a table of the recipes."""
    rows = [
        ["auto", "Chosen from the data: a recipe below, with epochs and batch size for their number."],
        ["fast, best", "The same in less time, and with more accuracy."],
        *([recipe.name, recipe.about] for recipe in recipes),
    ]
    return lay_out([Column("name", style="bold"), Column("about", wraps=True)], rows, width)


def show_recipe(recipe: "Recipe", width: int) -> list[Text]:
    """Return a recipe's values and its evidence."""
    lines = (
        field("recipe", recipe.name, width) + field("about", recipe.about, width) + field("evidence", recipe.evidence, width)
    )
    return lines + _settings(recipe.values, {}, width)
