"""The live bars: one line at the bottom of a terminal, which looks at a run four times a second and costs its steps nothing."""

import atexit
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Column, Table

from goodfit.display.moving import MovingLine
from goodfit.display.text import count, duration, loss_number

if TYPE_CHECKING:
    from goodfit.artefacts.records import TrainRecord
    from goodfit.session import Session

__all__ = ["LiveLine", "Pace", "draw_progress", "draw_training"]

PAUSE = 0.25  # seconds between two looks
WINDOW = 12  # looks that a speed is measured over, three seconds
ECHO = 4  # columns for what a terminal itself writes, such as ^C
NARROW, ROOMY = 72, 96  # columns, from which on there is a place for the step, and for the loss


class LiveLine(MovingLine):
    """A line at the bottom of a terminal; what is printed meanwhile goes above it, and it goes when the program ends, at the latest."""

    def __init__(self, console: Console, draw: Callable[[], RenderableType]) -> None:
        super().__init__(PAUSE)
        self._live = Live(console=console, get_renderable=draw, auto_refresh=False, transient=True)

    def _show(self) -> None:
        atexit.register(self.stop)
        self._live.start(refresh=True)
        self._live.console.show_cursor(True)  # a process that is killed would leave the terminal without one

    def _draw_again(self) -> None:
        self._live.refresh()

    def _remove(self) -> None:
        self._live.stop()
        atexit.unregister(self.stop)


@dataclass
class Pace:
    """How fast something advances, from looking at it now and then; `pause` leaves out what takes other time."""

    done: int  # when it began
    started: float = field(default_factory=time.perf_counter)
    _looks: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=WINDOW), init=False)

    def look(self, done: int) -> float:
        """Return how much is done in a second, of late; 0 where nothing is."""
        now = time.perf_counter()
        self._looks.append((now, done))
        before, there = self._looks[0]
        return (done - there) / (now - before) if done > there else 0.0

    def average(self, done: int) -> float:
        """Return how much has been done in a second, since the beginning."""
        return (done - self.done) / max(1e-9, self.elapsed())

    def pause(self) -> None:
        """Forget the looks so far."""
        self._looks.clear()

    def seconds_left(self, done: int, total: int) -> float | None:
        """Return the time that the rest will take at the pace since the beginning, or None before it is known."""
        advanced, elapsed = done - self.done, time.perf_counter() - self.started
        return elapsed / advanced * (total - done) if advanced and elapsed > 1 else None

    def elapsed(self) -> float:
        """Return the seconds since the beginning."""
        return time.perf_counter() - self.started


def draw_training(session: "Session", pace: Pace, evaluated: int, latest: "TrainRecord | None", unit: str, width: int) -> Table:
    """Draw the state of a run on a screen of that width; `evaluated` is the step of the last evaluation."""
    plan, step = session.plan, session.state.step
    per_epoch, total = plan.steps_per_epoch, plan.total_steps
    if step > evaluated and step % per_epoch == 0:
        pace.pause()
        speed = "evaluating"
    elif step == total:
        speed = "testing"
    else:
        # An epoch that takes a moment is looked at once at most.
        per_second = pace.look(step) * plan.batch_size or (latest.examples_per_second if latest else 0)
        speed = f"{count(round(per_second))} {unit}/s" if per_second else ""
    is_waiting = speed in ("evaluating", "testing")  # of which nobody knows how long it takes
    epoch = (
        f"epoch {count((step - 1) // per_epoch + 1 if is_waiting else step // per_epoch + 1)}/{count(plan.config.train.epochs)}"
    )
    details = [f"step {count(step)}/{count(total)}"] if width >= NARROW else []
    details += [f"loss {loss_number(latest.loss)}"] if latest and width >= ROOMY else []
    return _grid(epoch, step, total, [*details, speed, "" if is_waiting else _left(pace, step, total)], width)


def draw_progress(what: str, done: int, total: int, pace: Pace, width: int) -> Table:
    """Draw a long piece of work on a screen of that width."""
    per_second = round(pace.look(done) or pace.average(done))
    speed = f"{count(per_second)}/s" if per_second else ""
    return _grid(what, done, total, [f"{count(done)}/{count(total)}", speed, _left(pace, done, total)], width)


def _left(pace: Pace, done: int, total: int) -> str:
    left = pace.seconds_left(done, total)
    return f"{duration(left)} left" if left is not None else ""


def _grid(before: str, done: int, total: int, after: list[str], width: int) -> Table:
    texts = [Column(no_wrap=True, overflow="crop") for _ in after]
    # Where a terminal echoes ^C, there must be a place for it on the line: a second one would not be taken away.
    grid = Table.grid(Column(no_wrap=True), Column(ratio=1), *texts, padding=(0, 2, 0, 0), expand=True)
    grid.width = width - ECHO
    bar = ProgressBar(total=max(1, total), completed=done, complete_style="cyan", finished_style="cyan")
    grid.add_row(before, bar, *after)
    return grid
