"""The run folder as an object: what lies in it, what it says, and how often the test split was looked at."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from harness import StopAt, full_disk, request, run_through, silent, tiny_pictures
from torch import nn

import goodfit
from goodfit.artefacts.model_file import ModelFile
from goodfit.artefacts.run import Run, create_run, find_runs
from goodfit.config import Config, Layer, merge
from goodfit.errors import CodeNeededError, ConfigError, FileError, Interrupted, RunError
from goodfit.signals import StopSignals
from goodfit.workflows import resume, train

SETTINGS: dict[str, Any] = {
    "model.name": "mlp",
    "train.epochs": 4,
    "train.batch_size": 8,
    "train.threads": 1,
    "train.precision": "fp32",
}
DATA = {"train": tiny_pictures()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run_through(DATA, tmp_path_factory.mktemp("runs") / "finished", SETTINGS)


@pytest.fixture
def run(finished: Run, tmp_path: Path) -> Run:
    """A copy that a test may change."""
    return Run(Path(shutil.copytree(finished.path, tmp_path / "run")))


@pytest.fixture
def stopped(tmp_path: Path) -> Run:
    """A run that was stopped in its first epoch, before there was a model."""
    with pytest.raises(Interrupted):
        train(request(DATA, tmp_path / "stopped", SETTINGS), silent(), StopAt(2))
    return Run(tmp_path / "stopped")


def test_a_finished_run_says_what_it_is(run: Run) -> None:
    assert run.config.train.epochs == 4
    assert run.environment["threads"] == 1
    assert [line["event"] for line in run.metrics[-2:]] == ["test", "end"]
    assert run.end == run.metrics[-1]
    assert (run.model.name, run.last.name, run.checkpoints.name) == ("best.safetensors", "last.safetensors", "checkpoints")
    best = run.best
    assert best is not None
    assert run.test is not None
    assert run.val is not None
    assert (run.test.to_json(), run.val.to_json()) == (best.test, best.val)
    assert run.test.split == "test"
    assert run.val.split == "val"
    assert repr(run) == f"Run({str(run.path)!r}): {run.test.summary()}"


def test_the_best_model_is_that_with_the_lowest_validation_loss(run: Run) -> None:
    curve = {line["step"]: line["loss"] for line in run.metrics if line["event"] == "evaluation"}
    best = ModelFile.load(run.model)
    assert best.training["steps"] == min(curve, key=lambda step: curve[step])
    assert best.val is not None
    assert best.val["loss"] == min(curve.values())
    assert ModelFile.load(run.last).training["steps"] == max(curve)


def test_the_summary_is_json_with_just_these_keys(run: Run) -> None:
    summary = run.summary()
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert list(summary) == ["run", "model", "steps", "epochs", "seconds", "test", "val"]
    assert summary["run"] == str(run.path)
    assert Path(summary["model"]).is_file()
    assert summary["steps"] == 4 * 6  # 43 examples to train on, 8 at a time
    assert (summary["epochs"], type(summary["epochs"])) == (4, int)
    assert summary["seconds"] > 0
    assert summary["test"]["accuracy"] == run.test.accuracy  # type: ignore[union-attr]
    assert summary["val"]["split"] == "val"


def test_half_an_epoch_is_not_rounded(run: Run) -> None:
    lines = [line | ({"epoch": 3.5} if line["event"] == "end" else {}) for line in run.metrics]
    (run.path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert run.summary()["epochs"] == 3.5


def test_a_run_that_was_stopped_has_no_end_and_no_model(stopped: Run, tmp_path: Path) -> None:
    assert (stopped.end, stopped.best, stopped.test, stopped.val, stopped.test_uses) == (None, None, None, None, 0)
    assert repr(stopped) == f"Run({str(stopped.path)!r})"
    summary = stopped.summary()
    assert (summary["test"], summary["val"]) == (None, None)
    with pytest.raises(
        FileError, match=r"stopped' holds no model yet; resume the run first: goodfit\.resume\(\".*/stopped\"\)$"
    ):
        stopped.save(tmp_path / "model.safetensors")
    with pytest.raises(FileError, match=r"has no best\.safetensors yet; go on with it: goodfit\.resume\(\".*/stopped\"\)"):
        stopped.predictor()


def test_each_use_of_the_test_split_is_counted(run: Run) -> None:
    assert run.test_uses == 1  # the test at the end
    goodfit.evaluate(run, DATA)
    assert run.test_uses == 2
    goodfit.evaluate(run, DATA, split="val")
    goodfit.evaluate(run, tiny_pictures(seed=5))  # other data have no part in it
    assert run.test_uses == 2
    uses = [json.loads(line) for line in (run.path / "test_uses.jsonl").read_text().splitlines()]
    assert [use["by"] for use in uses] == ["train", "evaluate"]


def test_a_curve_on_the_test_split_is_counted_every_epoch(tmp_path: Path) -> None:
    run = run_through(DATA, tmp_path / "run", SETTINGS | {"data.val": 0.0})
    assert run.test_uses == 4 + 1
    assert run.val is None
    assert {line["split"] for line in run.metrics if line["event"] == "evaluation"} == {"test"}
    assert not any(line["best"] for line in run.metrics if line["event"] == "evaluation")
    assert ModelFile.load(run.model).training["steps"] == run.summary()["steps"]  # which chose nothing


def test_a_model_is_saved_elsewhere(run: Run, tmp_path: Path) -> None:
    assert run.save("mine.safetensors") == Path("mine.safetensors")
    assert Path("mine.safetensors").read_bytes() == run.model.read_bytes()
    with pytest.raises(RunError, match=r"cannot write '.*none.*mine\.safetensors'.*; choose another path=$"):
        run.save(tmp_path / "none" / "mine.safetensors")


def test_a_predictor_of_code_that_is_not_known_is_loaded_with_it(tmp_path: Path) -> None:
    made = goodfit.train(([[0.0], [1.0]] * 20, [0, 1] * 20), model=nn.Linear(1, 2), epochs=1, out=tmp_path / "run", quiet=True)
    assert made.predictor()([[0.0]])
    with pytest.raises(CodeNeededError, match=r"builds it, with goodfit\.load\(run\.path, model=\.\.\.\)$"):
        Run(made.path).predictor()


def test_a_folder_that_is_no_run_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "odd" / "config.toml").mkdir(parents=True)
    for path in (tmp_path, tmp_path / "none", tmp_path / "file", tmp_path / "odd"):
        with pytest.raises(FileError, match=r"is not a run folder: it has no config\.toml; `goodfit runs` lists") as raised:
            Run(path)
        assert repr(str(path)) in str(raised.value)


def test_a_damaged_part_of_a_run_is_named(run: Run) -> None:
    (run.path / "environment.json").write_text("{")
    with pytest.raises(FileError, match=r"cannot read .*environment\.json"):
        _ = run.environment
    (run.path / "environment.json").unlink()
    with pytest.raises(FileError, match=r"cannot read .*environment\.json"):
        _ = run.environment
    (run.path / "metrics.jsonl").write_text("nonsense\n")
    with pytest.raises(FileError, match=r"metrics\.jsonl' holds a line that is not JSON"):
        _ = run.end
    (run.path / "config.toml").write_text("[train]\nepochs = 'many'\n")
    with pytest.raises(ConfigError, match=r"train\.epochs = 'many' \(from config\.toml\): must be a valid integer"):
        _ = run.config
    run.model.write_bytes(b"nonsense")
    with pytest.raises(FileError, match=r"best\.safetensors' is not a model file"):
        _ = run.test


def test_a_run_folder_is_made_whole_and_reads_back(tmp_path: Path) -> None:
    config, _ = merge([Layer("test", {"train.epochs": 7, "data.name": 'a "name" with \\ and \u00fc'})])
    with create_run(tmp_path / "run", config, {"threads": 1}, "line one\nline two") as folder:
        (folder / "more.txt").write_text("more")
        assert not (tmp_path / "run").exists()
    run = Run(tmp_path / "run")
    assert (run.config, run.environment) == (config, {"threads": 1})
    assert (run.path / "config.toml").read_text().startswith("# line one\n# line two\n\n[data]\n")
    assert (run.path / "more.txt").exists()
    with (
        pytest.raises(FileError, match="exists and is not empty; choose another --out"),
        create_run(run.path, Config(), {}, ""),
    ):
        pass


def test_what_a_killed_process_was_writing_is_removed_by_the_next(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(request(DATA, tmp_path / "run", SETTINGS), silent(), StopAt(2))
    half = [tmp_path / "run" / ".best.safetensors.7.tmp", tmp_path / "run" / "checkpoints" / "step-2" / ".state.json.7.tmp"]
    for path in half:
        path.write_bytes(b"half")
    resume(tmp_path / "run", silent(), StopSignals(), data=DATA)
    assert not list((tmp_path / "run").rglob(".*"))


def test_runs_are_found_by_name(tmp_path: Path) -> None:
    for name in ("b", "a"):
        with create_run(tmp_path / "runs" / name, Config(), {}, name):
            pass
    (tmp_path / "runs" / "notes").mkdir()
    (tmp_path / "runs" / "file").write_text("")
    assert [run.path.name for run in find_runs(tmp_path / "runs")] == ["a", "b"]
    assert find_runs(tmp_path / "runs" / "notes") == []
    with pytest.raises(FileError, match=r"none' is not a folder; runs are made in runs/ unless --out says otherwise"):
        find_runs(tmp_path / "none")


def test_a_use_of_the_test_split_that_cannot_be_counted_is_an_error(tmp_path: Path) -> None:
    run = run_through(
        {"train": tiny_pictures()}, tmp_path / "run", {"model.name": "mlp", "train.epochs": 1, "train.threads": 1}
    )
    with full_disk(room=1), pytest.raises(RunError, match=r"cannot write '.*test_uses\.jsonl': File too large; free space"):
        run.count_test_use("evaluate", 3)


# Locks a run folder, forks a process that lives on, as a DataLoader's workers do for some seconds, and is killed.
FORKED = """
import os, signal, sys, time
from pathlib import Path
from goodfit.artefacts.run import Run
with Run(Path(sys.argv[1])).locked():
    child = os.fork()
    if not child:
        time.sleep(60)
        os._exit(0)
    print(child, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_process_that_was_forked_holds_no_lock(tmp_path: Path) -> None:
    (tmp_path / "config.toml").touch()
    with subprocess.Popen([sys.executable, "-c", FORKED, tmp_path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        process.wait()
        try:
            with Run(tmp_path).locked():
                pass
        finally:
            os.kill(child, signal.SIGKILL)
