"""Randomness is addressed, not consumed: every draw has a name, so any step can be drawn again.

The addresses in use: ("init",) · ("split", name) · ("shuffle", epoch) · ("augment", step) · ("module", step, shard).
Of the user's data sets: ("example", epoch, index) · ("workers", epoch) · ("untouched",).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["address", "generator", "kept_generators", "reseed"]


def address(seed: int, purpose: str, *counters: int | str) -> int:
    """Return the 64-bit number that stands for one draw of a run."""
    words = "/".join((str(seed), purpose, *map(str, counters)))
    return int.from_bytes(blake2b(words.encode(), digest_size=8).digest(), "little") >> 1


def generator(seed: int, purpose: str, *counters: int | str) -> "torch.Generator":
    """Return a fresh CPU generator for one draw of a run."""
    import torch

    return torch.Generator().manual_seed(address(seed, purpose, *counters))


def reseed(seed: int, purpose: str, *counters: int | str, libraries: bool = False) -> None:
    """Seed torch's default generators (CPU and, where in use, CUDA) for code that draws from them.

    `libraries` seeds those of Python and numpy too, for code of the user's.
    """
    import random

    import numpy as np
    import torch

    number = address(seed, purpose, *counters)
    torch.default_generator.manual_seed(number)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(number)
    if libraries:
        random.seed(number)
        np.random.seed(number & 0xFFFFFFFF)


@contextmanager
def kept_generators() -> Iterator[None]:
    """Leave the default generators of torch, Python and numpy at the end as they were, for the caller to go on drawing."""
    import random

    import numpy as np
    import torch

    before = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])
