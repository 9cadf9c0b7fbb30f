"""Memory that is freed stays with the process while it computes on the CPU.

1. Every step frees the tensors of the step before and asks for as many of the same sizes.
2. glibc gives large pieces that are freed back to the kernel, which then clears each page of theirs anew: thousands a step.
3. For the length of a run it is told to keep them; the numbers that are computed are the same.
4. At the end the kernel gets all that is free, and glibc goes on with the limits that it comes to by itself.
"""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

__all__ = ["keeping_memory"]

# Of mallopt, https://man7.org/linux/man-pages/man3/mallopt.3.html
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
LARGEST_MMAP_THRESHOLD = 32 << 20  # bytes, beyond which a piece is always the kernel's again
KEPT_BY_ITSELF, KEPT_WHILE_COMPUTING = 2 * LARGEST_MMAP_THRESHOLD, (1 << 31) - 1  # bytes at the end of the heap
CHOSEN_BY_USER = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_MMAP_MAX_", "GLIBC_TUNABLES")

LIBRARY: Any = ctypes.CDLL(None) if sys.platform == "linux" else None  # of this process; glibc alone has what follows
set_option, give_back = getattr(LIBRARY, "mallopt", None), getattr(LIBRARY, "malloc_trim", None)

lock = Lock()
blocks = 0  # that are running, in all threads


@contextmanager
def keeping_memory() -> Iterator[None]:
    """Keep freed memory for the length of the block, which may lie in another; nothing without glibc, or where the user chose."""
    global blocks
    if set_option is None or give_back is None or any(name in os.environ for name in CHOSEN_BY_USER):
        yield
        return
    with lock:
        blocks += 1
        if blocks == 1:
            set_option(MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD)
            set_option(TRIM_THRESHOLD, KEPT_WHILE_COMPUTING)
    try:
        yield
    finally:
        with lock:
            blocks -= 1
            if blocks == 0:
                set_option(TRIM_THRESHOLD, KEPT_BY_ITSELF)
                give_back(0)
