"""goodfit resume"""

from pathlib import Path
from typing import Annotated

import typer

from goodfit.cli.options import JsonOption

__all__ = ["resume"]


def resume(
    context: typer.Context,
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The run folder.")],
    epochs: Annotated[int | None, typer.Option(metavar="N", min=1, help="Train up to this many epochs in all.")] = None,
    json: JsonOption = False,
) -> None:
    """Go on with a stopped run where it was, or give a finished one more epochs."""
    from goodfit.cli.output import make_screen, print_json
    from goodfit.workflows import resume as resume_run

    with make_screen(json) as screen:
        finished = resume_run(run, screen, context.obj, epochs=epochs)
        if json:
            print_json(finished.summary())
        else:
            screen.show_run(finished)
