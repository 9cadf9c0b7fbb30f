"""The run folder, as an object: what lies in it, and what it says.

config.toml · environment.json · metrics.jsonl · test_uses.jsonl · halvings.json · TensorBoard events · checkpoints/ ·
best.safetensors · last.safetensors
"""

import errno
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from shlex import quote
from typing import Any

from goodfit.artefacts.checkpoint import find_checkpoints
from goodfit.artefacts.metrics_log import read_metrics
from goodfit.artefacts.model_file import ModelFile
from goodfit.artefacts.predictor import Predictor
from goodfit.config import Config, Layer, dump_toml, merge, read_toml
from goodfit.errors import FileError, RunError, in_python, in_python_words
from goodfit.evaluation.metrics import Evaluation, evaluation_from_json
from goodfit.files import new_folder, write_atomically
from goodfit.html import table
from goodfit.models.own import OwnModel

__all__ = ["HALVINGS", "START", "Run", "find_runs", "line_of_test_use", "model_path"]

HALVINGS = "halvings.json"  # in the run folder: from which steps on memory made the micro-batch smaller
START = "start.safetensors"  # in the run folder: the model file that training went on from

LOCKS: set[int] = set()  # descriptors of the folders that this process has locked


@cache
def _forget_in_forks() -> None:
    """Let processes that are forked, such as those of a DataLoader, hold no lock: they may outlive this one by seconds."""

    def unlock() -> None:
        while LOCKS:
            os.close(LOCKS.pop())

    os.register_at_fork(after_in_child=unlock)


