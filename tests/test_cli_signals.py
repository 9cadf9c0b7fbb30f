"""Signals to a real process: nothing is started, or a checkpoint is saved and the command that is printed goes on."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from command import QUICK, Done, goodfit, write_pictures

from goodfit.artefacts.checkpoint import newest_checkpoint

SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGUSR1, 138)]
ONE_OF_THEM = [SIGNALS[0], *(pytest.param(*each, marks=pytest.mark.slow) for each in SIGNALS[1:])]
TWO_OF_THEM = [*SIGNALS[:2], *(pytest.param(*each, marks=pytest.mark.slow) for each in SIGNALS[2:])]
LONG = ("digits", "--model", "mlp", "--epochs", "200", "--out", "my run")
SMALL = ("--set", "data.max_train=100", "--set", "train.threads=1")


@contextmanager
def started(*command: str) -> Iterator[subprocess.Popen[str]]:
    """Run a command in a process that leads a group of its own, and end it with the block."""

    def as_from_a_prompt() -> None:  # what the tests were started in the background ignores, they hand down
        for number, _ in SIGNALS:
            signal.signal(number, signal.SIG_DFL)

    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=as_from_a_prompt,
        process_group=0,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait(process: subprocess.Popen[str], when: Callable[[], bool]) -> None:
    """Return as soon as `when` says; the process must live until then."""
    while not when():
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)


def ended(process: subprocess.Popen[str]) -> Done:
    out, err = process.communicate(timeout=120)
    return Done(process.returncode, out, err)


def interrupt(number: int, when: Callable[[], bool], *arguments: str) -> Done:
    """Run goodfit in a process, send it a signal as soon as `when` says, and wait for its end."""
    with started(sys.executable, "-m", "goodfit", *arguments) as process:
        wait(process, when)
        process.send_signal(number)
        return ended(process)


# Runs goodfit in a process of its own, one function of which, named by module and name, leaves a mark and takes its time.
HELD = """
import sys, time
from importlib import import_module
from pathlib import Path
module, name, mark, *arguments = sys.argv[1:]
real = getattr(import_module(module), name)
def held(*given, **named):
    Path(mark).touch()
    time.sleep(0.2)
    return real(*given, **named)
setattr(import_module(module), name, held)
sys.argv = ["goodfit", *arguments]
from goodfit.cli.main import main
main()
"""


def held(function: str, *arguments: str) -> list[str]:
    """Return the command that runs goodfit and spends its time in one function: in that phase."""
    module, _, name = function.rpartition(".")
    return [sys.executable, "-c", HELD, module, name, "mark", *arguments]


def is_read(fifo: Path) -> bool:
    """Whether a process has opened the named pipe and waits for what comes."""
    try:
        os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
    except OSError:
        return False
    return True


def has_logged(run: Path) -> bool:
    path = run / "metrics.jsonl"
    return path.exists() and b"\n" in path.read_bytes()


@pytest.mark.parametrize(("number", "code"), TWO_OF_THEM)
def test_before_the_run_nothing_was_started(number: signal.Signals, code: int, tmp_path: Path) -> None:
    os.mkfifo("endless.csv")
    command = ("train", "endless.csv", "--target", "y", *QUICK)
    done = interrupt(number, lambda: is_read(tmp_path / "endless.csv"), *command)
    assert done == Done(code, "", f"goodfit: stopped by {number.name}; nothing was started\n")
    assert [path.name for path in tmp_path.iterdir()] == ["endless.csv"]


@pytest.mark.parametrize(("number", "code"), ONE_OF_THEM)
def test_while_training_a_checkpoint_is_saved_and_the_run_goes_on(number: signal.Signals, code: int, tmp_path: Path) -> None:
    run = tmp_path / "my run"
    done = interrupt(number, lambda: has_logged(run), "train", *LONG, *SMALL)
    assert (done.code, done.err) == (code, f"goodfit: stopped by {number.name}\n")
    (checkpoint,) = (run / "checkpoints").iterdir()
    step = int(checkpoint.name.removeprefix("step-"))
    assert f"stopped   at step {step:,} of " in done.out
    command = shlex.split(done.out[done.out.index("goodfit resume") :].splitlines()[0])
    assert command == ["goodfit", "resume", "my run"]
    resumed = goodfit(*command[1:])
    assert resumed.code == 0, resumed.err
    assert f"resuming from step {step}\n" in resumed.out
    assert (run / "best.safetensors").exists()


def test_between_the_run_folder_and_the_first_step_the_run_goes_on(tmp_path: Path) -> None:
    run = tmp_path / "my run"
    done = interrupt(signal.SIGTERM, run.exists, "train", *LONG[:-4], "--epochs", "1", "--out", "my run", *SMALL)
    assert done.code == 143
    assert "nothing was started" not in done.err
    assert "goodfit resume 'my run'" in done.out + done.err
    assert goodfit("resume", "my run").code == 0


def test_a_stop_under_json_leaves_standard_output_empty(tmp_path: Path) -> None:
    run = tmp_path / "my run"
    done = interrupt(signal.SIGTERM, lambda: has_logged(run), "train", *LONG, *SMALL, "--json")
    assert (done.code, done.out) == (143, "")
    assert "goodfit resume 'my run'" in done.err


PHASES = {
    "decoding": "goodfit.data.processes._watch",  # which runs beside the processes that decode
    "trial": "goodfit.trial._step",
    "first step": "goodfit.training.trainer.reseed",  # for the dropout
    "evaluation": "goodfit.evaluation.evaluate._count",
    "saving": "goodfit.artefacts.checkpoint._listed",  # between the files and the manifest that makes them a checkpoint
}
EVERY = [(phase, *signals, to) for phase in PHASES for signals in SIGNALS for to in ("process", "group")]
FEW = [(phase, *SIGNALS[place % len(SIGNALS)], ("process", "group")[place % 2]) for place, phase in enumerate(PHASES)]


def train_held(phase: str, folder: Path) -> list[str]:
    """Return the command that trains on a folder of pictures and spends its time in one phase."""
    pictures = folder / "pictures"
    for split in ("train", "test"):  # together enough that processes decode them
        write_pictures(pictures / split, count=64, side=32)
    settings = ["data.processes=2", "checkpoint.every_steps=3"]
    if phase != "trial":  # which is of these two
        settings += ["train.threads=1", "train.precision=fp32", "model.dropout=0.1"]
    sets = [word for setting in settings for word in ("--set", setting)]
    return held(PHASES[phase], "train", str(pictures), *LONG[1:], "--batch-size", "24", *sets)


def children(process: subprocess.Popen[str]) -> list[Path]:
    """Return the /proc folders of the processes that a process has started; none where there is no /proc."""
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [Path("/proc") / number for number in path.read_text().split()] if path.exists() else []


@pytest.mark.parametrize(
    ("phase", "number", "code", "to"), [pytest.param(*case, marks=[pytest.mark.slow] * (case not in FEW)) for case in EVERY]
)
def test_a_stop_is_clean_in_every_phase(phase: str, number: signal.Signals, code: int, to: str, tmp_path: Path) -> None:
    run = tmp_path / "my run"
    with started(*train_held(phase, tmp_path)) as process:
        wait(process, (tmp_path / "mark").exists)
        workers = children(process)
        (os.killpg if to == "group" else os.kill)(process.pid, number)
        done = ended(process)
    assert done.code == code
    assert not any(worker.exists() for worker in workers)
    if phase == "decoding":
        assert len(workers) == 2 * Path("/proc/self").exists()
    if phase in ("decoding", "trial"):
        assert done.err == f"goodfit: stopped by {number.name}; nothing was started\n"
        assert not run.exists()
    else:
        assert done.err == f"goodfit: stopped by {number.name}\n"
        assert "goodfit resume 'my run'" in done.out
        checkpoint, damage = newest_checkpoint(run / "checkpoints")
        assert checkpoint is not None
        assert not damage


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs to see what a process has loaded")
@pytest.mark.parametrize(("number", "code"), ONE_OF_THEM)
def test_a_stop_is_clean_while_torch_is_imported(number: signal.Signals, code: int, tmp_path: Path) -> None:
    with started(sys.executable, "-m", "goodfit", "train", *LONG) as process:
        wait(process, lambda: b"libtorch_cpu" in Path(f"/proc/{process.pid}/maps").read_bytes())
        process.send_signal(number)
        assert ended(process) == Done(code, "", f"goodfit: stopped by {number.name}; nothing was started\n")
    assert list(tmp_path.iterdir()) == []


# Runs goodfit in a process of its own, in which the writing of a checkpoint goes on only when somebody writes to the named
# pipe "gate": from the second checkpoint on, between the files and the manifest. A mark says that it waits, or hears a signal.
GATED = """
import sys
from pathlib import Path
from goodfit import signals
from goodfit.artefacts import checkpoint
listed, hear, calls = checkpoint._listed, signals.StopSignals._hear, []
def held(pieces):
    calls.append(pieces)
    if len(calls) > len(checkpoint.FILES):
        Path("waits").touch()
        open("gate").read()
    return listed(pieces)
