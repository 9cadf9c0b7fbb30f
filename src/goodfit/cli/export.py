"""goodfit export"""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from goodfit.cli.options import JsonOption

__all__ = ["export"]


def export(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model file, or a run folder (its best).")],
    format_: Annotated[str, typer.Option("--format", metavar="F", help="state-dict: the weights, for a program of your own.")],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A .pth or .safetensors.", show_default="beside MODEL, as .pth")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Write a model's weights as a plain PyTorch program loads them."""
    from goodfit.artefacts.export import export_model
    from goodfit.cli.output import make_screen, print_json

    path, tensors = export_model(model, format_, out)
    if json:
        print_json({"file": str(path), "format": format_, "tensors": tensors})
        return
    read = "safetensors.torch.load_file({})" if path.suffix == ".safetensors" else "torch.load({}, weights_only=True)"
    screen = make_screen(json)
    screen.say(f"wrote {shlex.quote(str(path))}: {len(tensors)} tensors, such as {tensors[0]}")
    screen.say(f"load them with: net.load_state_dict({read.format(repr(str(path)))})")
