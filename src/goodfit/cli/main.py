"""The command `goodfit`: its verbs, its signals, and the one place where an error becomes a line and an exit code."""

import os
import shlex
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from goodfit.errors import CodeNeededError, GoodfitError, Interrupted
from goodfit.signals import StopSignals

__all__ = ["main", "run_command"]


def main() -> None:
    """Run the command line of this process and exit with its code."""
    sys.exit(run_command(sys.argv[1:]))


def run_command(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code: 0 done, 1 failed, 2 bad usage or input, 128 + n after signal n."""
    with StopSignals().listening() as signals, _plain_warnings():
        try:
            from goodfit.cli.app import make_app  # takes a tenth of a second, in which a signal is heard already

            code = make_app()(list(arguments), prog_name="goodfit", standalone_mode=False, obj=signals)
        except Interrupted as stop:
            return _stopped(stop, arguments)
        except CodeNeededError as error:
            return _fail(f"{error}; that is: {shlex.join(['goodfit', *arguments, '--model', error.name])}", error.exit_code)
        except GoodfitError as error:
            return _fail(f"{error}\n{error.frames}".rstrip(), error.exit_code)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left to write has no reader
            return 1
        except Exception as error:
            usage = _usage_message(error)
            if usage is None:
                raise
            return _fail(usage, 2) if usage else 2
    if not arguments:
        return 2  # the help has been shown, which some versions of the parser count as success
    return code if isinstance(code, int) else 0


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Say what code warns of in a line, without the line of code that did."""

    def say(message: Warning | str, *_: object, **__: object) -> None:
        print(f"goodfit: note: {message}", file=sys.stderr)  # noqa: T201

    before, warnings.showwarning = warnings.showwarning, say
    try:
        yield
    finally:
        warnings.showwarning = before


def _usage_message(error: Exception) -> str | None:
    """Return what is wrong with the command line, if that is what the parser says with this error.

    It is empty where there was no command: the help has been shown.
    """
    say = getattr(error, "format_message", None)
    if say is None:
        return None
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "goodfit"
    return say() and f"{say().rstrip('.')}; see {path} --help"


def _fail(message: str, code: int) -> int:
    if os.environ.get("RANK", "0") == "0":  # every rank meets the same error; one of them says it
        print(f"goodfit: {message}", file=sys.stderr)  # noqa: T201
    return code


def _stopped(stop: Interrupted, arguments: Sequence[str]) -> int:
    """Say which signal ended the command, and whether anything is left of it."""
    trains = arguments[:1] == ["train"] and not stop.saved
    return _fail(
        f"stopped by {signal.Signals(stop.signum).name}" + ("; nothing was started" if trains else ""), 128 + stop.signum
    )
