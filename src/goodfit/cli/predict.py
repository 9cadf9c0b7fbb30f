"""goodfit predict"""

from pathlib import Path
from typing import Annotated

import typer

from goodfit.cli.options import CodeOption, JsonOption, read_code

__all__ = ["predict"]


def predict(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model file, or a run folder (its best).")],
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUT...", help="Pictures, folders, globs, tables, or - for standard input.")
    ],
    top: Annotated[int, typer.Option(metavar="K", min=1, help="How many classes to show.")] = 3,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the pictures and their probabilities as .png, .pdf or .svg.")
    ] = None,
    code: CodeOption = None,
    json: JsonOption = False,
) -> None:
    """Predict pictures or the rows of tables."""
    from goodfit.artefacts.predictor import Predictor
    from goodfit.cli.output import make_screen, print_json
    from goodfit.prediction import PredictionPlot, predict_inputs

    screen = make_screen(json)
    predictor = Predictor.load(model, own=read_code(code))
    figure = PredictionPlot(plot, predictor, inputs) if plot else None
    failed = False
    for result in predict_inputs(predictor, inputs, top=top):
        failed |= result.error is not None
        if json:
            print_json(result.to_json())
        else:
            screen.show_prediction(result)
        if figure:
            figure.add(result)
    if figure:
        screen.say(figure.write())
    if failed:
        raise typer.Exit(2)
