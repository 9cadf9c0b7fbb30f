"""What came of it: test results, predictions, and runs side by side."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.text import Text

from goodfit.display.columns import Column, lay_out
from goodfit.display.heading import field
from goodfit.display.text import count, duration, loss_number, number, percent, printable
from goodfit.errors import GoodfitError

if TYPE_CHECKING:
    from goodfit.artefacts.run import Run
    from goodfit.evaluation.metrics import ClassificationEvaluation, Evaluation
    from goodfit.prediction import PredictionResult
    from goodfit.verification import Verification

__all__ = ["PredictionLines", "describe_evaluation", "describe_run", "headline", "headlines", "list_runs", "resume_command"]

MOST_CLASSES = 20  # in a table; of more, the worst are shown
MOST_CONFUSION = 12
MOST_INPUT_WIDTH = 40


def headlines(evaluation: "Evaluation", width: int) -> list[Text]:
    """Say the result of one split in a line, and that of test-time augmentation, where there is one, in another."""
    tta = getattr(evaluation, "tta", None)
    return headline(evaluation, width) + (headline(tta, width, "with tta") if tta else [])


def headline(evaluation: "Evaluation", width: int, label: str = "") -> list[Text]:
    """Say the result of one split in a line."""
    from goodfit.evaluation.metrics import ClassificationEvaluation

    if isinstance(evaluation, ClassificationEvaluation):
        low, high = evaluation.accuracy_ci95
        first, rest = (
            f"accuracy {percent(evaluation.accuracy)}",
            f" of {count(evaluation.n)} (95% interval {percent(low)} to {percent(high)})",
        )
    else:
        first = f"rmse {number(evaluation.rmse)}"
        r2 = "undefined, as the targets do not vary" if evaluation.r2 is None else f"{evaluation.r2:.3f}"
        rest = f" on {count(evaluation.n)}, mae {number(evaluation.mae)}, R² {r2}"
    lines = field(label or evaluation.split, f"{first}{rest}, loss {loss_number(evaluation.loss)}", width)
    lines[0].highlight_words([first], "bold")
    return lines


def describe_evaluation(evaluation: "Evaluation", width: int, *, confusion: bool = True) -> list[Text]:
    """Return the tables of a classification: a line per class and, of few, which was taken for which."""
    from goodfit.evaluation.metrics import ClassificationEvaluation

    if not isinstance(evaluation, ClassificationEvaluation):
        return []
    lines = [Text(), *_per_class(evaluation, width)]
    if confusion and len(evaluation.per_class) <= MOST_CONFUSION:
        lines += [Text(), *_confusion(evaluation, width)]
    return lines


def _per_class(evaluation: "ClassificationEvaluation", width: int) -> list[Text]:
    columns = [
        Column("class", flexible=True),
        *(Column(title, right=True) for title in ("examples", "accuracy", "precision", "F1")),
    ]
    results = evaluation.per_class
    if len(results) > MOST_CLASSES:
        results = tuple(sorted(results, key=lambda result: result.accuracy))[:MOST_CLASSES]
    rows = [
        [result.name, count(result.n), percent(result.accuracy), percent(result.precision), percent(result.f1)]
        for result in results
    ]
    lines = lay_out(columns, rows, width, indent=2)
    if len(results) < len(evaluation.per_class):
        left_out = (
            f"the {len(results)} worst of {count(len(evaluation.per_class))} classes; goodfit evaluate --json gives them all"
        )
        lines.append(Text(f"  {left_out}", "dim"))
    return lines


def _confusion(evaluation: "ClassificationEvaluation", width: int) -> list[Text]:
    """Return the matrix, its columns headed by the classes' names or, where those are long, by their numbers."""
    names = [result.name for result in evaluation.per_class]
    counts = [["" if n == 0 else str(n) for n in row] for row in evaluation.confusion]
    widest = max(len(cell) for row in counts for cell in row)
    short = all(cell_len(name) <= max(widest, 4) for name in names)
    heads = names if short else [str(number) for number in range(1, len(names) + 1)]
    labels = names if short else [f"{number:>2} {name}" for number, name in enumerate(names, 1)]
    columns = [Column("", flexible=True), *(Column(printable(head), right=True) for head in heads)]
    rows = [[label, *row] for label, row in zip(labels, counts, strict=True)]
    title = Text("  how often the class of a row was taken for that of a column", "dim")
    lines = lay_out(columns, rows, width, indent=2)
    is_wide = any(line.cell_len > width for line in lines)
    return [title, *(lay_out(columns, rows, width, indent=2, gap=1) if is_wide else lines)]


def describe_run(run: "Run", width: int, *, headlines: bool = True) -> list[Text]:
    """Return a finished run's result and where it lies."""
    lines: list[Text] = []
    if run.test:
        lines += headline(run.test, width) if headlines else []
        lines += describe_evaluation(run.test, width, confusion=False)
    lines.append(Text())
    if run.test and not run.val:
        uses = f"without validation, the curve is on the test split too, which was looked at {count(run.test_uses, 'time')}; it chose nothing"
        lines += field("note", uses, width)
    path = shlex.quote(str(run.path))
    own = f" --model {run.best.architecture.name}" if run.best and run.best.architecture.is_code else ""
    lines += field("run", str(run.path)) + field("model", str(run.model))
    return lines + field("next", f"goodfit predict {path} INPUT...{own}") + field("", f"goodfit evaluate {path}{own}")


