"""The verbs of the command line, put together."""

from typing import Annotated

import typer

from goodfit.cli import catalogue, convert, eject, evaluate, export, predict, resume, runs, train

__all__ = ["make_app"]


def make_app() -> typer.Typer:
    """Return the parser of all verbs."""
    app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
    app.command("train")(train.train)
    app.command("resume")(resume.resume)
    app.command("evaluate")(evaluate.evaluate)
    app.command("predict")(predict.predict)
    app.command("convert")(convert.convert)
    app.command("export")(export.export)
    app.command("eject")(eject.eject)
    app.command("runs")(runs.runs)
    app.command("datasets")(catalogue.datasets)
    app.command("models")(catalogue.models)
    app.command("recipes")(catalogue.recipes)
    app.callback()(_options)
    return app


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"goodfit {version('goodfit')}")  # noqa: T201
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """From labelled data to a tested, reusable model: trained fast, tested honestly, shipped as one safe file."""
