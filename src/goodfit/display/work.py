"""Long pieces of work other than training, such as the decoding of a picture folder."""

import time

from rich.table import Table
from rich.text import Text

from goodfit.display.bar import Pace, draw_progress
from goodfit.display.text import count, duration, percent

__all__ = ["Work"]

QUICK, SLOW = 1.0, 5.0  # seconds between plain lines: at least, and at most
UNNOTICED = 0.5  # seconds of work that nobody waits for, such as opening what is already decoded


class Work:
    """One piece of work, from the first news of it to the last."""

    def __init__(self, what: str, done: int, total: int) -> None:
        self.what = what
        self.done = done
        self._total = total
        self._pace = Pace(done)
        self._said = (time.perf_counter(), 0)  # when the last line was, and at which tenth

    def advance(self, done: int, total: int) -> None:
        """Take note of how much is done."""
        self.done, self._total = done, total

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to do."""
        return self.done >= self._total

    def plain(self) -> Text | None:
        """Return a line, if it is time for one: at each tenth, but not every moment, and after a silence."""
        now, tenth = time.perf_counter(), 10 * self.done // max(1, self._total)
        silence, tenths = now - self._said[0], tenth - self._said[1]
        if silence < SLOW and (silence < QUICK or tenths < 1):
            return None
        self._said = (now, tenth)
        left = self._pace.seconds_left(self.done, self._total)
        rest = f", {duration(left)} left" if left is not None else ""
        return Text(
            f"{self.what}: {count(self.done)} of {count(self._total)} ({percent(self.done / max(1, self._total))}){rest}"
        )

    def summary(self) -> Text | None:
        """Return the line that stays, if the work took a noticeable time."""
        if self._pace.elapsed() < UNNOTICED:
            return None
        return Text(f"{self.what}: {count(self._total)} in {duration(self._pace.elapsed())}")

    def draw(self, width: int) -> Table:
        """Draw the bar."""
        return draw_progress(self.what, self.done, self._total, self._pace, width)
