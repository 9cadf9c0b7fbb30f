"""A user's sampler as a function: (seed, epoch) -> the index batches of that epoch."""

import random
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

from goodfit.data.reading import undisturbed
from goodfit.errors import DataError
from goodfit.randomness import address, reseed
from goodfit.user_code import blame, said

__all__ = ["list_batches", "parts_of"]


def list_batches(batch_sampler: Iterable[Any], count: int, name: str, *, seed: int, epoch: int) -> list[Tensor]:
    """Return the index batches, each (n,) int64, that a batch sampler gives for one epoch of `count` examples.

    Torch's, Python's and numpy's default generators and those that the sampler holds are seeded by address, and put back.
    Raises DataError where the sampler fails, or names what is no example.
    """
    with undisturbed():
        reseed(seed, "shuffle", epoch, libraries=True)
        for part in parts_of(batch_sampler):
            for value in vars(part).values() if hasattr(part, "__dict__") else ():
                _seed(value, address(seed, "shuffle", epoch))
            if hasattr(part, "set_epoch"):
                part.set_epoch(epoch)
        try:
            batches = [torch.as_tensor(list(batch)) for batch in batch_sampler]
        except Exception as error:
            failed = DataError(f"{name}: its sampler cannot be read: {said(error)}; let it give batches of indices")
            raise blame(failed, error) from error
    for place, batch in enumerate(batches):
        if batch.ndim != 1 or not len(batch) or batch.dtype.is_floating_point or batch.dtype.is_complex:
            raise DataError(
                f"{name}: batch {place} of its sampler is {batch.tolist()!r:.60}; give one or more indices of examples"
            )
        if batch.min() < 0 or batch.max() >= count:
            wrong = int(batch.min() if batch.min() < 0 else batch.max())
            raise DataError(
                f"{name}: its sampler names example {wrong}, and there are {count}; name them from 0 to {count - 1}"
            )
    return [batch.long() for batch in batches]


def parts_of(sampler: Any) -> Iterator[Any]:
    """Give a sampler and the samplers that it holds."""
    yield sampler
    for value in vars(sampler).values() if hasattr(sampler, "__dict__") else ():
        if isinstance(value, Sampler):
            yield from parts_of(value)


def _seed(value: Any, number: int) -> None:
    if isinstance(value, torch.Generator):
        value.manual_seed(number)
    elif isinstance(value, random.Random):
        value.seed(number)
    elif isinstance(value, np.random.Generator):
        value.bit_generator.state = type(value.bit_generator)(number).state
    elif isinstance(value, np.random.RandomState):
        value.seed(number & 0xFFFFFFFF)
