"""Figures of a prediction, of a run's history, and of which classes are taken for which.

They are made without pyplot: no window, no backend, no state but the figure's own. A notebook shows them by itself; a script
writes them with `figure.savefig("figure.png")`.
"""

import io
import os
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from math import ceil, nan, sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from goodfit.artefacts.predictor import Estimate, Prediction
from goodfit.artefacts.run import Run
from goodfit.data.images import open_picture
from goodfit.display.text import count, number, percent, printable
from goodfit.errors import DataError, FileError, kind_of
from goodfit.evaluation.metrics import ClassificationEvaluation, Evaluation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

__all__ = ["Pictured", "draw_pictures", "plot_confusion", "plot_history", "plot_prediction", "plot_predictions", "render"]

MOST_BARS = 20
MOST_PICTURES = 64
MOST_PIXELS = 800  # of a drawn picture's longer side
NAME_WIDTH = 24  # letters in a line of a class name
NAME_LINES = 3
PATH_WIDTH = 20  # letters of a path above a picture
LETTER = 0.085  # inches that a letter takes, and a line of them
LINE = 0.19
MOST_COUNTS = 20  # classes, up to which the cells of a confusion matrix hold their counts
MOST_NAMES = 110  # classes, up to which each has its name at the axis
MOST_MARKERS = 40
MOST_DETAILED = 15  # epochs, up to which every training loss that was logged is drawn
BAR, QUIET = "tab:blue", "0.6"

# Fonts for the scripts that matplotlib's own font lacks, where they are installed.
OTHER_FONTS = (
    *("Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans CJK KR", "Hiragino Sans", "PingFang SC", "Apple SD Gothic Neo"),
    *("Yu Gothic", "Microsoft YaHei", "Malgun Gothic", "WenQuanYi Micro Hei", "Noto Sans Devanagari", "Noto Sans Thai"),
)


class Pictured(NamedTuple):
    """A picture, in any form that a predictor takes, what was predicted of it, and a name to head it with."""

    image: Any
    prediction: Prediction | Estimate
    name: str = ""


def plot_prediction(image: Any, prediction: Prediction | Estimate) -> "Figure":
    """Draw a picture beside bars of the probabilities in its prediction, most probable first.

    `image` is what was predicted: a path, a PIL image, or an array or tensor (H, W), (H, W, C) or (C, H, W), 8-bit or from 0
    to 1. Ask the predictor for more classes with `top`. Raises DataError for a picture that cannot be read.
    """
    if not isinstance(prediction, Prediction | Estimate):
        raise DataError(f"{kind_of(prediction)} is no prediction; give one picture, and what the predictor says of it")
    return plot_predictions([Pictured(image, prediction)])


def plot_predictions(items: Sequence[Pictured]) -> "Figure":
    """Draw pictures beside their predictions in a grid of about the shape of a page."""
    pictures = [_pixels(item.image) for item in items]
    columns = max(1, round(sqrt(len(items) / 2)))
    rows = ceil(len(items) / columns)
    names = [[_wrap(entry.label) for entry in _entries(item.prediction)] for item in items]
    bars = max(1, *(len(some) for some in names))
    lines = max([1, *(name.count("\n") + 1 for some in names for name in some)])
    height = max(2.0, bars * (lines * LINE + 0.1) + 0.5)
    side = min(height, 3.2)
    figure = _new_figure(columns * (side + 3.2), rows * height)
    grid = figure.add_gridspec(rows, 2 * columns, width_ratios=[side, 3.2] * columns)
    for index, (item, picture) in enumerate(zip(items, pictures, strict=True)):
        row, column = divmod(index, columns)
        _draw_picture(figure.add_subplot(grid[row, 2 * column]), picture, item.name)
        axes = figure.add_subplot(grid[row, 2 * column + 1])
        _draw_prediction(axes, item.prediction, names[index], bars)
        if index + columns < len(items):  # the column goes on below, and its last one says what the bars are
            axes.set_xlabel("")
    return _finish(figure)


def _entries(prediction: Prediction | Estimate) -> Sequence[Any]:
    return prediction.top[:MOST_BARS] if isinstance(prediction, Prediction) else ()


