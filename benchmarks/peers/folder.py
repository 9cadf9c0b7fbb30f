"""The table `folder`: a class folder of pictures to batches in memory, for the first time and again."""

import os
import statistics
import time
from multiprocessing import set_start_method
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.peers.measuring import in_process, spread
from benchmarks.peers.turns import silence

__all__ = ["table_of_folders"]

GOODFIT, TORCHVISION = "goodfit, first decode", "ImageFolder, DataLoader of 2 workers"


def table_of_folders(folder: Path, rounds: int) -> list[str]:
    """Return the seconds of going through all pictures, and the pairs' ratios, as lines of Markdown.

    Each is a process of its own; imports are not counted, but for what goodfit imports on the way.
    """
    times: dict[str, list[float]] = {GOODFIT: [], "goodfit, again": [], TORCHVISION: []}
    with TemporaryDirectory(prefix="goodfit-peers-") as scratch:
        for number in range(rounds + 1):
            for name in (GOODFIT, TORCHVISION) if number % 2 else (TORCHVISION, GOODFIT):
                cache = Path(scratch) / str(number)
                if name == TORCHVISION:
                    seconds = {name: in_process(read_with_torchvision, folder)}
                else:
                    seconds = {name: in_process(read_with_goodfit, folder, cache) for name in (GOODFIT, "goodfit, again")}
                if number:
                    for what, taken in seconds.items():
                        times[what].append(taken)
    ratios = spread([other / ours for other, ours in zip(times[TORCHVISION], times[GOODFIT], strict=True)])
    lines = ["| pictures read by | seconds | goodfit's first decode is faster by |", "| --- | --- | --- |"]
    for name, seconds in times.items():
        shown = ratios.shown(".2f") if name == TORCHVISION else ""
        lines.append(f"| {name} | {statistics.median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f}) | {shown} |")
    return lines


def read_with_goodfit(folder: Path, cache: Path) -> float:
    """Return the seconds until a run on the folder could begin: all pictures decoded, checked and mapped."""
    os.environ["GOODFIT_CACHE"] = str(cache)
    import goodfit

    goodfit.trainer  # noqa: B018  (its import is not counted)
    with silence():
        started = time.perf_counter()
        goodfit.trainer(folder, recipe="cifar10-quick")
        return time.perf_counter() - started


def read_with_torchvision(folder: Path) -> float:
    """Return the seconds of one pass over train/ and test/."""
    from torch.utils.data import ConcatDataset, DataLoader
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import ToTensor

    set_start_method(None, force=True)  # the platform's own: this process was spawned, and would spawn its workers too
    with silence():
        started = time.perf_counter()
        pictures = ConcatDataset([ImageFolder(folder / split, ToTensor()) for split in ("train", "test")])
        for _ in DataLoader(pictures, batch_size=64, num_workers=2):
            pass
        return time.perf_counter() - started
