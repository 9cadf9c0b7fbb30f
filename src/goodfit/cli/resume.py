"""goodfit resume"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from goodfit.cli.options import CodeOption, JsonOption, read_code

if TYPE_CHECKING:
    from goodfit.training.own import OwnCode

__all__ = ["resume"]


def resume(
    context: typer.Context,
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The run folder.")],
    epochs: Annotated[int | None, typer.Option(metavar="N", min=1, help="Train up to this many epochs in all.")] = None,
    code: CodeOption = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Train nothing: replay the run between its checkpoints and compare every bit.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Go on with a stopped run where it was, or give a finished one more epochs."""
    from goodfit.cli.output import make_screen, print_json
    from goodfit.training.own import OwnCode
    from goodfit.workflows import resume as resume_run

    own = OwnCode(read_code(code))
    if verify:
        _verify(run, epochs, own, json)
        return
    with make_screen(json) as screen:
        finished = resume_run(run, screen, context.obj, epochs=epochs, own=own)
        if json:
            print_json(finished.summary())
        else:
            screen.show_run(finished)


def _verify(run: Path, epochs: int | None, own: "OwnCode", json: bool) -> None:
    """Show what a replay found; the exit code is 1 if something differs."""
    from goodfit.cli.output import make_screen, print_json
    from goodfit.errors import ConfigError
    from goodfit.workflows import verify as verify_run

    if epochs is not None:
        raise ConfigError("--verify trains nothing, so --epochs has no meaning beside it; leave one of them out")
    with make_screen(json) as screen:
        found = verify_run(run, screen, own=own)
        if json:
            print_json(found.to_json())
        else:
            screen.show_verification(found)
    if not found.holds:
        raise typer.Exit(1)
