"""Which screen a command speaks through, and its JSON."""

import json
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from goodfit.display import Display

__all__ = ["make_screen", "print_json"]


def make_screen(as_json: bool) -> "Display":
    """Return the screen: live at a terminal, plain lines elsewhere, on standard error where standard output is for JSON.

    Ranks after the first have no voice.
    """
    from goodfit.display import Display

    stream = sys.stderr if as_json else sys.stdout
    return Display(stream, is_silent=os.environ.get("RANK", "0") != "0")


def print_json(document: Mapping[str, Any]) -> None:
    """Print one JSON object on a line of standard output; ranks after the first print nothing.

    It is ASCII, so that any stream takes any class or file name, and a name of bytes that are no text is read back whole.
    """
    if os.environ.get("RANK", "0") == "0":
        print(json.dumps(document, allow_nan=False), flush=True)  # noqa: T201
