"""A line that moves: a thread of its own draws it again and again until it is stopped."""

from abc import ABC, abstractmethod
from threading import Event, Thread

__all__ = ["MovingLine"]


class MovingLine(ABC):
    """Is drawn every `pause` seconds between `start` and `stop`.

    When `stop` returns the thread has ended: one that is left to end by itself may be the last that holds what it draws, and
    an interpreter that is leaving ends a thread that then releases tensors with an abort (seen with rich's own).
    """

    def __init__(self, pause: float) -> None:
        self._pause = pause
        self._stopped = Event()
        self._thread = Thread(target=self._redraw, daemon=True)  # a program that forgets it ends nevertheless

    def start(self) -> None:
        """Show the line."""
        self._show()
        self._thread.start()

    def stop(self) -> None:
        """Remove the line; twice is as good as once."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()
        self._remove()

    def _redraw(self) -> None:
        while not self._stopped.wait(self._pause):
            self._draw_again()

    @abstractmethod
    def _show(self) -> None: ...

    @abstractmethod
    def _draw_again(self) -> None: ...

    @abstractmethod
    def _remove(self) -> None: ...
