"""Runs on pictures that do not fit on the disk decoded: the same bytes as from the cache, whatever happens on the way."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import goodfit, train
from harness import BASE, StopAt, fingerprints, request, run_through, run_with_stops, silent
from PIL import Image

import goodfit as api
from goodfit.artefacts.run import Run
from goodfit.config import Layer
from goodfit.data import cache, picture_files
from goodfit.data.picture_files import PictureFiles
from goodfit.errors import DataError, Interrupted, RunError
from goodfit.signals import StopSignals
from goodfit.workflows import Request, plan, resume
from goodfit.workflows import train as train_run

NO_ROOM = 1e-6  # gigabytes
needs_proc = pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")

CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "augmented": {"augment.flip": "alternating", "augment.crop": 2, "augment.cutout": 3, "augment.rand": 0.5},
    "mixed": {"augment.mixup": 0.4, "augment.cutmix": 1.0, "train.accumulate": 3, "train.precision": "bf16"},
    "full batches, no validation": {"train.batch_size": "full", "data.val": 0.0},
    "one of the pictures is bad": {"data.skip_bad": True, "transform.mean": [0.3, 0.4, 0.5]},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(60):
        path = tmp_path / "pictures" / ("cat", "dog", "eel")[number % 3] / f"{number:02}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 120, (12, 12, 3)).astype(np.uint8)
        pixels[:6, :6, number % 3] += 100
        Image.fromarray(pixels).save(path)
    return tmp_path / "pictures"


def run(out: str, room: float = NO_ROOM, **settings: Any) -> Run:
    return run_through(None, Path(out), settings_for(room, settings))


def settings_for(room: float, settings: dict[str, Any]) -> dict[str, Any]:
    return BASE | {"data.name": "pictures", "data.budget": room, "data.processes": 2, "train.epochs": 2} | settings


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_run_from_files_ends_in_the_bytes_of_one_from_the_cache(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "one of the pictures is bad":
        Path("pictures/dog/04.jpg").write_bytes(b"bad")
    if name == "augmented":
        monkeypatch.setattr(picture_files, "FEW", 0)  # read by processes, though they are few
    expected = run("decoded", 0.0, **CONFIGURATIONS[name])
    assert [file.suffix for file in cache.cache_directory().iterdir()] == [".pictures"]
    monkeypatch.setenv("GOODFIT_CACHE", "other")
    done = run("from-files", **CONFIGURATIONS[name])
    assert [file.suffix for file in cache.cache_directory().iterdir()] == [".survey"]
    assert fingerprints(done) == fingerprints(expected)
    assert done.environment["data"] == expected.environment["data"]


@pytest.mark.usefixtures("folder")
def test_a_run_from_files_stops_anywhere_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_files, "FEW", 30)  # so that training is by a process of its own, and evaluations are not
    settings = settings_for(NO_ROOM, {"augment.crop": 1, "data.processes": 1})
    expected = fingerprints(run_through(None, Path("through"), settings))
    assert fingerprints(run_with_stops(None, Path("stopped"), settings, [2, 4, 1])) == expected


@pytest.mark.usefixtures("folder")
def test_a_run_from_files_may_go_on_from_the_cache() -> None:
    settings = settings_for(NO_ROOM, {})
    expected = fingerprints(run_through(None, Path("through"), settings))
    with pytest.raises(Interrupted):
        train_run(request(None, Path("stopped"), settings), silent(), StopAt(4))
    plan(request(None, Path("unused"), settings | {"data.budget": 0.0}), silent())  # decodes them
    assert {file.suffix for file in cache.cache_directory().iterdir()} == {".pictures", ".survey"}
    assert fingerprints(resume(Path("stopped"), silent(), StopSignals())) == expected


@pytest.mark.usefixtures("folder")
def test_pictures_are_looked_at_once_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    said = train("pictures", "--set", f"data.budget={NO_ROOM}", "--set", "train.threads=1", "--epochs", "1").out
    assert "60 pictures of 12 x 12 pixels take 2.59e-05 GB decoded, and 1e-06 GB" in " ".join(said.split())
    assert "they are read from their files in each epoch; to decode them once, allow more" in " ".join(said.split())
    monkeypatch.setattr(cache, "survey_pictures", None)
    again = train("pictures", "--set", f"data.budget={NO_ROOM}", "--set", "train.threads=1", "--epochs", "1", "--json")
    assert again.json["epochs"] == 1


@pytest.mark.usefixtures("folder")
def test_a_model_is_measured_on_pictures_in_files(monkeypatch: pytest.MonkeyPatch) -> None:
    done = run("run")
    assert done.test is not None
    own = goodfit("evaluate", "run", "--json").json  # the survey of training is of no use: pictures take the model's form
    assert (own["split"], own["n"], own["loss"]) == ("test", 12, done.test.loss)
    assert Run(Path("run")).test_uses == 2
    other = goodfit("evaluate", "run", "pictures/cat", "--json")
    assert other.code == 2  # no class folders
    shutil.copytree("pictures", "others")
    monkeypatch.setenv("GOODFIT_CACHE", "other")
    small = ("--set", f"data.budget={NO_ROOM}", "--json")
    Path("others/dog/04.jpg").unlink()
    from_files = goodfit("evaluate", "run", "others", *small).json
    assert [file.suffix for file in cache.cache_directory().iterdir()] == [".survey"]
    decoded = goodfit("evaluate", "run", "others", "--json").json
    assert (from_files, from_files["n"], from_files["split"]) == (decoded, 59, "all")
    assert len(goodfit("predict", "run", "others", "--json").lines) == 59


@pytest.mark.usefixtures("folder")
def test_python_trains_and_draws_from_files() -> None:
    made = api.trainer("pictures", model="mlp", epochs=1, settings={"data.budget": NO_ROOM, "train.threads": 1})
    assert isinstance(made.plan.dataset.train.inputs, PictureFiles)
    pictures, names = made.pictures()
    assert pictures.shape[1:] == (3, 12, 12)
    assert set(names) <= {"cat", "dog", "eel"}
    assert len(list(made.steps())) == made.total_steps


@pytest.mark.usefixtures("folder")
def test_a_test_set_that_is_the_training_set_is_said() -> None:
    for split in ("train", "test"):
        shutil.copytree("pictures", f"data/{split}")
    layers = [Layer("test", settings_for(NO_ROOM, {"data.name": "data"}))]
    assert "test has the very examples of train" in " ".join(plan(Request(layers=layers), silent()).notes)


@pytest.mark.usefixtures("folder")
def test_a_program_is_made_of_a_run_from_files_that_has_a_model() -> None:
    with pytest.raises(Interrupted):
        train_run(request(None, Path("run"), settings_for(NO_ROOM, {})), silent(), StopAt(2))
    done = goodfit("eject", "run")
    assert done.code == 2
    assert "'run' has no model yet, which would tell what its data are like; resume it first" in done.err
    resume(Path("run"), silent(), StopSignals())
    assert "def read(folder: Path)" in goodfit("eject", "run").out


class AtStep(StopSignals):
    """Does something when a step has been done."""

    def __init__(self, step: int, act: Callable[[], Any]) -> None:
        super().__init__()
        self.left, self.act = step, act

    def asked(self) -> bool:
        self.left -= 1
        if self.left == 0:
            self.act()
        return super().asked()


def lose(path: Path) -> None:
    path.unlink()


def swap(path: Path) -> None:
    path.write_bytes(path.with_name("03.jpg").read_bytes())


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lose, r"cat/00\.jpg cannot be read: No such file or directory; it could be read before: put it back as it was$"),
        (swap, r"cat/00\.jpg is another picture than when it was first read; put it back as it was$"),
    ],
)
def test_a_picture_that_changes_on_the_way_ends_the_run_which_goes_on_when_it_is_back(
    folder: Path, harm: Callable[[Path], None], said: str
) -> None:
    settings = settings_for(NO_ROOM, {"data.val": 0.0, "data.skip_bad": True, "checkpoint.every_steps": 1})
    expected = fingerprints(run_through(None, Path("through"), settings))
    path = folder / "cat" / "00.jpg"
    kept = path.read_bytes()
    with pytest.raises(DataError, match=said):
        train_run(request(None, Path("hurt"), settings), silent(), AtStep(2, lambda: harm(path)))
    with pytest.raises(DataError, match="pictures is not what the run was started with"):
        resume(Path("hurt"), silent(), StopSignals())
    path.write_bytes(kept)
    assert fingerprints(resume(Path("hurt"), silent(), StopSignals())) == expected


def children() -> list[int]:
    found = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    return [int(number) for number in found]


@needs_proc
@pytest.mark.usefixtures("folder")
def test_a_killed_process_ends_the_run_and_leaves_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_files, "FEW", 0)
    monkeypatch.setattr(picture_files, "CHUNK", 1)  # of which few are read ahead
    settings = settings_for(NO_ROOM, {"train.batch_size": 2})
    others = children()  # such as the tracker that Python's multiprocessing leaves
    kill = AtStep(2, lambda: [os.kill(child, signal.SIGKILL) for child in children() if child not in others])
    with pytest.raises(RunError, match=r"a process that decodes pictures died at '(cat|dog|eel)/\d+\.jpg'"):
        train_run(request(None, Path("hurt"), settings), silent(), kill)
    assert children() == others


SCRIPT = """
import sys
from goodfit.data import cache
cache.FEW = 0
from goodfit.cli.main import run_command
sys.exit(run_command(sys.argv[1:]))
"""


@needs_proc
def test_ctrl_c_in_the_first_pass_leaves_nothing(folder: Path) -> None:
    Image.new("RGB", (3000, 2000)).save("slow.jpg")
    for path in folder.glob("*/*.jpg"):
        shutil.copy("slow.jpg", path)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", SCRIPT, "train", "pictures", "--out", "run"]
    settings = ["--set", f"data.budget={NO_ROOM}", "--set", "data.processes=2"]
    process = subprocess.Popen(
        [*command, *settings], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, process_group=0
    )
    found: list[str] = []
    deadline = time.monotonic() + 60
    while len(found) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
        found = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode not in (0, 1)
    assert "Traceback" not in errors
    assert not [number for number in found if Path(f"/proc/{number}").exists()]
    assert not Path("run").exists()
    assert not list(cache.cache_directory().iterdir())
