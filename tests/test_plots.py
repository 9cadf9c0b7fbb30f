"""Figures: what they show is read back from them, and nothing in them is cut or lies over another."""

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

import goodfit
from goodfit.artefacts.predictor import ClassProbability, Estimate, Prediction
from goodfit.artefacts.run import Run
from goodfit.errors import DataError, FileError
from goodfit.evaluation.metrics import ClassificationCounts, ClassificationEvaluation, RegressionEvaluation
from goodfit.plots import MOST_BARS, Pictured, plot_confusion, plot_history, plot_prediction, plot_predictions, render

LONG = "malignant tumour of the upper respiratory tract, stage $3$ or later, with complications of every kind"
MATH = r"$\oops$"  # were it read as a formula, drawing would fail
AWKWARD = (LONG, "German_shorthaired_pointer_with_a_very_long_name", MATH, "日本", "two\nlines", "caf\udce9", "")


def prediction(names: tuple[str, ...] = ("cat", "dog", "ship"), shares: tuple[float, ...] = (0.7, 0.2, 0.05)) -> Prediction:
    return Prediction(names[0], shares[0], tuple(ClassProbability(*pair) for pair in zip(names, shares, strict=True)))


def picture(height: int = 8, width: int = 12) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def evaluation(num_classes: int, names: tuple[str, ...] = (), count: int = 2000) -> ClassificationEvaluation:
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(num_classes, (count,), generator=generator)
    predicted = torch.where(torch.rand(count, generator=generator) < 0.8, targets, (targets + 1) % num_classes)
    counts = ClassificationCounts(num_classes, torch.device("cpu"))
    counts.update(torch.nn.functional.one_hot(predicted, num_classes).float(), torch.zeros(count), targets)
    return counts.result("test", names or [f"aquarium_fish_{index}" for index in range(num_classes)])


def texts(figure: Figure) -> list[Text]:
    """Return the texts that are drawn: those at ticks out of sight are not."""
    unseen = set()
    for axis in (axis for axes in figure.findobj(Axes) for axis in (axes.xaxis, axes.yaxis)):  # type: ignore[attr-defined]
        low, high = sorted(axis.get_view_interval())
        ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
        unseen |= {label for tick in ticks if not low <= tick.get_loc() <= high for label in (tick.label1, tick.label2)}
    found = [text for text in figure.findobj(Text) if isinstance(text, Text) and text not in unseen]
    return [text for text in found if text.get_text() and text.get_visible()]


