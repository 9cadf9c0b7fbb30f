"""Each verb in a process of its own, as a person calls it: here nothing was imported by what ran before."""

import subprocess
import sys
from pathlib import Path

import pytest
from command import QUICK, TINY, goodfit, train, write_pictures, write_table

NET = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

    def forward(self, x):
        return self.head(torch.relu(self.conv(x)).mean((2, 3)))
"""


def in_a_process(*arguments: str | Path) -> str:
    """Run one command line, in which no warning may come up, and return what it printed."""
    command = [sys.executable, "-W", "error", "-m", "goodfit", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GOODFIT_CACHE", str(tmp_path / "cache"))
    Path("net.py").write_text(NET)


def test_a_run_of_digits_is_ejected() -> None:
    train("digits", "--set", "data.max_train=200", *QUICK, "--out", "run")
    assert "def build_model() -> nn.Sequential:" in in_a_process("eject", "run")


def test_a_run_of_pictures_and_of_ones_own_module_is_ejected() -> None:
    train(write_pictures(Path("photos")), "--model", "net.py:Net", *QUICK, "--out", "run")
    assert "from net import Net" in in_a_process("eject", "run", "--model", "net.py:Net")


def test_a_run_of_a_table_is_ejected() -> None:
    write_table(Path("table.csv"), "x,y,kind", "{half},{i},{c}")
    train("table.csv", "--target", "kind", *QUICK, "--out", "run")
    assert "table.csv" in in_a_process("eject", "run")


def test_a_run_is_evaluated_resumed_exported_and_converted() -> None:
    train("digits", *TINY, "--out", "run")
    assert "accuracy" in in_a_process("evaluate", "run")
    in_a_process("resume", "run", "--epochs", "2")
    in_a_process("export", "run", "--format", "state-dict", "--out", "weights.pth")
    assert "tensors matched" in in_a_process("convert", "weights.pth", "--model", "mlp", "--data", "digits")
    assert "run" in in_a_process("runs", ".")


def test_pictures_are_predicted_and_drawn() -> None:
    photos = write_pictures(Path("photos"))
    train(photos, *QUICK, "--out", "run")
    in_a_process("predict", "run", photos, "--plot", "seen.png")
    assert Path("seen.png").exists()
    assert "tta" in in_a_process("evaluate", "run", "--tta")


@pytest.mark.parametrize("verb", ["datasets", "models", "recipes"])
def test_what_there_is_is_listed(verb: str) -> None:
    assert in_a_process(verb) == goodfit(verb).out
