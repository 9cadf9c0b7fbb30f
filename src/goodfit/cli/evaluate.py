"""goodfit evaluate"""

from pathlib import Path
from typing import Annotated

import typer

from goodfit.cli.options import CodeOption, JsonOption, RootOption, SetOption, layers, read_code

__all__ = ["evaluate"]


def evaluate(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model file, or a run folder (its best).")],
    data: Annotated[str | None, typer.Argument(help="Data with the model's classes.", show_default="the run's own")] = None,
    split: Annotated[str, typer.Option(metavar="SPLIT", help="test, val or train.")] = "test",
    tta: Annotated[
        bool, typer.Option("--tta", help="Also by test-time augmentation: the mean over flipped and shifted views.")
    ] = False,
    code: CodeOption = None,
    data_root: RootOption = None,
    set_: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Measure a model on a split of its own data, or on other data with the same classes."""
    from goodfit.cli.output import make_screen, print_json
    from goodfit.testing import evaluate_model

    with make_screen(json) as screen:
        flags = {"--data-root": ("data.root", str(data_root.absolute()) if data_root else None)}
        result = evaluate_model(model, data, split, layers(flags, set_), screen.progress, read_code(code), tta)
        if json:
            print_json(result.to_json())
        else:
            screen.show_evaluation(result)