def assert_tidy(figure: Figure) -> None:
    """Every text lies within the figure, and no two of them over each other."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    boxes = [(text.get_text(), text.get_window_extent(canvas.get_renderer())) for text in texts(figure)]
    for text, box in boxes:
        assert box.x0 >= -1, f"{text!r} is cut"
        assert box.y0 >= -1, f"{text!r} is cut"
        assert box.x1 <= figure.bbox.x1 + 1, f"{text!r} is cut"
        assert box.y1 <= figure.bbox.y1 + 1, f"{text!r} is cut"
    for (one, first), (other, second) in combinations(boxes, 2):
        width, height = (min(first.max[i], second.max[i]) - max(first.min[i], second.min[i]) for i in (0, 1))
        assert width <= 1 or height <= 1, f"{one!r} lies over {other!r}"


def bars(figure: Figure, panel: int = 1) -> dict[str, float]:
    axes = figure.axes[panel]
    names = [label.get_text() for label in axes.get_yticklabels()]
    widths = [bar.get_width() for bar in axes.patches]  # type: ignore[attr-defined]
    return dict(zip(names, widths[len(names) :], strict=True))  # the first are the tracks


def test_a_prediction_is_a_picture_beside_its_probabilities() -> None:
    figure = goodfit.plot_prediction(picture(), prediction())
    assert np.array_equal(np.asarray(figure.axes[0].images[0].get_array()), picture())
    assert bars(figure) == {"cat": 0.7, "dog": 0.2, "ship": 0.05}
    assert {"70.0%", "20.0%", "5.0%", "probability"} <= {text.get_text() for text in texts(figure)}
    low, high = figure.axes[1].get_ylim()
    assert low > high, "the most probable is at the top"
    assert figure.axes[1].get_xlim() == (0, 1)
    assert_tidy(figure)


def test_every_form_of_a_picture_is_the_same_picture() -> None:
    pixels = picture()
    Image.fromarray(pixels).save("it.png")
    forms = ["it.png", Path("it.png"), Image.open("it.png"), pixels, pixels.transpose(2, 0, 1), pixels / 255]
    forms += [torch.from_numpy(pixels.transpose(2, 0, 1).copy()), torch.from_numpy(pixels / np.float32(255))]
    for form in forms:
        shown = plot_prediction(form, prediction()).axes[0].images[0].get_array()
        assert np.array_equal(np.asarray(shown), pixels)
    grey = plot_prediction(torch.zeros(1, 8, 8, requires_grad=True), prediction()).axes[0].images[0].get_array()
    assert np.asarray(grey).shape == (8, 8, 3)


def test_what_is_no_picture_or_no_prediction_is_refused() -> None:
    with pytest.raises(DataError, match=r"absent\.png cannot be read"):
        plot_prediction("absent.png", prediction())
    with pytest.raises(DataError, match=r"shape \(2, 3, 8, 8\)"):
        plot_prediction(torch.zeros(2, 3, 8, 8), prediction())
    with pytest.raises(DataError, match="from -2 to"):
        plot_prediction(torch.linspace(-2, 2, 64).view(8, 8), prediction())
    with pytest.raises(DataError, match="a list is no prediction"):
        plot_prediction(picture(), [prediction()])  # type: ignore[arg-type]


def test_awkward_names_stay_readable() -> None:
    figure = plot_prediction(picture(), prediction(AWKWARD, (0.4, 0.3, 0.1, 0.1, 0.05, 0.03, 0.02)))
    names = list(bars(figure))
    assert names[0] == "malignant tumour of the\nupper respiratory tract,\nstage $3$ or later, …"
    assert names[2:] == [MATH, "日本", "two\\nlines", "caf\\udce9", "''"]
    for kind, beginning in (("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")):
        assert render(figure, kind).startswith(beginning)


def test_many_bars_are_cut_and_it_is_said() -> None:
    names = tuple(f"class {index}" for index in range(100))
    figure = plot_prediction(picture(), prediction(names, (0.01,) * 100))
    assert len(bars(figure)) == MOST_BARS
    assert figure.axes[1].get_xlabel() == "probability (80 more classes left out)"
    assert_tidy(figure)


def test_a_number_stands_beside_its_picture() -> None:
    figure = plot_prediction(picture(300, 8), Estimate(1234.5678))
    assert [text.get_text() for text in texts(figure)] == ["1,234.57"]
    assert_tidy(figure)


@pytest.mark.parametrize("number", [1, 3, 20])
def test_a_grid_holds_every_picture(number: int) -> None:
    items = [Pictured(picture(), prediction(), f"some/where/far/away/class {index}/{MATH}.jpg") for index in range(number)]
    figure = plot_predictions(items)
    assert [axes.get_title(loc="left") for axes in figure.axes[::2]] == [f"class {index}/{MATH}.jpg" for index in range(number)]
    assert [bars(figure, panel)["cat"] for panel in range(1, 2 * number, 2)] == [0.7] * number
    assert_tidy(figure)


def run_of(records: list[dict[str, Any]], config: str = "") -> Run:
    Path("run").mkdir(exist_ok=True)
    Path("run/config.toml").write_text(config)
    Path("run/metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return Run(Path("run"))


def train_record(epoch: float, loss: float | None) -> dict[str, Any]:
    return {"event": "train", "step": round(epoch * 10), "epoch": epoch, "loss": loss}


def evaluation_record(epoch: int, loss: float, best: bool, split: str = "val", **metrics: float) -> dict[str, Any]:
    return {"event": "evaluation", "step": 10 * epoch, "epoch": epoch, "split": split, "loss": loss, "best": best, **metrics}


def curves(figure: Figure, panel: int) -> dict[str, tuple[list[float], list[float]]]:
    lines = figure.axes[panel].get_lines()
    return {
        str(line.get_label()): (np.asarray(line.get_xdata()).tolist(), np.asarray(line.get_ydata()).tolist()) for line in lines
    }


def test_a_history_shows_each_number_where_it_was_measured() -> None:
    records = [
        train_record(0.5, 2.0),
        train_record(1.0, 1.0),
        evaluation_record(1, 0.8, True, accuracy=0.75),
        train_record(1.5, None),
        train_record(2.0, 0.5),
        evaluation_record(2, 0.9, False, accuracy=0.7),
    ]
    figure = plot_history(run_of(records))
    losses, accuracies = curves(figure, 0), curves(figure, 1)
    assert losses["training"][0] == [0.25, 0.75, 1.25, 1.75]
    assert np.array_equal(losses["training"][1], [2.0, 1.0, np.nan, 0.5], equal_nan=True)
    assert losses["validation"] == ([1, 2], [0.8, 0.9])
    assert losses["best model: 0.8000 after epoch 1"] == ([1], [0.8])
    assert accuracies["validation"] == ([1, 2], [0.75, 0.7])
    assert accuracies["best model: 75.0% after epoch 1"] == ([1], [0.75])
    assert [axes.get_ylabel() for axes in figure.axes] == ["loss", "accuracy"]
    assert_tidy(figure)
    for axes in figure.axes:
        legend = axes.get_legend()
        assert legend
        assert legend.get_window_extent().y0 >= axes.get_window_extent().y1, "it lies over the curves"


def test_a_long_history_has_a_training_loss_an_epoch() -> None:
    records = [train_record(epoch + part, epoch + part) for epoch in range(20) for part in (0.75, 1.0)]
    epochs, losses = curves(plot_history(run_of(records)), 0)["training"]
    assert epochs == [epoch + 0.5 for epoch in range(20)]
    assert losses == pytest.approx([epoch + 0.75 * 0.75 + 0.25 for epoch in range(20)])


def test_a_regression_has_its_error_in_the_unit_of_the_target() -> None:
    records = [train_record(1, 1.0), evaluation_record(1, 0.01, True, rmse=120_000.0), train_record(2, 0.001)]
    figure = plot_history(run_of(records, f"data.target = '{MATH}'\n"))
    assert figure.axes[0].get_ylabel() == "loss (logarithmic)"
    assert figure.axes[1].get_ylabel() == f"rmse, in the unit of {MATH}"
    assert curves(figure, 1)["best model: 120,000 after epoch 1"] == ([1], [120_000.0])
    assert_tidy(figure)


def test_a_curve_on_the_test_split_chooses_nothing() -> None:
    figure = plot_history(run_of([train_record(1, 1.0), evaluation_record(1, 0.5, False, "test", accuracy=0.9)]))
    assert set(curves(figure, 1)) == {"test (chooses nothing)"}


def test_a_run_that_has_just_begun_has_no_history() -> None:
    with pytest.raises(FileError, match="has logged nothing yet"):
        plot_history(run_of([]))
    run = run_of([train_record(0.1, 1.0)])
    assert set(curves(plot_history(run), 0)) == {"training"}
    assert set(curves(plot_history("run"), 0)) == {"training"}
    with pytest.raises(FileError, match="absent"):
        plot_history(Path("absent"))


ODD_LENGTHS = tuple(f"abcdefghabcdefgh{letter}" for letter in "ab")  # of which the name of the axis was cut


@pytest.mark.parametrize("names", [("0", "1"), ODD_LENGTHS, (LONG, MATH), tuple("0123456789"), ("café",) * 20], ids=len)
def test_a_confusion_of_few_classes_holds_its_counts(names: tuple[str, ...]) -> None:
    result = evaluation(len(names), names)
    figure = plot_confusion(result)
    rows = np.array(result.confusion)
    assert np.allclose(np.asarray(figure.axes[0].images[0].get_array()), rows / rows.sum(axis=1, keepdims=True))
    written = {text.get_position(): text.get_text() for text in figure.axes[0].texts}
    assert written == {(column, row): f"{n:,}" for (row, column), n in np.ndenumerate(rows) if n}
    assert figure.axes[0].get_ylabel() == "true class"
    assert figure.axes[0].get_xlabel() == "predicted class"
    assert_tidy(figure)


@pytest.mark.parametrize("number", [40, 100])
def test_a_confusion_of_many_classes_names_them_all(number: int) -> None:
    figure = plot_confusion(evaluation(number))
    axes = figure.axes[0]
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert [label.get_text() for label in labels] == [f"aquarium_fish_{index}" for index in range(number)]
        assert min(label.get_fontsize() for label in labels) >= 6
    assert not axes.texts
    assert_tidy(figure)


def test_a_confusion_of_a_thousand_classes_names_some() -> None:
    figure = plot_confusion(evaluation(1000))
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()][:2] == ["aquarium_fish_0", "aquarium_fish_10"]
    assert_tidy(figure)


def test_a_class_without_examples_is_an_empty_row() -> None:
    result = evaluation(3, ("a", "b", "c"), count=1)
    shares = np.asarray(plot_confusion(result).axes[0].images[0].get_array())
    assert sorted(shares.sum(axis=1).tolist()) == [0, 0, 1]


def test_a_regression_has_no_confusion() -> None:
    with pytest.raises(DataError, match="RegressionEvaluation has no confusion matrix"):
        plot_confusion(RegressionEvaluation("test", 1, 0.0, 0.0, 0.0, None))
