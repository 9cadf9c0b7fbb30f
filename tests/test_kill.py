"""A sample of the campaign that kills and stops real runs, and resumes them: benchmarks/kill.py."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

KILL = Path(__file__).parent.parent / "benchmarks" / "kill.py"


def campaign(folder: Path, runs: int, seed: int) -> dict[str, object]:
    """Do some trials, none of which may find a fault, and return the total."""
    # It forks, which only a process without threads can do, and this one has some.
    command = [sys.executable, str(KILL), "--runs", str(runs), "--seed", str(seed), "--state", "total.json"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(folder)}
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    total = json.loads((folder / "total.json").read_text())
    assert f"| {total['trials']} | {total['kills']} | {total['signals']} |" in done.stdout
    assert not any(total["faults"].values())
    return total


def test_struck_runs_end_like_the_run_that_was_not(tmp_path: Path) -> None:
    total = campaign(tmp_path, 8, seed=1)
    assert total["trials"] == 8
    assert total["kills"]
    assert total["signals"]
    assert not list(tmp_path.glob("goodfit-kill-*"))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_many_struck_runs_end_like_the_run_that_was_not(tmp_path: Path) -> None:
    campaign(tmp_path, 10, seed=2)
    assert campaign(tmp_path, 90, seed=2)["trials"] == 100  # it goes on
