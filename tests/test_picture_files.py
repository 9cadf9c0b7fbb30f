import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from goodfit.data import picture_files
from goodfit.data.dataset import Split
from goodfit.data.folder import read_folder
from goodfit.data.picture_files import PictureFiles
from goodfit.data.stream import make_loader, read_in_order
from goodfit.distributed import Ranks
from goodfit.errors import DataError, RunError

COUNT = 90
CPU = torch.device("cpu")
needs_proc = pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")


@pytest.fixture(autouse=True)
def processes_at_once(monkeypatch):
    monkeypatch.setattr(picture_files, "FEW", 0)


@pytest.fixture
def folder(tmp_path):
    for number in range(COUNT):
        path = tmp_path / "data" / ("cat", "dog")[number % 2] / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (6, 5, 3)).astype(np.uint8)).save(path)
    return tmp_path / "data"


def split(folder, budget=1, processes=2, timeout=60.0):
    part = read_folder(folder, budget=budget, processes=processes, timeout=timeout).parts["train"]
    return Split(part.inputs, part.targets, torch.arange(COUNT - 1).flip(0), part.names)


def children():
    found = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    return [int(number) for number in found]


def loader(made, ranks=None, whole=False):
    return make_loader(made, 20, seed=3, device=CPU, ranks=ranks, whole=whole)


@pytest.mark.parametrize("processes", [1, 3])
def test_a_loader_gives_the_batches_that_it_gives_of_a_tensor(folder, processes):
    files, store = split(folder, processes=processes), split(folder, budget=None)
    assert isinstance(files.inputs, PictureFiles)
    assert isinstance(store.inputs, torch.Tensor)
    ours, theirs = loader(files), loader(store)
    assert ours.steps_per_epoch == theirs.steps_per_epoch == 5
    for step in (0, 1, 2, 3, 4, 5, 6, 2, 9, 8):  # on, over the end of an epoch, and to another place
        batch, expected = ours(step), theirs(step)
        assert torch.equal(batch.inputs, expected.inputs)
        assert torch.equal(batch.targets, expected.targets)
        assert (batch.part, batch.is_ready) == (expected.part, False)
        assert torch.equal(ours.positions(step), theirs.positions(step))
    ours.close()


def test_ranks_have_their_parts_or_the_whole(folder):
    files, store = split(folder), split(folder, budget=None)
    for step in (0, 4):
        expected = loader(store)(step)
        parts = [loader(files, Ranks(rank, 2))(step) for rank in range(2)]
        assert torch.equal(torch.cat([batch.inputs for batch in parts]), expected.inputs)
        assert [torch.equal(batch.targets, expected.targets) for batch in parts] == [True, True]
        mixed = loader(files, Ranks(1, 2), whole=True)(step)
        assert torch.equal(mixed.inputs, expected.inputs)
        assert mixed.part == slice(0, len(expected.targets))
    batches = [loader(files, Ranks(rank, 30))(0) for rank in range(2)]  # of which the first has none of 20 examples
    assert [batch.inputs.shape for batch in batches] == [(0, 3, 6, 5), (1, 3, 6, 5)]


def test_an_evaluation_reads_in_order(folder):
    files, store = split(folder), split(folder, budget=None)
    (ours,), (theirs,) = list(read_in_order(files, slice(5, 80))), list(read_in_order(store, slice(5, 80)))
    assert torch.equal(ours[0], theirs[0])
    assert torch.equal(ours[1], theirs[1])
    assert ours[2] is theirs[2] is False
    assert next(read_in_order(files, slice(7, 7)))[0].shape == (0, 3, 6, 5)


@needs_proc
def test_processes_live_no_longer_than_their_epoch(folder):
    made = loader(split(folder))
    made(0)
    assert len(children()) == 2
    for step in range(1, 5):
        made(step)
    assert not children()
    made(7)
    del made  # forgotten in the midst of an epoch
    assert not children()


def test_reading_ahead_is_bounded(folder, monkeypatch):
    monkeypatch.setattr(picture_files, "CHUNK", 2)
    asked = []
    monkeypatch.setattr(
        PictureFiles, "_request", lambda self, rows, real=PictureFiles._request: asked.append(rows) or real(self, rows)
    )
    stream = split(folder, processes=1).inputs.stream([[row] for row in range(COUNT)])
    next(stream)
    assert len(asked) == 5  # the four that one process is given, and the one that was taken
    stream.close()


@needs_proc
def test_a_process_that_dies_is_an_error_that_names_the_picture(folder):
    pictures = split(folder)
    waits = folder / pictures.name(int(loader(pictures).positions(3)[7]))
    waits.unlink()
    os.mkfifo(waits)  # to read it is to wait for ever, so that not everything can be read before they die
    made = loader(pictures)
    made(0)
    for child in children():
        os.kill(child, signal.SIGKILL)
    with pytest.raises(RunError, match=r"a process that decodes pictures died at '(cat|dog)/\d+\.png'; replace that file"):
        [made(step) for step in range(1, 10)]
    assert not children()


@needs_proc
def test_a_picture_that_takes_too_long_is_named(folder):
    made = loader(split(folder, timeout=2.0))
    (folder / "cat" / "000.png").unlink()
    os.mkfifo(folder / "cat" / "000.png")  # to read it is to wait for ever
    with pytest.raises(RunError, match=r"took too long at 'cat/000\.png'; .*data\.timeout=SECONDS"):
        [made(step) for step in range(5)]
    assert not children()


def test_a_picture_that_is_lost_is_named_where_its_batch_is_asked_for(folder):
    made = split(folder)
    lost = loader(made).positions(3)[7]
    name = made.name(int(lost))
    (folder / name).rename(folder / "kept")
    ours = loader(made)
    for step in range(3):
        ours(step)
    with pytest.raises(DataError, match=rf"^{name} cannot be read: No such file or directory; it could be read before"):
        ours(3)
    (folder / "kept").rename(folder / name)
    assert len(ours(3).inputs) == 20


def test_the_working_folder_may_change(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = split(Path("data"))
    monkeypatch.chdir("/")
    assert len(loader(made)(0).inputs) == 20


def test_a_forgotten_stream_keeps_no_interpreter_from_its_end(folder, tmp_path):
    import subprocess
    import sys

    script = """
import sys
from pathlib import Path
from goodfit.data import picture_files
from goodfit.data.folder import read_folder
picture_files.FEW = 0
stream = read_folder(Path(sys.argv[1]), budget=1, processes=2).parts["train"].inputs.stream([[row] for row in range(90)])
print(next(stream).shape, flush=True)
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", script, folder], capture_output=True, text=True, env=environment, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "torch.Size([1, 3, 6, 5])\n", "")