def describe_verification(found: "Verification", width: int) -> list[Text]:
    """Return what a replay of a run found."""
    lines = [line for damage in found.damage for line in field("damage", damage, width)]
    steps = ", ".join(f"{count(first)} to {count(last)}" for first, last in found.replayed)
    if found.difference:
        return lines + field("differs", f"{found.difference}, when steps {steps} were replayed", width)
    return lines + field("verified", f"steps {steps} were replayed and every bit is the same", width)


def list_runs(runs: Sequence["Run"], width: int) -> list[Text]:
    """Return a table of runs, those of the same data together and the best on validation first; then those not finished."""
    from goodfit.artefacts.checkpoint import newest_step

    found, damage = _sorted_out(runs)
    finished = sorted(found[True], key=_rank)
    columns = [
        Column("run", flexible=True),
        Column("data"),
        Column("model"),
        *(Column(title, right=True) for title in ("epochs", "time", "val")),
        Column("test"),
        Column("test uses", right=True),
    ]
    lines = lay_out(columns, [_run_cells(run) for run in finished], width) if finished else []
    unfinished = found[False]
    if finished and (unfinished or damage):
        lines.append(Text())
    if not runs:
        lines.append(Text("no runs here yet; goodfit train makes one"))
    for run in unfinished:
        step = newest_step(run.checkpoints)
        lines.append(Text(f"unfinished at step {count(step)}: {resume_command(run.path)}"))
    return lines + [Text(f"damaged: {printable(line)}", "red") for line in damage]


def _sorted_out(runs: Sequence["Run"]) -> tuple[dict[bool, list["Run"]], list[str]]:
    """Return the runs by whether they are finished, and what is wrong with those that cannot be read."""
    found: dict[bool, list[Run]] = {True: [], False: []}
    damage = []
    for run in runs:
        try:
            found[bool(run.end and run.test)].append(run)
        except GoodfitError as error:
            damage.append(str(error))
    return found, damage


def resume_command(run: Path, own: str | None = None) -> str:
    """Return the command that goes on with a run; `own` is the name of the user's code for its model."""
    return f"goodfit resume {printable(shlex.quote(str(run)))}" + (f" --model {own}" if own else "")


def _rank(run: "Run") -> tuple[str, bool, float]:
    """Order by the data, and then by what was reached on validation: never on test."""
    from goodfit.evaluation.metrics import ClassificationEvaluation

    data, val = str(run.best.training["data"]) if run.best else "", run.val
    if val is None:
        return data, True, 0.0
    return data, False, -val.accuracy if isinstance(val, ClassificationEvaluation) else val.rmse


def _run_cells(run: "Run") -> list[str]:
    summary = run.summary()
    data, model = (str(run.best.training["data"]), run.best.architecture.name) if run.best else ("", run.config.model.name)
    epochs = f"{summary['epochs']:g}"
    cells = [str(run.path), data, model, epochs, duration(summary["seconds"])]
    return [*cells, _short(run.val) if run.val else "-", _with_interval(run.test) if run.test else "-", count(run.test_uses)]


def _short(evaluation: "Evaluation") -> str:
    from goodfit.evaluation.metrics import ClassificationEvaluation

    if isinstance(evaluation, ClassificationEvaluation):
        return percent(evaluation.accuracy)
    return f"rmse {number(evaluation.rmse)}"


def _with_interval(evaluation: "Evaluation") -> str:
    from goodfit.evaluation.metrics import ClassificationEvaluation

    if not isinstance(evaluation, ClassificationEvaluation):
        return _short(evaluation)
    low, high = evaluation.accuracy_ci95
    return f"{_short(evaluation)} ({low:.1%} to {high:.1%})"


class PredictionLines:
    """Turns predictions, which come one by one, into lines that align with those before."""

    def __init__(self) -> None:
        self._widths = [0, 0]

    def line(self, result: "PredictionResult") -> Text:
        """Return the line of one input."""
        name = printable(result.input)
        if result.prediction is None:
            return Text(f"{self._pad(0, name)}  ").append(f"error: {printable(result.error or '')}", "red")
        document = result.prediction.to_json()
        if "value" in document:
            return Text(f"{self._pad(0, name)}  {number(document['value'], 6):>12}")
        label = printable(document["label"])
        others = ", ".join(f"{printable(item['label'])} {percent(item['probability'])}" for item in document["top"][1:])
        line = Text(f"{self._pad(0, name)}  ").append(self._pad(1, label), "bold").append(f"  {document['probability']:>6.1%}")
        return line.append(f"  ({others})", "dim") if others else line

    def _pad(self, index: int, text: str) -> str:
        width = cell_len(text)
        self._widths[index] = max(self._widths[index], min(width, MOST_INPUT_WIDTH))
        return text + " " * (self._widths[index] - width)
