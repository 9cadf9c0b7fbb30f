"""Randomness is addressed, not consumed: every draw has a name, so any step can be drawn again.

The addresses in use: ("init",) · ("split", name) · ("shuffle", epoch) · ("augment", step) · ("module", step, shard).
"""

from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["address", "generator", "reseed"]


def address(seed: int, purpose: str, *counters: int | str) -> int:
    """Return the 64-bit number that stands for one draw of a run."""
    words = "/".join((str(seed), purpose, *map(str, counters)))
    return int.from_bytes(blake2b(words.encode(), digest_size=8).digest(), "little") >> 1


def generator(seed: int, purpose: str, *counters: int | str) -> "torch.Generator":
    """Return a fresh CPU generator for one draw of a run."""
    import torch

    return torch.Generator().manual_seed(address(seed, purpose, *counters))


def reseed(seed: int, purpose: str, *counters: int | str) -> None:
    """Seed torch's default generators (CPU and, where in use, CUDA) for code that draws from them."""
    import torch

    number = address(seed, purpose, *counters)
    torch.default_generator.manual_seed(number)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(number)
