"""goodfit convert"""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from goodfit.cli.options import JsonOption, RootOption, SetOption, layers, read_code

__all__ = ["convert"]


def convert(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .pth, .pt, .bin or .safetensors of another program.")],
    model: Annotated[str, typer.Option(metavar="M", help="What it was saved from: a model's name, or net.py:Net.")],
    data: Annotated[
        str | None, typer.Option(metavar="DATA", help="What it was trained on, for classes, preprocessing and a test.")
    ] = None,
    trust_pickle: Annotated[
        bool, typer.Option("--trust-pickle", help="Unpickle a whole module, which can run any code in the file.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The model file.", show_default="beside FILE, as .safetensors")
    ] = None,
    data_root: RootOption = None,
    set_: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Make a model file of the weights that another program saved."""
    from goodfit.cli.output import make_screen, print_json
    from goodfit.conversion import convert_file
    from goodfit.user_code import is_code

    own = read_code(model) if is_code(model) else None
    flags = {
        "--model": ("model.name", None if own else model),
        "--data": ("data.name", data),
        "--data-root": ("data.root", str(data_root.absolute()) if data_root else None),
    }
    with make_screen(json) as screen:
        done = convert_file(file, screen, layers=layers(flags, set_), own=own, out=out, trust_pickle=trust_pickle)
        if json:
            print_json(done.to_json())
            return
        if done.test:
            screen.show_evaluation(done.test)
        screen.say(f"wrote {shlex.quote(str(done.model))}")