def _pixels(image: Any) -> "NDArray[Any]":
    """Return a picture upright as (H, W, 3) uint8, no larger than a figure can show."""
    import numpy as np

    if hasattr(image, "detach"):  # a tensor
        image = image.detach().cpu()
        image = (image.float() if image.is_floating_point() else image).numpy()
    picture = open_picture(image, "RGB")
    picture.thumbnail((MOST_PIXELS, MOST_PIXELS))
    return np.asarray(picture)


def _draw_picture(axes: "Axes", picture: "NDArray[Any]", name: str) -> None:
    axes.imshow(picture)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    if name:
        axes.set_title(_short_path(printable(name)), loc="left", fontsize="small", parse_math=False)


def _short_path(name: str) -> str:
    """Return as many of a path's last parts as have room."""
    while len(name) > PATH_WIDTH and "/" in name:
        name = name.partition("/")[2]
    return name if len(name) <= PATH_WIDTH else f"…{name[1 - PATH_WIDTH :]}"


def _draw_prediction(axes: "Axes", prediction: Prediction | Estimate, names: Sequence[str], bars: int) -> None:
    if isinstance(prediction, Estimate):
        axes.axis("off")
        axes.text(0.05, 0.5, number(prediction.value, 6), fontsize="xx-large", verticalalignment="center")
        return
    entries = _entries(prediction)
    shares = [entry.probability for entry in entries]
    axes.barh(range(len(shares)), [1.0] * len(shares), color=QUIET, alpha=0.15)
    axes.barh(range(len(shares)), shares, color=[BAR] + [QUIET] * (len(shares) - 1))
    for row, share in enumerate(shares):
        axes.text(1.03, row, percent(share), verticalalignment="center_baseline")
    axes.set_yticks(range(len(shares)), labels=names, parse_math=False)
    axes.tick_params(left=False, bottom=False, labelbottom=False)
    axes.spines[:].set_visible(False)
    axes.set(xlim=(0, 1), ylim=(max(bars, 2) - 0.5, -0.5))
    left_out = len(prediction.top) - len(shares)
    axes.set_xlabel(f"probability ({count(left_out)} more classes left out)" if left_out else "probability", fontsize="small")


def draw_pictures(pictures: Any, names: Sequence[str]) -> "Figure":
    """Draw a batch (N, C, H, W) from 0 to 1 in a grid of up to 64 pictures, each under its name."""
    shown = min(len(names), MOST_PICTURES)
    columns = min(shown, ceil(sqrt(shown)))
    rows = ceil(shown / columns)
    figure = _new_figure(max(3.0, columns * 1.2), rows * 1.45)
    for index in range(shown):
        axes = figure.add_subplot(rows, columns, index + 1)
        _draw_picture(axes, _pixels(pictures[index]), "")
        axes.set_title(_wrap(printable(names[index]), 14), fontsize="x-small", parse_math=False)
    return _finish(figure)


def plot_history(run: Run | str | os.PathLike[str]) -> "Figure":
    """Draw the losses of a run, or of the run in a folder, and its accuracy (or rmse), over its epochs; the best step is marked.

    A training loss is the mean since the one before, and drawn in the middle of the time that it speaks for. Raises FileError
    for a run that has logged nothing yet.
    """
    from matplotlib.ticker import MaxNLocator, PercentFormatter, StrMethodFormatter

    run = run if isinstance(run, Run) else Run(Path(run))
    records = run.metrics
    training = [record for record in records if record["event"] == "train"]
    evaluations = [record for record in records if record["event"] == "evaluation"]
    if not training and not evaluations:
        raise FileError(f"{str(run.path)!r} has logged nothing yet; let it train on: goodfit resume {run.path}")
    figure = _new_figure(10, 3.8)
    of_loss, of_metric = figure.subplots(1, 2, sharex=True)
    _draw_losses(of_loss, training, evaluations)
    metric = "rmse" if any("rmse" in record for record in evaluations) else "accuracy"
    _draw_curve(of_metric, evaluations, metric, color="tab:orange")
    if metric == "accuracy":
        of_metric.yaxis.set_major_formatter(PercentFormatter(1.0))
        of_metric.set_ylabel("accuracy")
    else:
        of_metric.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
        of_metric.set_ylabel(f"rmse, in the unit of {printable(run.config.data.target or 'the target')}", parse_math=False)
    best = next((record for record in reversed(evaluations) if record["best"]), None)
    for axes, key in ((of_loss, "loss"), (of_metric, metric)):
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        if best:
            _mark_best(axes, best, key)
        if axes.get_legend_handles_labels()[1]:
            axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, fontsize="small", columnspacing=1.2)
    return _finish(figure)


