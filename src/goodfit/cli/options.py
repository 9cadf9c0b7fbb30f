"""Options that several verbs share, and how they become layers of configuration."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from goodfit.config import Layer
    from goodfit.models.own import OwnModel

__all__ = ["CodeOption", "JsonOption", "RootOption", "SetOption", "layers", "read_code"]

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object last, and all else on standard error.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Set any configuration key; may be repeated.")
]
CodeOption = Annotated[
    str | None, typer.Option("--model", metavar="M", help="The code of a model of your own, such as net.py:Net.")
]
RootOption = Annotated[
    Path | None, typer.Option("--data-root", metavar="DIR", help="Where named data sets lie or are downloaded [GOODFIT_DATA].")
]


def layers(flags: Mapping[str, tuple[str, Any]], assignments: Sequence[str] | None) -> "list[Layer]":
    """Return a layer for each flag that was given ({"--epochs": (key, value)}) and one for each `--set`."""
    from goodfit.config import Layer, parse_assignment

    given = [Layer(flag, {key: value}) for flag, (key, value) in flags.items() if value is not None]
    return given + [Layer("--set", dict([parse_assignment(text)])) for text in assignments or []]


def read_code(name: str | None) -> "OwnModel | None":
    """Return the model of the user's own that `--model` names, None if it names none."""
    from goodfit.errors import ModelError
    from goodfit.models.own import own_model
    from goodfit.user_code import is_code

    if name is not None and not is_code(name):
        raise ModelError(f"--model {name} is no code of your own; name a class in a file, such as --model net.py:Net")
    return own_model(name) if name else None
