"""The loader is a function: step -> batch. Nothing is consumed, so any step can be asked for at any time.

Order is a permutation addressed by (seed, epoch). Examples lie in one store (RAM, a memory map or the device) and
are gathered there, a block of batches at a time, without worker processes.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from goodfit.data.dataset import Split
from goodfit.devices import upload
from goodfit.distributed import Ranks
from goodfit.errors import ConfigError
from goodfit.inputs import Inputs
from goodfit.randomness import generator

__all__ = ["Batch", "Loader", "check_batch_size", "steps_per_epoch"]

BLOCK_BYTES = 1 << 20  # gathered at once: large enough to spread the cost of a call, small enough to stay in a core's cache


ALIGNMENT = 64  # bytes, of what torch allocates


class Batch(NamedTuple):
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
        prepare: Callable[[Tensor], Tensor] | None = None,  # what is done to examples before the model, if it is all
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
        self.prepare = prepare
        example_bytes = max(1, split.inputs[0].numel() * (4 if prepare else split.inputs.element_size()))
        mine = self.share.slice(batch_size)
        # A product of matrices may round otherwise where memory begins elsewhere: a batch has to begin as one that is alone.
        is_aligned = (mine.stop - mine.start) * example_bytes % ALIGNMENT == 0
        self.block = max(1, min(64, BLOCK_BYTES // (example_bytes * batch_size))) if is_aligned else 1
        self._epoch = -1
        self._block: list[Batch] = []  # the next batches, the last first
        self._next = -1  # the step of the first of them

    def positions(self, step: int) -> Tensor:
        """Return the positions in the split of the examples of batch `step`, for all ranks."""
        epoch, index = divmod(step, self.steps_per_epoch)
        self._shuffle(epoch)
        return self._order[self._bounds(index, index + 1)]

    def __call__(self, step: int) -> Batch:
        """Return the batch of `step`, on the device."""
        # A module may write on its inputs, which can be this very memory: no batch is given out twice.
        if step != self._next or not self._block:
            self._gather(step)
        self._next = step + 1
        return self._block.pop()

    def close(self) -> None:
        """End what reads ahead; here nothing does."""

    def _bounds(self, first: int, last: int) -> slice:
        """The examples of batches `first` up to `last`, as places in the epoch's order."""
        stop = self.count if last >= self.steps_per_epoch else last * self.batch_size
        return slice(first * self.batch_size, stop)

    def _shuffle(self, epoch: int) -> None:
        if epoch != self._epoch:
            self._order = torch.randperm(self.count, generator=generator(self.seed, "shuffle", epoch))
            self._targets = upload(self.targets[self._order], self.device)
            self._epoch = epoch

    def _gather(self, step: int) -> None:
        """Gather a block of batches, from that of `step` on, in one indexing of the store."""
        epoch, first = divmod(step, self.steps_per_epoch)
        self._shuffle(epoch)
        last = min(first + self.block, self.steps_per_epoch)
        places = self._bounds(first, last)
        bounds = [self._bounds(index, index + 1) for index in range(first, last)]
        sizes = [bound.stop - bound.start for bound in bounds]
        parts = [self.share.slice(size) for size in sizes]
        order = self._order[places]
        if self.share.world > 1:
            order = torch.cat([batch[part] for batch, part in zip(order.split(sizes), parts, strict=True)])
        stored = upload(self.inputs.index_select(0, upload(self.rows[order], self.inputs.device)), self.device)
        if self.prepare:
            stored = self.prepare(stored)
        inputs = stored.split([part.stop - part.start for part in parts])
        batches = zip(inputs, self._targets[places].split(sizes), parts, strict=True)
        self._block = [Batch(*batch, self.prepare is not None) for batch in batches][::-1]


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return 4 << 30
