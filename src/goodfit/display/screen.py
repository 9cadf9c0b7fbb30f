"""The screen that commands speak through; what it says is put together in the other files of this folder."""

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console, RenderableType
from rich.text import Text

from goodfit.display import catalogue, results
from goodfit.display.bar import LiveLine
from goodfit.display.notebook import NOTEBOOK_WIDTH, NotebookLine, is_notebook
from goodfit.display.text import printable
from goodfit.display.training import Training
from goodfit.display.work import Work

if TYPE_CHECKING:
    from goodfit.artefacts.records import Record
    from goodfit.artefacts.run import Run
    from goodfit.evaluation.metrics import Evaluation
    from goodfit.models.summary import Summary
    from goodfit.planning import Plan
    from goodfit.prediction import PredictionResult
    from goodfit.session import Session
    from goodfit.training.recipes import Recipe
    from goodfit.verification import Verification

__all__ = ["Display"]


class Display:
    """Shows everything on one stream: with a live bar and colours at a terminal, as plain lines elsewhere, or not at all.

    In a notebook the lines are plain and the bar is an output that is replaced. The environment's TERM and NO_COLOR are
    respected. As a context manager it is closed at the end, so that an error is said below the bar and not in it. `words`
    turns what is said, which speaks of the command line, into what is shown.
    """

    def __init__(self, stream: TextIO, is_silent: bool = False, words: Callable[[str], str] = str) -> None:
        self._is_terminal = not is_silent and stream.isatty() and os.environ.get("TERM", "") not in ("dumb", "unknown")
        self._is_live = self._is_terminal or (not is_silent and is_notebook(stream))
        self._is_silent = is_silent
        self._words = words
        self._console = _make_console(stream, is_silent, self._is_terminal)
        self._line: LiveLine | NotebookLine | None = None
        self._work: Work | None = None
        self._training: Training | None = None
        self._predictions = results.PredictionLines()

    def __enter__(self) -> "Display":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _print(self, lines: Iterable[Text]) -> None:
        for line in lines:
            self._console.print(line, soft_wrap=True)

    def say(self, text: str) -> None:
        """Show one line."""
        self._print([Text(printable(self._words(text)))])

    def progress(self, what: str, done: int, total: int) -> None:
        """Show how far a long piece of work is."""
        if self._work is None or self._work.what != what or done < self._work.done:
            self._end_work()
            self._work = work = Work(what, done, total)
            if self._is_live:
                self._start_line(lambda: work.draw(self._console.width))
        self._work.advance(done, total)
        if self._work.is_done:
            summary = self._work.summary()
            self._end_work()
            self._print([summary] if summary else [])
        elif not self._is_live and (line := self._work.plain()):
            self._print([line])

    def begin(self, session: "Session", run: Path) -> None:
        """Show what is about to be trained; from here on the bar looks at the state's step by itself."""
        if self._is_silent:
            return
        self._end_work()
        self._training = training = Training(session, run, is_live=self._is_live)
        self._print(training.heading(self._console.width))
        if self._is_live:
            self._start_line(lambda: training.draw(self._console.width))

    def observe(self, record: "Record") -> None:
        """Show one record of the run that has begun."""
        if self._training:
            lines = self._training.lines(record, self._console.width)
            if self._training.has_ended:
                self._stop_line()
            self._print(lines)

    def close(self) -> None:
        """Take the bar away; of a run that a signal stopped, say how it goes on."""
        self._end_work()
        self._stop_line()
        if self._training and not self._training.has_ended:
            if sys.exception() is None:  # an error on its way out says for itself what to do
                self._print(self._training.stopped())
            self._training = None

    def _start_line(self, draw: Callable[[], RenderableType]) -> None:
        self._stop_line()
        self._line = LiveLine(self._console, draw) if self._is_terminal else NotebookLine(draw)
        self._line.start()

    def _stop_line(self) -> None:
        if self._line:
            self._line.stop()
            self._line = None

    def _end_work(self) -> None:
        if self._work:
            self._stop_line()
            self._work = None

    def show_plan(self, plan: "Plan") -> None:
        """Show what would be trained, and the whole configuration with where each value is from."""
        self._print(catalogue.show_plan(plan, self._console.width))

    def show_run(self, run: "Run") -> None:
        """Show a finished run's result, where it lies, and what to do with it."""
        is_known = self._training is not None and self._training.has_ended
        self._print(results.describe_run(run, self._console.width, headlines=not is_known))

    def show_verification(self, found: "Verification") -> None:
        """Show what a replay of a run found."""
        self._print(results.describe_verification(found, self._console.width))

    def show_evaluation(self, evaluation: "Evaluation") -> None:
        """Show a result with its tables."""
        width = self._console.width
        self._print([*results.headlines(evaluation, width), *results.describe_evaluation(evaluation, width)])

    def show_prediction(self, result: "PredictionResult") -> None:
        """Show one prediction, or why there is none."""
        self._print([self._predictions.line(result)])

    def show_runs(self, runs: "Sequence[Run]") -> None:
        """Compare runs in a table, best first."""
        self._print(results.list_runs(runs, self._console.width))

    def show_datasets(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """List the data sets that are known by name."""
        self._print(catalogue.list_datasets(rows, self._console.width))

    def show_models(self) -> None:
        """List the models."""
        self._print(catalogue.list_models(self._console.width))

    def show_summary(self, summary: "Summary") -> None:
        """Show a model's layers and what it costs."""
        self._print(catalogue.show_summary(summary, self._console.width))

    def show_recipes(self, recipes: "Sequence[Recipe]") -> None:
        """List the recipes."""
        self._print(catalogue.list_recipes(recipes, self._console.width))

    def show_recipe(self, recipe: "Recipe") -> None:
        """Show a recipe's values and its evidence."""
        self._print(catalogue.show_recipe(recipe, self._console.width))


def _make_console(stream: TextIO, is_silent: bool, is_terminal: bool) -> Console:
    # A class name that the stream's encoding lacks must not stop a run.
    if "utf" not in (getattr(stream, "encoding", None) or "utf").lower() and hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="backslashreplace")
    return Console(
        file=stream,
        quiet=is_silent,
        width=NOTEBOOK_WIDTH if is_notebook(stream) else None,  # not that of the terminal that the notebook was started in
        force_terminal=is_terminal,
        force_interactive=is_terminal,
        force_jupyter=False,
        color_system="auto" if is_terminal else None,
        markup=False,
        emoji=False,
        highlight=False,
    )
