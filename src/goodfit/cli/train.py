"""goodfit train"""

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from goodfit.cli.options import JsonOption, RootOption, SetOption, layers, read_code

__all__ = ["train"]


DataArgument = Annotated[
    str | None, typer.Argument(help="A data set's name, a picture folder, a table or an .npz.", show_default="digits")
]
TargetOption = Annotated[str | None, typer.Option(metavar="COL", help="The column of a table to be learned.")]
ModelOption = Annotated[
    str | None, typer.Option(metavar="M", help="A model's name, a model file to go on from, or code of your own: net.py:Net.")
]
RecipeOption = Annotated[
    str | None, typer.Option(metavar="R", help="fast, auto, best, or a preset by name.", show_default="auto")
]
EpochsOption = Annotated[str | None, typer.Option(metavar="N", help="Times through the training data.")]
BatchSizeOption = Annotated[str | None, typer.Option(metavar="N|full", help="Examples of one update.")]
OptimizerOption = Annotated[str | None, typer.Option(metavar="O", help="An optimiser of torch.optim, such as sgd or adamw.")]
LearningRateOption = Annotated[str | None, typer.Option(metavar="X", help="The learning rate.")]
DeviceOption = Annotated[str | None, typer.Option(metavar="D", help="auto, cpu, cuda, cuda:1, mps or xpu.")]
SeedOption = Annotated[
    str | None, typer.Option(metavar="N", help="Of everything random: splits, weights, order, augmentation.")
]
ValOption = Annotated[str | None, typer.Option(metavar="FRACTION", help="Share of the training data to validate on; 0: none.")]
OutOption = Annotated[
    Path | None, typer.Option(metavar="DIR", help="The run folder.", show_default="runs/<data>-<model>-<time>")
]
ConfigOption = Annotated[Path | None, typer.Option(metavar="FILE", help="A configuration file, such as a run's config.toml.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Print the whole configuration, with where each value is from.")]


def train(
    context: typer.Context,
    data: DataArgument = None,
    target: TargetOption = None,
    model: ModelOption = None,
    recipe: RecipeOption = None,
    epochs: EpochsOption = None,
    batch_size: BatchSizeOption = None,
    optimizer: OptimizerOption = None,
    lr: LearningRateOption = None,
    device: DeviceOption = None,
    seed: SeedOption = None,
    val: ValOption = None,
    out: OutOption = None,
    data_root: RootOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
) -> None:
    """Train a model on labelled data, and test it."""
    from goodfit.cli.output import make_screen, print_json
    from goodfit.training.own import OwnCode
    from goodfit.user_code import is_code
    from goodfit.workflows import Request, plan
    from goodfit.workflows import train as train_model

    own = OwnCode(read_code(model) if model and is_code(model) else None)
    flags = {
        "DATA": ("data.name", _absolute(data)),
        "--target": ("data.target", target),
        "--model": ("model.name", None if own.model else model),
        "--epochs": ("train.epochs", _number(epochs)),
        "--batch-size": ("train.batch_size", _number(batch_size)),
        "--optimizer": ("optim.name", optimizer),
        "--lr": ("optim.lr", _number(lr)),
        "--device": ("train.device", device),
        "--seed": ("train.seed", _number(seed)),
        "--val": ("data.val", _number(val)),
        "--data-root": ("data.root", str(data_root.absolute()) if data_root else None),
    }
    request = Request(layers=layers(flags, set_), recipe=recipe, config_file=config, out=out, own=own)
    with make_screen(json) as screen:
        if dry_run:
            made = plan(request, screen)
            if json:
                print_json({"configuration": made.config.flat(), "sources": made.sources})
            else:
                screen.show_plan(made)
            return
        run = train_model(request, screen, context.obj)
        if json:
            print_json(run.summary())
        else:
            screen.show_run(run)


def _absolute(data: str | None) -> str | None:
    """Return a path that still leads there from another folder; a name stays a name."""
    from goodfit.data.sources import is_name

    return data if data is None or is_name(data) else str(Path(data).absolute()) if Path(data).exists() else data


def _number(text: str | None) -> int | float | str | None:
    """Return the number that `text` is; other text stays, for the configuration to say what is wrong with it."""
    for kind in (int, float):
        with suppress(ValueError):
            return None if text is None else kind(text)
    return text
