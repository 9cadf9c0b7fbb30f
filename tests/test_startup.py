"""What is not needed is not imported: it costs seconds before the first step, and memory until the end."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys
from goodfit.cli.main import run_command
code = run_command(sys.argv[1:])
print("imported", *(name for name in {names} if name in sys.modules), file=sys.stderr)
sys.exit(code)
"""
HEAVY = (
    "torch._dynamo",
    "torch._inductor",
    "sympy",
    "torchvision",
    "matplotlib",
    "polars",
)


@pytest.mark.parametrize("optimizer", ["muon", "sgd"])
def test_a_run_imports_neither_torchs_compiler_nor_what_other_data_need(tmp_path: Path, optimizer: str) -> None:
    arguments = ["train", "--epochs", "1", "--set", "data.max_train=100", "--set", "train.threads=1", "--optimizer", optimizer]
    command = [sys.executable, "-c", PROGRAM.format(names=HEAVY), *arguments, "--out", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1].split() == ["imported"]
