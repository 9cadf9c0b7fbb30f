"""The loader is a function: step -> batch. Nothing is consumed, so any step can be asked for at any time.

Order is a permutation addressed by (seed, epoch). Examples lie in one store (RAM, a memory map or the device) and
are gathered there, a block of batches at a time, without worker processes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from goodfit.data.dataset import Split
from goodfit.distributed import Ranks
from goodfit.errors import ConfigError
from goodfit.inputs import Inputs
from goodfit.randomness import generator

__all__ = ["Batch", "Loader", "check_batch_size", "steps_per_epoch"]

BLOCK_BYTES = 4 << 20  # gathered at once: large enough to spread the cost of a call, small enough to stay in cache


@dataclass(frozen=True)
class Batch:
    """One update's examples: inputs of this rank, and the targets of the whole global batch."""

    inputs: Inputs  # (n, ...) of the examples `part`
    targets: Tensor  # (N,) of all ranks
    part: slice  # this rank's examples among the N
    is_ready: bool = False  # what the model sees: neither augmented nor normalised again


def steps_per_epoch(count: int, batch_size: int) -> int:
    """How many batches `count` examples make: a last one of a single example joins the one before."""
    full, rest = divmod(count, batch_size)
    return max(1, full + (rest > 1 or (rest == 1 and batch_size == 1)))


def check_batch_size(batch_size: int, count: int) -> None:
    """Raise ConfigError if a batch holds more examples than there are."""
    if batch_size > count:
        raise ConfigError(
            f"train.batch_size = {batch_size} is more than the {count} training examples; "
            f"use --batch-size full or a number up to {count}"
        )


class Loader:
    """The batches of a training split, by step.

    Raises ConfigError if a batch holds more examples than the split.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        *,
        seed: int,
        device: torch.device,
        ranks: Ranks | None = None,
        whole: bool = False,  # give each rank the inputs of the whole batch, for augmentation that mixes examples
    ) -> None:
        assert isinstance(split.inputs, Tensor)
        check_batch_size(batch_size, len(split))
        self.share = Ranks() if whole else ranks or Ranks()
        self.batch_size = batch_size
        self.seed = seed
        self.device = device
        self.count = len(split)
        self.steps_per_epoch = steps_per_epoch(self.count, batch_size)
        on_device = device.type != "cpu" and split.inputs.numel() * split.inputs.element_size() < _free_bytes(device) // 4
        self.inputs = split.inputs.to(device) if on_device else split.inputs
        self.targets = split.targets
        self.rows = split.rows
        example_bytes = max(1, split.inputs[0].numel() * split.inputs.element_size())
        self.block = max(1, min(64, BLOCK_BYTES // (example_bytes * batch_size)))
        self._epoch = -1
        self._block = (-1, -1)
        self._given = -1

    def positions(self, step: int) -> Tensor:
        """Return the positions in the split of the examples of batch `step`, for all ranks."""
        epoch, index = divmod(step, self.steps_per_epoch)
        self._shuffle(epoch)
        return self._order[self._bounds(index, index + 1)]

    def __call__(self, step: int) -> Batch:
        """Return the batch of `step`, on the device."""
        epoch, index = divmod(step, self.steps_per_epoch)
        block, place = divmod(index, self.block)
        # A module may write on its inputs, which can be this very memory: no batch is given out twice.
        if self._block != (epoch, block) or place <= self._given:
            self._gather(epoch, block)
        self._given = place
        return self._batches[place]

    def close(self) -> None:
        """End what reads ahead; here nothing does."""

    def _bounds(self, first: int, last: int) -> slice:
        """The examples of batches `first` up to `last`, as places in the epoch's order."""
        stop = self.count if last >= self.steps_per_epoch else last * self.batch_size
        return slice(first * self.batch_size, stop)

    def _shuffle(self, epoch: int) -> None:
        if epoch != self._epoch:
            self._order = torch.randperm(self.count, generator=generator(self.seed, "shuffle", epoch))
            self._epoch = epoch

    def _gather(self, epoch: int, block: int) -> None:
        """Gather a block of batches in one indexing of the store."""
        self._shuffle(epoch)
        first = block * self.block
        last = min(first + self.block, self.steps_per_epoch)
        order = self._order[self._bounds(first, last)]
        bounds = [self._bounds(index, index + 1) for index in range(first, last)]
        sizes = [bound.stop - bound.start for bound in bounds]
        targets = self.targets[order].to(self.device).split(sizes)
        mine = [self.share.slice(size) for size in sizes]
        if self.share.world > 1:
            order = torch.cat([part[kept] for part, kept in zip(order.split(sizes), mine, strict=True)])
        stored = self.inputs.index_select(0, self.rows[order].to(self.inputs.device)).to(self.device)
        inputs = stored.split([part.stop - part.start for part in mine])
        self._batches = [Batch(*parts) for parts in zip(inputs, targets, mine, strict=True)]
        self._block = (epoch, block)


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return 4 << 30
