"""goodfit runs"""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["runs"]


def runs(folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder the runs are in.")] = Path("runs")) -> None:
    """Compare runs in a table, best on validation first."""
    from goodfit.artefacts.run import find_runs
    from goodfit.cli.output import make_screen

    make_screen(as_json=False).show_runs(find_runs(folder))