@dataclass(frozen=True)
class Run:
    """A run folder. `Run(path)` raises FileError if there is none."""

    path: Path
    own: OwnModel | None = field(default=None, repr=False, compare=False)  # the user's code for its model, if that is known
    data: Any = field(default=None, repr=False, compare=False)  # its data, where they were given as objects and are known

    def __post_init__(self) -> None:
        if not (self.path / "config.toml").is_file():
            raise FileError(
                f"{str(self.path)!r} is not a run folder: it has no config.toml; `goodfit runs` lists those there are"
            )

    @property
    def model(self) -> Path:
        """The model file with the lowest validation loss; the last one without validation."""
        return self.path / "best.safetensors"

    @property
    def last(self) -> Path:
        """The model file of the last evaluated step."""
        return self.path / "last.safetensors"

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / "checkpoints"

    @cached_property
    def config(self) -> Config:
        """The run's complete configuration."""
        return merge([Layer("config.toml", read_toml(self.path / "config.toml"))])[0]

    @cached_property
    def environment(self) -> dict[str, Any]:
        """Where the run was made."""
        try:
            found: dict[str, Any] = json.loads((self.path / "environment.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise FileError(f"cannot read {str(self.path / 'environment.json')!r}: {error}") from error
        return found

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl."""
        return read_metrics(self.path / "metrics.jsonl")

    @cached_property
    def best(self) -> ModelFile | None:
        """The best model file, or None if there is none yet."""
        return ModelFile.load(self.model) if self.model.exists() else None

    @property
    def test(self) -> Evaluation | None:
        """The best model's test result, once training has ended."""
        return evaluation_from_json(self.best.test) if self.best and self.best.test else None

    @property
    def val(self) -> Evaluation | None:
        """The best model's validation result."""
        return evaluation_from_json(self.best.val) if self.best and self.best.val else None

    @property
    def end(self) -> dict[str, Any] | None:
        """The last line of the log if training has ended, else None."""
        return next((line for line in reversed(self.metrics) if line["event"] == "end"), None)

    @property
    def test_uses(self) -> int:
        """How often the test split has been looked at."""
        path = self.path / "test_uses.jsonl"
        return path.read_bytes().count(b"\n") if path.exists() else 0

    def count_test_use(self, by: str, step: int) -> None:
        """Write down that the test split was used; raise RunError where the disk does not take it."""
        path = self.path / "test_uses.jsonl"
        try:
            with path.open("ab") as file:
                file.write(line_of_test_use(by, step))
        except OSError as error:
            raise RunError(f"cannot write {str(path)!r}: {error.strerror}; free space and try again") from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from training in this folder, for the length of the block or until this process dies.

        Raises FileError if another is. Without effect where folders cannot be locked (Windows, some network disks).
        """
        if sys.platform == "win32":
            yield
            return
        import fcntl

        descriptor = os.open(self.path, os.O_RDONLY)
        _forget_in_forks()
        LOCKS.add(descriptor)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno == errno.EWOULDBLOCK:
                    raise FileError(
                        f"another process is training in {str(self.path)!r}; wait for it to end, or stop it, and try again"
                    ) from None
            yield
        finally:
            LOCKS.discard(descriptor)
            os.close(descriptor)

    def tidy(self) -> None:
        """Remove the files that a process was writing when it was killed; the folder must be locked."""
        for folder in (self.path, *find_checkpoints(self.checkpoints)):
            for left in folder.glob(".*.tmp"):
                with suppress(OSError):
                    left.unlink()

    def summary(self) -> dict[str, Any]:
        """Return what `goodfit train --json` prints."""
        end = self.end or {"step": 0, "epoch": 0, "clock": {"seconds": 0.0}}
        return {
            "run": str(self.path),
            "model": str(self.model),
            "steps": end["step"],
            "epochs": int(end["epoch"]) if end["epoch"] == int(end["epoch"]) else end["epoch"],
            "seconds": end["clock"]["seconds"],
            "test": self.test.to_json() if self.test else None,
            "val": self.val.to_json() if self.val else None,
        }

    @in_python_words(model="goodfit.load(run.path, model=...)")
    def predictor(self) -> Predictor:
        """Return the best model, ready to predict."""
        return Predictor.load(self.model, own=self.own)

    @in_python_words(out="path=")
    def save(self, path: str | Path) -> Path:
        """Copy the best model file to `path` and return that path; raise FileError if there is none yet."""
        if not self.model.exists():
            raise FileError(
                f"{str(self.path)!r} holds no model yet; resume the run first: goodfit resume {quote(str(self.path))}"
            )
        target = model_path(path)
        write_atomically(target, self.model.read_bytes())
        return target

    def __repr__(self) -> str:
        result = f": {self.test.summary()}" if self.test else ""
        return f"Run({str(self.path)!r}){result}"

    def _repr_html_(self) -> str:
        data = self.best.training["data"] if self.best else self.config.data.name
        rows = [("run", str(self.path)), ("data", str(data)), ("model", self.config.model.name)]
        if end := self.end:
            rows.append(("trained", f"{end['epoch']:g} epochs in {end['clock']['seconds']:,.1f} s ({end['reason']})"))
        else:
            rows.append(("unfinished", in_python(f"goodfit resume {quote(str(self.path))}")))
        return table([*rows, *((each.split, each.summary()) for each in (self.val, self.test) if each)])


def model_path(path: str | Path) -> Path:
    """Return where a model file is to be written; raise FileError for a name that says it is something else."""
    if Path(path).suffix in (".pth", ".pt", ".bin", ".pkl", ".onnx"):
        raise FileError(
            f"{str(path)!r} is no name for a model file, which is a .safetensors; plain weights are written by "
            "goodfit export MODEL --format state-dict"
        )
    return Path(path)


def line_of_test_use(by: str, step: int) -> bytes:
    """Return a line of test_uses.jsonl."""
    return json.dumps({"by": by, "step": step}).encode() + b"\n"


@contextmanager
def create_run(path: Path, config: Config, environment: dict[str, Any], heading: str) -> Iterator[Path]:
    """Make the run folder by one rename at the end of the block, which may add files to the folder it is given."""
    with new_folder(path) as folder:
        comments = "".join(f"# {line}\n" for line in heading.splitlines())
        write_atomically(folder / "config.toml", f"{comments}\n{dump_toml(config)}")
        write_atomically(folder / "environment.json", json.dumps(environment, indent=1) + "\n")
        yield folder


def find_runs(folder: Path) -> list[Run]:
    """Return the run folders directly in `folder`, by name."""
    if not folder.is_dir():
        raise FileError(f"{str(folder)!r} is not a folder; runs are made in runs/ unless --out says otherwise")
    return [Run(path) for path in sorted(folder.iterdir()) if (path / "config.toml").is_file()]
