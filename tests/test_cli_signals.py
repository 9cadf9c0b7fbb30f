"""Signals to a real process: nothing is started, or a checkpoint is saved and the command that is printed goes on."""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from command import QUICK, Done, goodfit

SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGUSR1, 138)]
LONG = ("digits", "--model", "mlp", "--epochs", "200", "--out", "my run")
SMALL = ("--set", "data.max_train=100", "--set", "train.threads=1")


def interrupt(number: int, when: Callable[[], bool], *arguments: str) -> Done:
    """Run goodfit in a process, send it a signal as soon as `when` says, and wait for its end."""
    command = [sys.executable, "-m", "goodfit", *arguments]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # as from a shell's prompt: what the tests were started in the background ignores, they hand down
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    )
    try:
        while not when():
            assert process.poll() is None, process.communicate()
            time.sleep(0.005)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    return Done(process.returncode, out, err)


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


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_before_the_run_nothing_was_started(number: signal.Signals, code: int, tmp_path: Path) -> None:
    os.mkfifo("endless.csv")
    command = ("train", "endless.csv", "--target", "y", *QUICK)
    done = interrupt(number, lambda: is_read(tmp_path / "endless.csv"), *command)
    assert done == Done(code, "", f"goodfit: stopped by {number.name}; nothing was started\n")
    assert [path.name for path in tmp_path.iterdir()] == ["endless.csv"]


@pytest.mark.parametrize(("number", "code"), SIGNALS)
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
