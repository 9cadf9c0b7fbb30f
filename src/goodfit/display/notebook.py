"""The line that moves, in a notebook: one output that is replaced, where a terminal has its bar."""

import io
from collections.abc import Callable
from typing import Any, TextIO

from rich.console import Console, RenderableType

from goodfit.display.moving import MovingLine

__all__ = ["NOTEBOOK_WIDTH", "NotebookLine", "is_notebook"]

NOTEBOOK_WIDTH = 80
PAUSE = 1.0  # seconds between two looks


def is_notebook(stream: TextIO) -> bool:
    """Whether what is written to `stream` appears below the cell of a notebook."""
    return type(stream).__module__ == "ipykernel.iostream"


class NotebookLine(MovingLine):
    """A line in the output of a cell; in the end the output is left empty, for there is no taking it away."""

    def __init__(self, draw: Callable[[], RenderableType]) -> None:
        super().__init__(PAUSE)
        self._draw = draw
        self._output: Any = None

    def _show(self) -> None:
        from IPython.display import display

        self._output = display(self._content(), raw=True, display_id=True)  # type: ignore[no-untyped-call]

    def _draw_again(self) -> None:
        self._output.update(self._content(), raw=True)

    def _remove(self) -> None:
        self._output.update({"text/plain": ""}, raw=True)

    def _content(self) -> dict[str, str]:
        page = io.StringIO()
        Console(file=page, width=NOTEBOOK_WIDTH, color_system=None, force_jupyter=False, markup=False).print(self._draw())
        return {"text/plain": page.getvalue().rstrip()}
