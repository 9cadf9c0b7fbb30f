"""The examples run as they stand, on stand-ins in torchvision's layout; each is at most 15 lines of the user's own code."""

import ast
import pickle
import runpy
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image
from test_named import write_idx_split
from torchvision.datasets import CIFAR10

HERE = Path(__file__).parent.parent
EXAMPLES = HERE / "examples"
MOST_LINES = 15

Patch = pytest.MonkeyPatch


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GOODFIT_DATA", str(tmp_path / "data"))


def write_mnist(root: Path) -> None:
    random = np.random.default_rng(0)
    for part, count in (("train", 300), ("test", 50)):
        pixels = random.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        write_idx_split(root, "mnist", part, pixels, (np.arange(count) % 10).astype("u1"))


def write_cifar(root: Path, monkeypatch: Patch) -> None:
    folder, random = root / CIFAR10.base_folder, np.random.default_rng(0)
    folder.mkdir(parents=True)
    for name, count in [*((f"data_batch_{number}", 24) for number in range(1, 6)), ("test_batch", 40)]:
        pixels = random.integers(0, 256, (count, 3072), dtype=np.uint8)
        (folder / name).write_bytes(pickle.dumps({"data": pixels, "labels": [row % 10 for row in range(count)]}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [f"class {number}" for number in range(10)]}))
    monkeypatch.setattr(CIFAR10, "_check_integrity", lambda _self: True)  # their sums are not those of the real files
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)


def run(name: str) -> dict[str, object]:
    return runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")


def test_random_vectors(capsys: pytest.CaptureFixture[str]) -> None:
    run("random_vectors")
    assert Path("vectors.safetensors").exists()
    assert "resuming from step 100" in capsys.readouterr().out


def test_mnist_mlp(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_mnist(tmp_path / "data")
    names = run("mnist_mlp")
    assert "the step is the gradient times the rate: True" in capsys.readouterr().out
    best = names["run"].best  # type: ignore[attr-defined]
    assert best.outputs == "log-probabilities"
    assert (best.transform.mean, best.training["examples"]["train"]) == ((0.5,), 300), "the note's arithmetic"
    assert Path("prediction.png").stat().st_size > 1000


def test_cifar10_lenet(tmp_path: Path, monkeypatch: Patch, capsys: pytest.CaptureFixture[str]) -> None:
    write_cifar(tmp_path / "data", monkeypatch)
    run("cifar10_lenet")
    assert "class 9" in capsys.readouterr().out.splitlines()[-1]


def test_cifar10_quick(tmp_path: Path, monkeypatch: Patch) -> None:
    write_cifar(tmp_path / "data", monkeypatch)
    names = run("cifar10_quick")
    checkpoints = names["run"].checkpoints  # type: ignore[attr-defined]
    assert len(list(checkpoints.iterdir())) == 10
    assert list(checkpoints.parent.glob("events.*"))


def test_any_dataset(capsys: pytest.CaptureFixture[str]) -> None:
    run("any_dataset")
    out = capsys.readouterr().out
    assert "at 2 is 7.0\n" in out
    assert "Prediction(label='1'" in out


def test_the_command_for_the_real_figures(tmp_path: Path, monkeypatch: Patch, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(80):
        path = tmp_path / "cifar" / ("train" if number < 60 else "test") / f"class {number % 10}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (number, 0, 3 * number)).save(path)
    options = ["--cifar", "cifar", "--seeds", "2", "--only", "random_vectors", "cifar10_lenet", "any_dataset"]
    monkeypatch.setattr(sys, "argv", ["examples.py", *options])
    runpy.run_path(str(HERE / "benchmarks" / "examples.py"), run_name="__main__")
    _, _, vectors, lenet, own = [[cell.strip() for cell in line.split("|")] for line in capsys.readouterr().out.splitlines()]
    assert len(set(vectors[5].split(", "))) == 2, "each seed has vectors of its own"
    assert lenet[1:4] == ["cifar10_lenet", "accuracy, %", "54.0"]
    assert own[1:6] == ["any_dataset", "gradient", "7.0", "7.0", "7.0, 7.0"]
    assert not Path("runs").exists(), "it leaves nothing behind"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_examples_are_short(path: Path) -> None:
    """Lines of the user's own: without imports, docstring, blank lines, and the network, which is theirs in any framework."""
    module = ast.parse(path.read_text(encoding="utf-8"))
    body = [node for node in module.body if not isinstance(node, ast.Import | ast.ImportFrom | ast.ClassDef | ast.Expr)]
    body += [node for node in module.body if isinstance(node, ast.Expr) and not isinstance(node.value, ast.Constant)]
    lines = {line for node in body for line in range(node.lineno, (node.end_lineno or 0) + 1)}
    assert len(lines) <= MOST_LINES


@pytest.mark.parametrize("name", ["first_steps", "own_module"])
def test_the_notebooks_run(name: str, tmp_path: Path) -> None:
    book = nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in book.cells), "notebooks are kept without outputs"
    NotebookClient(book, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in book.cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    shown = [output.data for output in outputs if "data" in output]
    assert sum("text/html" in data for data in shown) >= 2
    assert sum("image/png" in data for data in shown) >= (4 if name == "first_steps" else 0)
