"""Reading what can only be read from its start: an iterable data set, a DataLoader over one, or any object to iterate anew."""

import json
from bisect import bisect_right
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import accumulate, count, islice
from typing import Any

import torch
from torch.utils.data import default_collate, default_convert

from goodfit.data.reading import Collate, collate_examples, undisturbed
from goodfit.errors import DataError
from goodfit.randomness import address, reseed
from goodfit.user_code import blame, said

__all__ = ["IterableReader"]

END = object()


@dataclass(frozen=True)
class IterableReader:
    """A source that gives its examples, or batches of them, in an order of its own, the same number in every pass.

    One pass is one epoch. Reading from the middle reads what comes before, too, unless the source has `state_dict` and
    `load_state_dict`, and its `state` there is known.
    """

    name: str
    source: Any
    gives_batches: bool
    collate: Collate = default_collate
    sizes: tuple[int, ...] = ()  # the examples of each batch that it gives; of all, where it gives examples
    state: Any = None  # of the source, where the first batch that is to be read begins

    def __len__(self) -> int:
        return sum(self.sizes)

    def measured(self, sizes: Sequence[int]) -> "IterableReader":
        """Return the reader with what a first pass, `read_all`, has found."""
        return replace(self, sizes=tuple(sizes) if self.gives_batches else (sum(sizes),))

    def read_all(self, size: int) -> Generator[Any, None, None]:
        """Give the collated batches of one pass, however many there are; of `size` examples, where it gives examples."""
        with closing(self._items(0, 0)) as items:
            done = 0
            while taken := list(islice(items, 1 if self.gives_batches else size)):
                yield self._batch(range(done, done + len(taken)), taken)
                done += len(taken)

    def read(self, batches: Sequence[Sequence[int]], seed: int, epoch: int) -> Generator[Any, None, None]:
        """Give the collated examples of each index batch; the batches are ranges, ascending, and its own where it has them.

        Raises DataError where the source fails, or gives another number of them than in the first pass.
        """
        first_of = [0, *accumulate(self.sizes)]
        expected = len(self.sizes) if self.gives_batches else len(self)
        places = [bisect_right(first_of, indices[0]) - 1 if self.gives_batches else indices[0] for indices in batches]
        done = 0 if self.state is None else places[0]
        with closing(self._items(seed, epoch, done)) as items:
            for first, indices in zip(places, batches, strict=True):
                last = first + (1 if self.gives_batches else len(indices))
                taken = list(islice(items, first - done, last - done))
                done = max(done, first) + len(taken)
                if done < last:
                    raise self._changed(done, expected)
                if last == expected and (more := sum(1 for _ in items)):
                    raise self._changed(last + more, expected)
                yield self._batch(indices, taken)

    def state_now(self) -> Any:
        """Return the source's state as JSON values, None where it has none that is."""
        if not (hasattr(self.source, "state_dict") and hasattr(self.source, "load_state_dict")):
            return None
        with undisturbed():
            state = self.source.state_dict()
        try:
            return state if json.loads(json.dumps(state)) == state else None
        except (TypeError, ValueError):
            return None

    def place(self, index: int) -> int:
        """Return the place of an example in the pass."""
        return index

    def in_order(self, rows: Sequence[int], size: int) -> list[Sequence[int]]:
        """Cut all rows into index batches: its own, or of `size`."""
        ends = list(accumulate(self.sizes)) if self.gives_batches else [*range(size, len(rows), size), len(rows)]
        return [rows[start:end] for start, end in zip([0, *ends], ends, strict=False)]

    def _batch(self, indices: Sequence[int], taken: list[Any]) -> Any:
        return default_convert(taken[0]) if self.gives_batches else collate_examples(self.collate, indices, taken, self.name)

    def _items(self, seed: int, epoch: int, start: int = 0) -> Generator[Any, None, None]:
        """Give what a pass gives from item `start` on, which is where its state is, each item at its own address."""
        for part in (self.source, getattr(self.source, "dataset", None)):
            if part is not None and hasattr(part, "set_epoch"):
                part.set_epoch(epoch)
        if isinstance(own := getattr(self.source, "generator", None), torch.Generator):
            own.manual_seed(address(seed, "shuffle", epoch))
        iterator: Iterator[Any] | None = None
        for position in count(start):
            with undisturbed():
                reseed(seed, "example", epoch, position, libraries=True)
                try:
                    if iterator is None and self.state is not None:
                        self.source.load_state_dict(self.state)
                    iterator = iter(self.source) if iterator is None else iterator
                    item = next(iterator, END)
                except Exception as error:
                    failed = DataError(f"{self.name}: {self._unit} {position} cannot be read: {said(error)}; correct it")
                    raise blame(failed, error) from error
            if item is END:
                return
            yield item

    @property
    def _unit(self) -> str:
        return "batch" if self.gives_batches else "example"

    def _changed(self, found: int, expected: int) -> DataError:
        units = "batches" if self.gives_batches else "examples"
        return DataError(
            f"{self.name} gives {found} {units} in this pass and gave {expected} in the first; give the same number in every "
            "pass, from an object whose __iter__ begins anew"
        )
