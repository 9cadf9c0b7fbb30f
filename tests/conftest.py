"""Fixtures for every test: a cache and a working folder of its own, and nothing left behind."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

# Tests run in several processes, whose threads must not turn in circles while they wait; read when torch is imported.
os.environ["OMP_WAIT_POLICY"] = os.environ.get("OMP_WAIT_POLICY", "passive")

import polars as pl  # noqa: F401  (sets environment variables when it is first imported)
import pytest
import sklearn  # noqa: F401  (likewise)
import torch

# By pytest and this file's fixtures, by torch when the first optimizer is made, and by an older ipykernel's debugger.
MAY_CHANGE = {"PYTEST_CURRENT_TEST", "GOODFIT_CACHE", "GOODFIT_DATA", "PWD", "COLUMNS", "LINES", "TORCHINDUCTOR_CACHE_DIR"}
MAY_CHANGE |= {"PYDEVD_USE_FRAME_EVAL"}


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep caches, runs and downloads of a test inside its temporary folder."""
    monkeypatch.setenv("GOODFIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("GOODFIT_DATA", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    """Fail a test that leaves signal handlers, environment variables or a thread count changed."""
    heard = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1]
    handlers = [signal.getsignal(number) for number in heard]
    environment = dict(os.environ)
    threads = torch.get_num_threads()
    yield
    assert [signal.getsignal(number) for number in heard] == handlers
    changed = {key for key in environment.keys() | os.environ.keys() if environment.get(key) != os.environ.get(key)}
    assert not changed - MAY_CHANGE
    assert torch.get_num_threads() == threads


@pytest.fixture
def real_data() -> Path:
    """The folder with the real data sets, in torchvision's layout."""
    folder = os.environ.get("GOODFIT_TEST_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("GOODFIT_TEST_DATA does not name the folder of the real data sets")
    return Path(folder)