def _draw_losses(axes: "Axes", training: Sequence[dict[str, Any]], evaluations: Sequence[dict[str, Any]]) -> None:
    """Draw both losses, on a logarithmic scale where they span much."""
    epochs, means = _training_losses(training)
    axes.plot(epochs, means, color="tab:blue", label="training", linewidth=1.2)
    _draw_curve(axes, evaluations, "loss", color="tab:orange")
    losses = [loss for loss in (*means, *_values(evaluations, "loss")) if loss == loss]
    is_wide = bool(losses) and min(losses) > 0 and max(losses) > 100 * min(losses)
    axes.set_yscale("log" if is_wide else "linear")
    axes.set_ylabel("loss (logarithmic)" if is_wide else "loss")


def _training_losses(training: Sequence[dict[str, Any]]) -> tuple[list[float], list[float]]:
    """Return when each mean loss was, in epochs done, and the losses: all of a short run, of a long one a mean an epoch."""
    ends = [0.0, *(record["epoch"] for record in training)]
    parts = list(zip(pairwise(ends), _values(training, "loss"), strict=True))
    if ends[-1] <= MOST_DETAILED:
        return [(before + end) / 2 for (before, end), _ in parts], [loss for _, loss in parts]
    epochs: dict[int, list[tuple[float, float]]] = {}
    for (before, end), loss in parts:
        epochs.setdefault(ceil(end), []).append((end - before, loss))
    means = [sum(share * loss for share, loss in some) / sum(share for share, _ in some) for some in epochs.values()]
    return [epoch - 0.5 for epoch in epochs], means


def _draw_curve(axes: "Axes", evaluations: Sequence[dict[str, Any]], key: str, color: str) -> None:
    if not evaluations:
        return
    name = {"val": "validation", "test": "test (chooses nothing)"}[evaluations[-1]["split"]]
    marker = "o" if len(evaluations) <= MOST_MARKERS else None
    epochs = [record["epoch"] for record in evaluations]
    axes.plot(epochs, _values(evaluations, key), color=color, marker=marker, markersize=4, label=name)


def _values(records: Sequence[dict[str, Any]], key: str) -> list[float]:
    """Return one number of each record; what was not finite leaves a gap."""
    return [nan if record[key] is None else record[key] for record in records]


def _mark_best(axes: "Axes", best: dict[str, Any], key: str) -> None:
    value = percent(best[key]) if key == "accuracy" else number(best[key])
    axes.axvline(best["epoch"], color=QUIET, linestyle=":", zorder=0)
    label = f"best model: {value} after epoch {count(best['epoch'])}"
    axes.plot(best["epoch"], best[key], "*", color="tab:red", markersize=13, linestyle="none", label=label)


def plot_confusion(evaluation: Evaluation) -> "Figure":
    """Draw the confusion matrix: a row for each true class, a column for each predicted one.

    The colour is the share of the row, on a scale that lets rare mistakes be seen; cells of few classes hold their counts.
    Raises DataError for the evaluation of a regression.
    """
    if not isinstance(evaluation, ClassificationEvaluation):
        raise DataError(f"{kind_of(evaluation)} has no confusion matrix; give the evaluation of a classification")
    import numpy as np
    from matplotlib.colors import PowerNorm
    from matplotlib.ticker import PercentFormatter

    counts = np.array(evaluation.confusion)
    shares = counts / counts.sum(axis=1, keepdims=True).clip(1)
    names = [result.name for result in evaluation.per_class]
    side = _side(len(names))
    letters = int(side / len(names) / LETTER)  # that have room below a column
    has_room = all(len(word) <= letters for name in names for word in printable(name).split())
    beside, below = [_wrap(name) for name in names], [_wrap(name, letters if has_room else NAME_WIDTH) for name in names]
    width = LETTER * max(len(line) for name in beside for line in name.splitlines())
    height = LINE * max(name.count("\n") + 1 for name in below) if has_room else width
    figure = _new_figure(side + width + 1.4, side + height + 0.9)
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.4, 0, 1))
    _name_classes(axes, beside, below, side, rotation=0 if has_room else 90)
    if len(names) <= MOST_COUNTS:
        _write_counts(axes, counts, shares > 0.28, side)
    bar = figure.colorbar(image, cax=axes.inset_axes((1 + 0.1 / side, 0, 0.2 / side, 1)), ticks=[0, 0.01, 0.1, 0.25, 0.5, 1])
    bar.ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    bar.set_label("share of the true class")
    bar.outline.set_visible(False)
    figure.suptitle(f"{evaluation.split}: {evaluation.summary().split(',')[0]}", fontsize="medium", parse_math=False)
    _finish(figure)
    with _letters_as_they_are():
        for _ in range(3):
            figure.draw_without_rendering()  # of square axes the layout is right from the third or fourth time on
    return figure