def heard(*given):
    hear(*given)
    Path("heard").touch()
checkpoint._listed, signals.StopSignals._hear = held, heard
sys.argv = ["goodfit", *sys.argv[1:]]
from goodfit.cli.main import main
main()
"""


def test_a_second_ctrl_c_stops_at_once_and_leaves_the_last_checkpoint_whole(tmp_path: Path) -> None:
    command = ("train", *LONG[:-4], "--epochs", "2", "--batch-size", "10", "--set", "checkpoint.every_steps=3", *SMALL, "--out")
    assert goodfit(*command, "whole").code == 0
    os.mkfifo("gate")
    with started(sys.executable, "-c", GATED, *command, "my run") as process:
        wait(process, (tmp_path / "waits").exists)
        process.send_signal(signal.SIGINT)
        wait(process, (tmp_path / "heard").exists)  # else both could be taken for one
        process.send_signal(signal.SIGINT)
        assert ended(process).code == 130  # and nobody has written to the gate
    assert sorted(path.name for path in Path("my run/checkpoints").iterdir()) == ["step-3", "step-6"]
    assert sorted(path.name for path in Path("my run/checkpoints/step-6").iterdir()) == ["state.json", "state.safetensors"]
    checkpoint, damage = newest_checkpoint(Path("my run/checkpoints"))
    assert checkpoint is not None
    assert checkpoint.step == 3
    assert len(damage) == 1
    assert "step-6' is not complete" in damage[0]
    resumed = goodfit("resume", "my run")
    assert resumed.code == 0, resumed.err
    assert "resuming from step 3\n" in resumed.out
    for name in ("best.safetensors", "last.safetensors", "checkpoints/step-20/state.safetensors"):
        assert Path("my run", name).read_bytes() == Path("whole", name).read_bytes()


@pytest.mark.skipif(shutil.which("nohup") is None, reason="there is no nohup")
def test_under_nohup_the_terminal_may_go(tmp_path: Path) -> None:
    run = tmp_path / "my run"
    with started("nohup", sys.executable, "-m", "goodfit", "train", *LONG, *SMALL, "--epochs", "20") as process:
        wait(process, lambda: has_logged(run))
        os.killpg(process.pid, signal.SIGHUP)
        done = ended(process)
    assert done.code == 0, done.err
    assert (run / "best.safetensors").exists()
