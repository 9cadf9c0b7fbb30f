"""The line that moves, in a notebook: one output that is replaced, where a terminal has its bar."""

import io
from collections.abc import Callable
from threading import Event, Thread
from typing import Any, TextIO

from rich.console import Console, RenderableType

__all__ = ["NOTEBOOK_WIDTH", "NotebookLine", "is_notebook"]

NOTEBOOK_WIDTH = 80
PAUSE = 1.0  # seconds between two looks


def is_notebook(stream: TextIO) -> bool:
    """Whether what is written to `stream` appears below the cell of a notebook."""
    return type(stream).__module__ == "ipykernel.iostream"


class NotebookLine:
    """A line that a thread of its own draws again and again, in place, until it is stopped."""

    def __init__(self, draw: Callable[[], RenderableType]) -> None:
        self._draw = draw
        self._stopped = Event()
        self._thread = Thread(target=self._redraw, daemon=True)
        self._output: Any = None

    def start(self) -> None:
        """Show the line."""
        from IPython.display import display

        self._output = display(self._content(), raw=True, display_id=True)  # type: ignore[no-untyped-call]
        self._thread.start()

    def stop(self) -> None:
        """Leave the line empty; there is no taking an output away."""
        self._stopped.set()
        self._thread.join()
        self._output.update({"text/plain": ""}, raw=True)

    def _redraw(self) -> None:
        while not self._stopped.wait(PAUSE):
            self._output.update(self._content(), raw=True)

    def _content(self) -> dict[str, str]:
        page = io.StringIO()
        Console(file=page, width=NOTEBOOK_WIDTH, color_system=None, force_jupyter=False, markup=False).print(self._draw())
        return {"text/plain": page.getvalue().rstrip()}
