"""The table `startup`: from the start of a process to the first update and to the end, and the most memory held."""

import statistics
import time
from collections.abc import Sequence

from benchmarks.peers.measuring import in_process, megabytes, spread
from benchmarks.peers.request import Request
from benchmarks.peers.turns import Turn, peak_of_torch, take_turn

__all__ = ["table_of_startup"]


def table_of_startup(names: Sequence[str], request: Request, rounds: int) -> list[str]:
    """Return the seconds and bytes of fresh processes, all contestants in each round, as lines of Markdown.

    Every process imports, reads the data, and trains. A first round warms the disk's cache.
    """
    seconds: dict[str, list[float]] = {name: [] for name in names}
    turns: dict[str, list[Turn]] = {name: [] for name in names}
    for number in range(rounds + 1):
        for name in names if number % 2 else reversed(names):
            started = time.perf_counter()
            turn = in_process(take_turn, name, request)
            if number:
                seconds[name].append(turn.first - started)
                turns[name].append(turn)
    torch_alone = in_process(peak_of_torch)
    lines = ["| contestant | start to first update, s | peak above import torch |", "| --- | --- | --- |"]
    for name in names:
        peak = megabytes(round(statistics.median(turn.peak for turn in turns[name])) - torch_alone)
        lines.append(f"| {name} | {spread(seconds[name]).shown('.2f')} | {peak} |")
    return lines
