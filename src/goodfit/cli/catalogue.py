"""goodfit datasets, models and recipes: what there is to choose from."""

from typing import Annotated

import typer

from goodfit.cli.options import RootOption

__all__ = ["datasets", "models", "recipes"]


def datasets(data_root: RootOption = None) -> None:
    """List the data sets that are known by name."""
    from goodfit.cli.output import make_screen
    from goodfit.data.named import list_named

    make_screen(as_json=False).show_datasets(list_named(data_root))


def models(
    name: Annotated[str | None, typer.Argument(help="Show one model's layers and cost.")] = None,
    shape: Annotated[str, typer.Option(metavar="C,H,W", help="Of one example.")] = "3,32,32",
    classes: Annotated[int, typer.Option(metavar="N", min=1, help="Number of outputs.")] = 10,
) -> None:
    """List the models, or show one: layers, output shapes, parameters, and the FLOPs of one example."""
    from goodfit.cli.output import make_screen
    from goodfit.display.catalogue import describe_model
    from goodfit.models import model_needs
    from goodfit.models.summary import summarize_by_name

    screen = make_screen(as_json=False)
    if name is None:
        screen.show_models()
    elif model_needs(name):  # without which there is nothing to count
        for line in describe_model(name):
            screen.say(line)
    else:
        screen.show_summary(summarize_by_name(name, shape, classes))


def recipes(name: Annotated[str | None, typer.Argument(help="Show one recipe's values and evidence.")] = None) -> None:
    """List the recipes, or show one."""
    from goodfit.cli.output import make_screen
    from goodfit.training.recipes import RECIPES, load_recipe

    screen = make_screen(as_json=False)
    if name is None:
        screen.show_recipes([load_recipe(known) for known in RECIPES])
    else:
        screen.show_recipe(load_recipe(name))
