"""Running and stopping runs in this process, and comparing what they left, byte for byte."""

import io
import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from goodfit.artefacts.run import Run
from goodfit.config import Layer
from goodfit.display import Display
from goodfit.errors import Interrupted
from goodfit.signals import StopSignals
from goodfit.workflows import Request, resume, train

CLOCK = "clock"


class StopAt(StopSignals):
    """Asks to stop after a number of steps, as a signal would."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.left = steps

    def asked(self) -> bool:
        self.left -= 1
        if self.left == 0:
            self.signum = 15
        return super().asked()


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """Let no file grow beyond `room` bytes, which to a program is a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def silent() -> Display:
    return Display(io.StringIO(), is_silent=True)


def tiny_pictures(count: int = 60, classes: int = 3, side: int = 8, channels: int = 3, seed: int = 0) -> tuple[Any, Any]:
    """Noise with a bright corner that tells the class: learnable, and small enough to train on in a moment."""
    random = np.random.default_rng(seed)
    targets = np.arange(count) % classes
    pictures = random.integers(0, 120, (count, channels, side, side)).astype(np.uint8)
    for index, target in enumerate(targets):
        pictures[index, target % channels, : side // 2, : side // 2] += 100
    return pictures, targets.astype(np.int64)


def request(data: Any, out: Path, settings: dict[str, Any]) -> Request:
    own = {} if data is None else {"data.name": "memory"}
    return Request(data=data, layers=[Layer("test", own | settings)], out=out, recipe="auto")


def run_through(data: Any, out: Path, settings: dict[str, Any]) -> Run:
    return train(request(data, out, settings), silent(), StopSignals())


def run_with_stops(data: Any, out: Path, settings: dict[str, Any], stops: list[int]) -> Run:
    """Stop after `stops[0]` steps, resume and stop after `stops[1]` more, and so on; then finish."""
    with suppress(Interrupted):
        train(request(data, out, settings), silent(), StopAt(stops[0]))
    for steps in stops[1:]:
        with suppress(Interrupted):
            resume(out, silent(), StopAt(steps), data=data)
    return resume(out, silent(), StopSignals(), data=data)


def fingerprints(run: Run) -> dict[str, str]:
    """Return what must be equal for equal runs: model files, the last checkpoint's state, and the log without clocks."""
    newest = max(run.checkpoints.iterdir(), key=lambda path: int(path.name.removeprefix("step-")))
    files = [run.model, run.last, newest / "state.safetensors"]
    digests = {path.name: sha256(path.read_bytes()).hexdigest() for path in files}
    lines = [{key: value for key, value in line.items() if key != CLOCK} for line in run.metrics]
    return digests | {"metrics": json.dumps(lines, indent=1), "step": newest.name}
