"""Batches of data of every kind: stores that are gathered from, pictures in files, and what the user's own code reads.

A stream of the latter two is read ahead of the training, epoch by epoch; asked for another step than the next, it begins
there anew. What it skips are indices, not examples.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DistributedSampler

from goodfit.data.dataset import Dataset, Split
from goodfit.data.examples import Examples, Sampling
from goodfit.data.iterables import IterableReader
from goodfit.data.loader import Batch, Loader, check_batch_size, steps_per_epoch
from goodfit.data.picture_files import PictureFiles
from goodfit.data.samplers import list_batches, parts_of
from goodfit.devices import upload
from goodfit.distributed import Ranks
from goodfit.errors import ConfigError, DataError
from goodfit.inputs import Inputs, apply, tensors
from goodfit.randomness import generator

__all__ = ["StreamLoader", "batches_per_epoch", "first_examples", "make_loader", "read_in_order"]

BATCH_BYTES = 8 << 20  # of examples read in order: large enough to keep a device busy
BATCH_SIZE = 512


class StreamLoader:
    """The batches of a training split that is no tensor, by step; see `Loader`, whose order it has unless there is a sampler.

    Pictures in files come as they are stored; examples that the user's own code reads are ready for the model.

    Raises ConfigError if a batch holds more examples than the split, and DataError for a sampler whose batches are not
    the same when it is seeded the same.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        *,
        seed: int,
        device: torch.device,
        ranks: Ranks | None = None,
        whole: bool = False,  # see `Loader`
    ) -> None:
        assert not isinstance(split.inputs, Tensor)
        self.examples = split.inputs
        self.reader = split.inputs.reader if isinstance(split.inputs, Examples) else None
        self.sampling = split.inputs.sampling if isinstance(split.inputs, Examples) else Sampling()
        self.targets, self.rows = split.targets, split.rows
        self.batch_size, self.seed, self.device = batch_size, seed, device
        self.ranks = Ranks() if whole else ranks or Ranks()
        if self.sampling.batch_sampler is None:
            check_batch_size(batch_size, len(split))
        self.steps_per_epoch = batches_per_epoch(split, batch_size)
        self._epoch = -1
        self._stream: Generator[tuple[Inputs, Tensor], None, None] | None = None
        self._next = -1  # the step that the stream gives next
        self._saved: dict[str, Any] = {}  # where a run is resumed: that step, and the state of what is read
        self._check_sampler()

    def positions(self, step: int) -> Tensor:
        """Return the positions in the split of the examples of batch `step`, for all ranks."""
        epoch, index = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._batches = self._list(epoch)
            self._epoch = epoch
        return self._batches[index]

    def __call__(self, step: int) -> Batch:
        """Return the batch of `step`, on the device."""
        positions = self.positions(step)
        mine = self.ranks.slice(len(positions))
        is_ready = isinstance(self.examples, Examples)
        if mine.start == mine.stop:  # a rank may have none of a small batch
            self.close()
            inputs = apply(lambda tensor: tensor[:0].to(self.device), self.examples.first)
            return Batch(inputs, upload(self.targets[positions], self.device), mine, is_ready)
        if self._stream is None or step != self._next:
            self._open(step)
        assert self._stream
        self._next = -1  # if it fails it is over
        inputs, targets = next(self._stream)
        self._next = step + 1
        if self._next % self.steps_per_epoch == 0:
            self.close()
        if self.ranks.world > 1:
            targets = self._of_all_ranks(positions, mine, targets)
        return Batch(apply(lambda tensor: upload(tensor, self.device), inputs), upload(targets, self.device), mine, is_ready)

    def state(self) -> dict[str, Any] | None:
        """Return where the stream is, as JSON values, if what is read can say it and can go on from there."""
        state = self.reader.state_now() if self._stream and isinstance(self.reader, IterableReader) else None
        return None if state is None else {"step": self._next, "source": state}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a saved state when its step is asked for."""
        self._saved = state

    def close(self) -> None:
        """End the stream, and with it the processes that read."""
        if self._stream:
            self._stream.close()
        self._stream = None

    def _open(self, step: int) -> None:
        """Begin a stream at `step` that goes to the end of its epoch, or to the first batch that this rank has no part in."""
        self.close()
        epoch, index = divmod(step, self.steps_per_epoch)
        mine = [batch[self.ranks.slice(len(batch))] for batch in self._batches[index:]]
        until = next((place for place, positions in enumerate(mine) if not len(positions)), len(mine))
        examples = self.examples
        rows = [self.rows[positions].tolist() for positions in mine[:until]]
        if isinstance(examples, PictureFiles):
            self._stream = _with_targets(examples, rows, [self.targets[positions] for positions in mine[:until]])
            return
        if self._saved.get("step") == step and isinstance(examples.reader, IterableReader):
            examples = replace(examples, reader=replace(examples.reader, state=self._saved["source"]))
        self._stream = examples.stream(rows, self.seed, epoch)

    def _list(self, epoch: int) -> list[Tensor]:
        """Return the positions of each batch of an epoch."""
        own, count = self.sampling.batch_sampler, len(self.rows)
        if own is not None:
            batches = list_batches(own, count, self.examples.name, seed=self.seed, epoch=epoch)
            if len(batches) != self.steps_per_epoch:
                raise DataError(
                    f"{self.examples.name}: its sampler gives {len(batches)} batches in epoch {epoch + 1} and gave "
                    f"{self.steps_per_epoch} before; give the same number in every epoch"
                )
            return batches
        shuffled = generator(self.seed, "shuffle", epoch)
        order = torch.randperm(count, generator=shuffled) if self.sampling.shuffles else torch.arange(count)
        if self.sampling.drop_last:
            order = order[: self.steps_per_epoch * self.batch_size]
        full = self.batch_size * (self.steps_per_epoch - 1)
        return list(order.split([self.batch_size] * (self.steps_per_epoch - 1) + [len(order) - full]))

    def _of_all_ranks(self, positions: Tensor, mine: slice, given: Tensor) -> Tensor:
        """Return the whole batch's targets; raise DataError if those of this rank are others than when they were learned."""
        targets = self.targets[positions]
        if not torch.equal(targets[mine], given):
            place = int((targets[mine] != given).int().argmax())
            raise DataError(
                f"{self.examples.name}: example {int(self.rows[positions[mine][place]])} has another target than when the "
                "targets were learned; with several ranks they may not change"
            )
        return targets

    def _check_sampler(self) -> None:
        own, name = self.sampling.batch_sampler, self.examples.name
        if self.ranks.world > 1 and isinstance(self.reader, IterableReader):
            raise ConfigError(
                f"{name} can only be read from its start, by one process; give several ranks a map-style data set"
            )
        if own is None:
            return
        if any(isinstance(part, DistributedSampler) for part in parts_of(own)):
            raise ConfigError(f"{name} has a DistributedSampler, and goodfit itself gives each rank its part; leave it out")
        once, again = self._list(0), self._list(0)
        if not all(map(torch.equal, once, again)):
            raise DataError(
                f"{name}: its sampler gives other batches each time though it is seeded the same, so no run could be "
                "resumed; let it draw from torch's, Python's or numpy's generators, or from set_epoch"
            )


