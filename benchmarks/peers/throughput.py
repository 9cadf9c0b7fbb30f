"""The tables `mnist-mlp`, `cifar10-quick` and `overhead`: the same updates by everyone, in pairs."""

import statistics
from collections.abc import Mapping, Sequence

from benchmarks.peers.measuring import Pair, alternate, in_process, megabytes, spread
from benchmarks.peers.request import Request
from benchmarks.peers.turns import Turn, peak_of_torch

__all__ = ["GOODFIT", "HAND_WRITTEN", "table_of_overhead", "table_of_speed"]

GOODFIT, HAND_WRITTEN = "goodfit", "hand-written loop"


def table_of_speed(others: Sequence[str], request: Request, rounds: int) -> list[str]:
    """Return how many times faster goodfit is than each other contestant, as lines of Markdown."""
    pairs = alternate(GOODFIT, others, request, rounds)
    torch_alone = in_process(peak_of_torch)
    lines = [
        "| contestant | examples/s | goodfit's updates: times as fast | goodfit's whole run: times as fast "
        "| CPU s per 1,000 updates | peak above import torch |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, turns in _turns(GOODFIT, pairs).items():
        updates = whole = "1"
        if name in pairs:
            updates = spread([pair.other.seconds / pair.reference.seconds for pair in pairs[name]]).shown(".2f")
            whole = spread([pair.other.whole / pair.reference.whole for pair in pairs[name]]).shown(".2f")
        speed = statistics.median(turn.examples / turn.seconds for turn in turns)
        peak = megabytes(turns[-1].peak - torch_alone)
        lines.append(f"| {name} | {speed:,.0f} | {updates} | {whole} | {_processor_seconds(turns):.2f} | {peak} |")
    return lines


def table_of_overhead(others: Sequence[str], request: Request, rounds: int) -> list[str]:
    """Return what an update costs more than in the hand-written loop, as lines of Markdown."""
    pairs = alternate(HAND_WRITTEN, others, request, rounds)
    lines = [
        "| contestant | us per update | us more than the hand-written loop | CPU s per 1,000 updates |",
        "| --- | --- | --- | --- |",
    ]
    for name, turns in _turns(HAND_WRITTEN, pairs).items():
        more = "0"
        if name in pairs:
            more = spread([_microseconds(pair.other) - _microseconds(pair.reference) for pair in pairs[name]]).shown("+.0f")
        alone = statistics.median(map(_microseconds, turns))
        lines.append(f"| {name} | {alone:.0f} | {more} | {_processor_seconds(turns):.2f} |")
    return lines


def _turns(reference: str, pairs: Mapping[str, Sequence[Pair]]) -> dict[str, list[Turn]]:
    """Return all turns of each contestant, the reference first."""
    of_reference = [pair.reference for several in pairs.values() for pair in several]
    return {reference: of_reference, **{name: [pair.other for pair in several] for name, several in pairs.items()}}


def _microseconds(turn: Turn) -> float:
    return 1e6 * turn.seconds / turn.updates


def _processor_seconds(turns: Sequence[Turn]) -> float:
    return statistics.median(1000 * turn.cpu / turn.updates for turn in turns)