def _side(num_classes: int) -> float:
    """Return the inches that a matrix is wide and high: with counts in its cells, with a name for each row, or with some."""
    if num_classes <= MOST_COUNTS:
        return max(3.6, 0.5 * num_classes)
    return min(14.0, max(8.0, 0.14 * num_classes))


def _name_classes(axes: "Axes", beside: Sequence[str], below: Sequence[str], side: float, rotation: float) -> None:
    every = ceil(len(beside) / MOST_NAMES)
    shown = range(0, len(beside), every)
    points = min(10.0, 0.8 * 72 * side / len(shown))
    axes.set_xticks(shown, labels=below[::every], rotation=rotation, fontsize=points, parse_math=False)
    axes.set_yticks(shown, labels=beside[::every], fontsize=points, parse_math=False)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _write_counts(axes: "Axes", counts: "NDArray[Any]", is_dark: "NDArray[Any]", side: float) -> None:
    """Write the counts into the cells, in letters that the longest of them leaves room for; nothing for none."""
    widest = len(count(int(counts.max())))
    points = min(10.0, 72 * side / len(counts) / (0.65 * max(widest, 3)))
    for (row, column), n in zip(((r, c) for r in range(len(counts)) for c in range(len(counts))), counts.flat, strict=True):
        if n:
            color = "white" if is_dark[row, column] else "black"
            axes.text(column, row, count(int(n)), color=color, fontsize=points, ha="center", va="center")


def _wrap(name: str, width: int = NAME_WIDTH) -> str:
    """Break a long class name into lines, the last of which says if there was more."""
    return "\n".join(textwrap.wrap(printable(name), width, max_lines=NAME_LINES, placeholder=" …")) or "''"


def _new_figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    figure.set_layout_engine("constrained", w_pad=0.08, h_pad=0.06)
    # Where pyplot is not imported, this is what a notebook asks a figure for.
    figure._repr_png_ = partial(_notebook_png, figure)  # type: ignore[attr-defined]
    return figure


def _finish(figure: "Figure") -> "Figure":
    """Let names in other scripts find a font for themselves."""
    from matplotlib.font_manager import fontManager
    from matplotlib.text import Text

    installed = set(fontManager.get_font_names())
    others = [name for name in OTHER_FONTS if name in installed]
    for text in figure.findobj(Text) if others else []:
        assert isinstance(text, Text)
        text.set_fontfamily([*text.get_fontfamily(), *others])
    return figure


def _notebook_png(figure: "Figure") -> tuple[bytes, dict[str, int]]:
    """Return the figure for a notebook, twice as fine as its size on the page, for screens that can show that."""
    width, height = (round(pixels) for pixels in figure.get_size_inches() * figure.dpi)
    return render(figure, "png", dpi=2 * figure.dpi), {"width": width, "height": height}


def render(figure: "Figure", kind: str, dpi: float = 150) -> bytes:
    """Return the figure as a file of that kind, "png", "pdf" or "svg"; letters that no font has are drawn as boxes."""
    stream = io.BytesIO()
    with _letters_as_they_are():
        figure.savefig(stream, format=kind, dpi=dpi)
    return stream.getvalue()


@contextmanager
def _letters_as_they_are() -> Iterator[None]:
    """Say nothing of letters that no font has; the boxes in their places speak for themselves."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        yield
