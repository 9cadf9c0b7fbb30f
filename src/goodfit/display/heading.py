"""What is about to be trained, in a few lines: data, model, recipe, device and run folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from goodfit.display.columns import Column, lay_out, wrap
from goodfit.display.text import count, flops, printable, shape

if TYPE_CHECKING:
    from torch import nn

    from goodfit.data.dataset import Dataset, SplitName
    from goodfit.models.summary import LayerSummary
    from goodfit.planning import Plan
    from goodfit.session import Session

__all__ = ["describe_plan", "describe_session", "field", "layers", "unit"]

SPLITS: tuple["SplitName", ...] = ("train", "val", "test")
LABEL = 10
MOST_CLASSES_WIDTH = 60  # of the list of their names
MOST_LAYERS = 20
MOST_PARAMETERS = 50_000_000  # of a model that is copied in order to count its work


def field(label: str, value: str, width: int | None = None) -> list[Text]:
    """Return a labelled line; prose goes on below itself where there is a width, a path or command stays whole."""
    parts = wrap(printable(value), width - LABEL) if width else [printable(value)]
    labels = [label] + [""] * (len(parts) - 1)
    return [Text().append(f"{label:{LABEL}}", "dim").append(part) for label, part in zip(labels, parts, strict=True)]


def unit(dataset: "Dataset") -> str:
    """Return what speed is counted in: "img", "rows" or "examples"."""
    return {"image": "img", "table": "rows"}.get(_kind(dataset), "examples")


def _kind(dataset: "Dataset") -> str:
    return str(dataset.transform.to_json()["kind"])


def describe_session(session: "Session", run: Path, width: int) -> list[Text]:
    """Say what is about to be trained, on what, and where it will lie."""
    plan = session.plan
    threads, ranks = plan.config.train.threads, session.ranks.world
    device = f"{session.device}, {session.trainer.precision}, {count(threads, 'thread')}"
    lines = _data(plan.dataset, width)
    lines += _model(session, width)
    lines += [line for note in plan.notes for line in field("note", note, width)]
    lines += _training(plan, width, session)
    lines += field("device", device + (f", {ranks} ranks" if ranks > 1 else ""), width)
    return lines + field("run", str(run))


def describe_plan(plan: "Plan", width: int) -> list[Text]:
    """Say what would be trained."""
    return _data(plan.dataset, width) + field("model", plan.architecture.name, width) + _training(plan, width)


def _data(dataset: "Dataset", width: int) -> list[Text]:
    sizes = shape(dataset.transform.input_shape)
    things = {"image": f"pictures of {sizes}", "table": f"rows of {sizes} features"}.get(_kind(dataset), f"tensors of {sizes}")
    splits = ", ".join(f"{name} {count(len(dataset.splits[name]))}" for name in SPLITS if name in dataset.splits)
    names = ", ".join(dataset.classes)
    shown = f": {names}" if len(names) <= MOST_CLASSES_WIDTH else ""
    target = f"{count(len(dataset.classes), 'class')}{shown}" if dataset.classes else "a number to predict"
    lines = field("data", f"{dataset.name}, {things} ({splits})", width)
    lines += field("task", f"{dataset.task}, {target}", width)
    return lines + [line for note in dataset.notes for line in field("note", note, width)]


def _model(session: "Session", width: int) -> list[Text]:
    """Say the model's size, and show its layers if they are few."""
    from goodfit.data.stream import first_examples
    from goodfit.models.summary import summarize

    architecture, module = session.plan.architecture, session.state.model
    total = sum(parameter.numel() for parameter in module.parameters())
    if total > MOST_PARAMETERS:
        return field("model", f"{architecture.name}: {count(total, 'parameter')}{_frozen(module)}", width)
    inputs, _ = first_examples(session.plan.dataset, 1, session.plan.config.train.seed)
    summary = summarize(module, inputs)
    text = f"{architecture.name}: {count(total, 'parameter')}{_frozen(module)}, {flops(summary.flops)} for one example"
    text += f", gives {session.plan.outputs}" if session.plan.own.model else ""  # which a forward of one's own need not show
    # What neither has parameters nor changes the shape, such as an activation, has no place in a heading.
    before = (architecture.input_shape, *(layer.output_shape for layer in summary.layers))
    telling = [
        layer for layer, shape in zip(summary.layers, before, strict=False) if layer.parameters or layer.output_shape != shape
    ]
    return field("model", text, width) + (layers(telling, width, LABEL) if len(telling) <= MOST_LAYERS else [])


def _frozen(module: "nn.Module") -> str:
    frozen = sum(parameter.numel() for parameter in module.parameters() if not parameter.requires_grad)
    return f" ({count(frozen)} frozen)" if frozen else ""


def layers(shown: "Sequence[LayerSummary]", width: int, indent: int = 0) -> list[Text]:
    """Return layers as a table."""
    columns = [
        Column("layer", flexible=True),
        Column("kind"),
        Column("output"),
        Column("parameters", right=True),
    ]
    rows = [
        [layer.name, layer.kind, shape(layer.output_shape), count(layer.parameters) if layer.parameters else ""]
        for layer in shown
    ]
    return lay_out(columns, rows, width, indent=indent)


def _training(plan: "Plan", width: int, session: "Session | None" = None) -> list[Text]:
    """Say how long is trained and in what way; a session knows what the user's own code has made."""
    config = plan.config
    rates = session.trainer.base_rates if session else [config.optim.lr] if config.optim.lr else []
    optimizer, schedule = (name.rpartition(":")[2] for name in (config.optim.name, config.schedule.name))
    if session and plan.own.optimizer is not None:
        optimizer = type(session.state.optimizer).__name__
    with_rates = f" with lr {', '.join(f'{rate:g}' for rate in dict.fromkeys(rates))}" if rates else ""  # one a group
    way = f"{optimizer}{with_rates}, {'a schedule of your own' if '<' in schedule else schedule}"
    steps = (
        f"{count(config.train.epochs, 'epoch')} of {count(plan.steps_per_epoch, 'step')} of {count(plan.batch_size, 'example')}"
    )
    smoothing = config.train.label_smoothing
    smoothed = f"; label smoothing {smoothing:g}, in train loss alone" if smoothing else ""
    lines = field("recipe", plan.recipe.name, width) if plan.recipe else []
    return lines + field("training", f"{steps}; {way}{smoothed}", width)