def make_loader(
    split: Split,
    batch_size: int,
    *,
    seed: int,
    device: torch.device,
    ranks: Ranks | None = None,
    whole: bool = False,
    prepare: Callable[[Tensor], Tensor] | None = None,
) -> Loader | StreamLoader:
    """Return the loader of a training split; see `Loader`."""
    if isinstance(split.inputs, Tensor):
        return Loader(split, batch_size, seed=seed, device=device, ranks=ranks, whole=whole, prepare=prepare)
    return StreamLoader(split, batch_size, seed=seed, device=device, ranks=ranks, whole=whole)


def batches_per_epoch(split: Split, batch_size: int) -> int:
    """Return the number of batches of an epoch."""
    if isinstance(split.inputs, Examples):
        if split.inputs.sampling.batch_sampler is not None:
            return len(split.inputs.own_batches)
        if split.inputs.sampling.drop_last:
            return max(1, len(split) // batch_size)
    return steps_per_epoch(len(split), batch_size)


def first_examples(dataset: Dataset, count: int, seed: int) -> tuple[Inputs, Tensor]:
    """Return the first training examples as the model sees them, `count` of them at most, and their targets."""
    split = dataset.train
    if isinstance(split.inputs, Examples):
        return split.inputs.head(split.rows.tolist(), count, seed)
    rows = split.rows[:count]
    stored = split.inputs.index_select(0, rows.to(split.inputs.device))
    return dataset.transform.normalize(stored.cpu()), split.targets[:count]


def read_in_order(split: Split, part: slice) -> Generator[tuple[Inputs, Tensor, bool], None, None]:
    """Give the examples `part` of a split in batches: inputs, targets, and whether the inputs are what the model sees."""
    rows, targets = split.rows[part], split.targets[part]
    if isinstance(split.inputs, Examples):
        yield from _read_examples(split.inputs, rows)
        return
    if isinstance(split.inputs, PictureFiles):
        size = _batch_size(split.inputs.first)
        batches = [some.tolist() for some in rows.split(size)]
        with closing(_with_targets(split.inputs, batches, targets.split(size))) as pictures:
            for inputs, some_targets in pictures:
                yield inputs, some_targets, False
        return
    size = _batch_size(split.inputs[:1])
    for some_rows, some_targets in zip(rows.split(size), targets.split(size), strict=True):
        yield split.inputs.index_select(0, some_rows.to(split.inputs.device)), some_targets, False


def _with_targets(
    files: PictureFiles, batches: list[list[int]], targets: Sequence[Tensor]
) -> Generator[tuple[Inputs, Tensor], None, None]:
    """Give the pictures of each batch of rows, with its targets; no method, since its loader would not be freed."""
    with closing(files.stream(batches)) as pictures:
        yield from zip(pictures, targets, strict=True)


def _read_examples(examples: Examples, rows: Tensor) -> Generator[tuple[Inputs, Tensor, bool], None, None]:
    """Examples are read for seed 0 and epoch 0, so that an evaluation is the same each time."""
    if isinstance(examples.reader, IterableReader) and len(rows) != len(examples):
        raise DataError(f"{examples.name} can only be read from its start, by one process; give a map-style data set")
    batches = examples.reader.in_order(rows.tolist(), _batch_size(examples.first))
    with closing(examples.stream(batches)) as stream:
        for inputs, targets in stream:
            yield inputs, targets, True


def _batch_size(example: Inputs) -> int:
    return max(1, min(BATCH_SIZE, BATCH_BYTES // max(1, sum(tensor.nbytes for tensor in tensors(example)))))
