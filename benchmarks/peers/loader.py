"""The table `loader`: an epoch of shuffled batches from memory, without a network."""

import statistics
import time
from collections.abc import Callable

from benchmarks.peers.measuring import in_process, spread

__all__ = ["table_of_loaders"]

EXAMPLES, FEATURES, BATCH = 20_000, 20, 256
EPOCHS = 20  # in a turn
BARE = "`X[index]`, X alone, the order drawn beforehand"


def table_of_loaders(rounds: int) -> list[str]:
    """Return the time of each loader and its ratio to bare indexing, as lines of Markdown."""
    times = in_process(time_loaders, rounds)
    lines = ["| loader | us per batch | times bare indexing |", "| --- | --- | --- |"]
    for name, seconds in times.items():
        ratios = spread([mine / bare for mine, bare in zip(seconds, times[BARE], strict=True)])
        micro = 1e6 * statistics.median(seconds) / (EPOCHS * -(-EXAMPLES // BATCH))
        lines.append(f"| {name} | {micro:.1f} | {ratios.shown('.2f')} |")
    return lines


def time_loaders(rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each round's turn of each loader, taken in one process, forwards and backwards."""
    loaders = _loaders()
    times: dict[str, list[float]] = {name: [] for name in loaders}
    for number in range(rounds + 1):
        for name in loaders if number % 2 else reversed(loaders):
            started = time.perf_counter()
            for epoch in range(EPOCHS):
                loaders[name](epoch)
            if number:
                times[name].append(time.perf_counter() - started)
    return times


def _loaders() -> dict[str, Callable[[int], None]]:
    """Return what goes once through all batches of an epoch, by name."""
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    from goodfit.data.dataset import Split
    from goodfit.data.loader import Loader

    inputs, targets = torch.randn(EXAMPLES, FEATURES), torch.randint(0, 2, (EXAMPLES,))
    order = torch.randperm(EXAMPLES).split(BATCH)
    ours = Loader(Split(inputs, targets, torch.arange(EXAMPLES)), BATCH, seed=0, device=torch.device("cpu"))
    torchs = DataLoader(TensorDataset(inputs, targets), BATCH, shuffle=True)

    def bare(_: int) -> None:
        for rows in order:
            inputs[rows]

    def bare_shuffled(_: int) -> None:
        for rows in torch.randperm(EXAMPLES).split(BATCH):
            inputs[rows], targets[rows]

    def with_goodfit(epoch: int) -> None:
        for step in range(epoch * ours.steps_per_epoch, (epoch + 1) * ours.steps_per_epoch):
            ours(step)

    def with_torch(_: int) -> None:
        for _batch in torchs:
            pass

    return {
        BARE: bare,
        "`X[index], y[index]`, the order drawn each epoch": bare_shuffled,
        "goodfit's, X and y": with_goodfit,
        "`DataLoader(TensorDataset(X, y), shuffle=True)`": with_torch,
    }
