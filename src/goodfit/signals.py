"""Stopping by signal: at once before a run has begun, between two steps after that."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from goodfit.errors import Interrupted

__all__ = ["StopSignals"]

NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")  # those that this platform has are heard


class StopSignals:
    """Hears INT, TERM, HUP and USR1: raises Interrupted at once, or notes them while `deferred`.

    A second signal while one is noted ends the process at once, with 128 + its number.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self._deferred = False

    def asked(self) -> bool:
        """Whether a signal was noted."""
        return self.signum is not None

    @contextmanager
    def listening(self) -> Iterator["StopSignals"]:
        """Set the handlers for the length of the block, in the main thread only, and put the old ones back.

        A signal that is ignored (HUP under nohup) stays ignored.
        """
        before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            known = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
            heard = [number for number in known if signal.getsignal(number) is not signal.SIG_IGN]
            before = {number: signal.signal(number, self._hear) for number in heard}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Note signals instead of raising, for the length of the block."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    def _hear(self, signum: int, _frame: FrameType | None) -> None:
        if self.signum is not None:
            os._exit(128 + signum)  # every file is written atomically, so nothing is left half done
        self.signum = signum
        if not self._deferred:
            raise Interrupted(signum)
