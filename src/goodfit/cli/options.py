"""Options that several verbs share, and how they become layers of configuration."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from goodfit.config import Layer

__all__ = ["JsonOption", "RootOption", "SetOption", "layers"]

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object last, and all else on standard error.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Set any configuration key; may be repeated.")
]
RootOption = Annotated[
    Path | None, typer.Option("--data-root", metavar="DIR", help="Where named data sets lie or are downloaded [GOODFIT_DATA].")
]


def layers(flags: Mapping[str, tuple[str, Any]], assignments: Sequence[str] | None) -> "list[Layer]":
    """Return a layer for each flag that was given ({"--epochs": (key, value)}) and one for each `--set`."""
    from goodfit.config import Layer, parse_assignment

    given = [Layer(flag, {key: value}) for flag, (key, value) in flags.items() if value is not None]
    return given + [Layer("--set", dict([parse_assignment(text)])) for text in assignments or []]
