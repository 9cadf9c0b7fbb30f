"""An evaluation on several ranks stops on all of them together."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from command import Done

from goodfit.artefacts.checkpoint import newest_checkpoint
from goodfit.artefacts.run import Run

SETTINGS = ("--set", "train.threads=1", "--set", "train.precision=fp32", "--set", "data.max_train=100")


# Runs goodfit as one rank, which evaluates in small batches; with a place to hold at, it waits in the counting of that batch.
RANK = """
import atexit, os, sys, time
from pathlib import Path
from goodfit import signals
from goodfit.data import stream
from goodfit.evaluation import evaluate
size, place, *arguments = sys.argv[1:]
rank, count, hear, calls = os.environ["RANK"], evaluate._count, signals.StopSignals._hear, []
def held(*given):
    calls.append(given)
    Path(f"count-{rank}").write_text(str(len(calls)))
    if len(calls) == int(place):
        Path(f"waits-{rank}").touch()
        while not Path("go").exists():
            time.sleep(0.005)
    return count(*given)
def heard(*given):
    hear(*given)
    Path(f"heard-{rank}").touch()
@atexit.register
def note_threads():
    names = [file.read_text() for file in Path("/proc/self/task").glob("*/comm")]
    Path(f"threads-{rank}").write_text(" ".join(names))
stream._batch_size = lambda example: int(size)
evaluate._count, signals.StopSignals._hear = held, heard
sys.argv = ["goodfit", *arguments]
from goodfit.cli.main import main
main()
"""


@contextmanager
def ranks(*arguments: str) -> Iterator[list[subprocess.Popen[str]]]:
    """Start two ranks without torchrun, so that each has its own exit code and can be sent a signal of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    with ExitStack() as stack:
        processes = []
        for rank in "01":
            environment = os.environ | place | {"RANK": rank, "LOCAL_RANK": rank}
            command = [sys.executable, "-c", RANK, *arguments]
            process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            stack.callback(process.wait)
            stack.callback(process.kill)
            processes.append(process)
        yield processes


def ended(processes: list[subprocess.Popen[str]]) -> list[Done]:
    spoken = [process.communicate(timeout=120) for process in processes]
    return [Done(process.returncode, *texts) for process, texts in zip(processes, spoken, strict=True)]


def wait_for(processes: list[subprocess.Popen[str]], *names: str) -> None:
    while not all(Path(name).exists() for name in names):
        assert all(process.poll() is None for process in processes), ended(processes)
        time.sleep(0.005)


@pytest.mark.parametrize("heard_by", [pytest.param("0", marks=pytest.mark.slow), "1"])
def test_a_signal_to_one_rank_stops_the_evaluation_on_all_of_them_together(heard_by: str) -> None:
    command = ("digits", "--model", "mlp", "--epochs", "1", *SETTINGS)
    with ranks("8", "3", "train", *command, "--out", "run") as processes:  # validation: 9 batches of each rank
        wait_for(processes, "waits-0", "waits-1")
        processes[int(heard_by)].send_signal(signal.SIGTERM)
        wait_for(processes, f"heard-{heard_by}")
        Path("go").touch()
        done = ended(processes)
    assert [Path(f"count-{rank}").read_text() for rank in "01"] == ["3", "3"]
    assert [each.code for each in done] == [143, 143], done
    # A thread of the ranks' group that lives so long ends its process by abort at times.
    assert "gloo" not in Path("threads-0").read_text() + Path("threads-1").read_text()
    assert "Traceback" not in done[0].err + done[1].err
    checkpoint, damage = newest_checkpoint(Path("run/checkpoints"))
    assert checkpoint is not None
    assert not damage
    assert [line for line in Run(Path("run")).metrics if line["event"] == "evaluation"] == []
    # 359 to test: of one rank 179, which is one batch, and of the other 180, which is two.
    with ranks("179", "0", "resume", "run") as processes:
        assert [each.code for each in ended(processes)] == [0, 0]
    assert Run(Path("run")).test.n == 359
