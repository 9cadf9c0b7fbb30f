"""goodfit eject"""

from pathlib import Path
from typing import Annotated

import typer

from goodfit.cli.options import CodeOption, read_code

__all__ = ["eject"]


def eject(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The run folder.")],
    code: CodeOption = None,
) -> None:
    """Print the run as one plain PyTorch program without goodfit: goodfit eject RUN > train.py"""
    from goodfit.artefacts.run import Run
    from goodfit.eject.script import write_program
    from goodfit.training.own import OwnCode

    print(write_program(Run(run), OwnCode(read_code(code))), end="")  # noqa: T201
