"""Signals: heard at once, or noted between two steps, and never left set."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from goodfit.errors import Interrupted
from goodfit.signals import StopSignals

HEARD = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1]


@pytest.mark.parametrize("number", HEARD)
def test_a_signal_is_raised_at_once(number: signal.Signals) -> None:
    with pytest.raises(Interrupted) as stop, StopSignals().listening() as signals:
        signal.raise_signal(number)
    assert stop.value.signum == number
    assert signals.signum == number


@pytest.mark.parametrize("number", HEARD)
def test_a_signal_is_noted_while_deferred(number: signal.Signals) -> None:
    with StopSignals().listening() as signals:
        with signals.deferred():
            assert not signals.asked()
            signal.raise_signal(number)
            assert signals.asked()
        assert signals.signum == number


def test_signals_are_raised_again_after_what_was_deferred() -> None:
    with StopSignals().listening() as signals:
        with signals.deferred():
            pass
        with pytest.raises(Interrupted):
            signal.raise_signal(signal.SIGTERM)


def test_handlers_are_put_back_even_after_an_error() -> None:
    def mine(signum: int, frame: object) -> None: ...

    def fail() -> None:
        with StopSignals().listening():
            assert signal.getsignal(signal.SIGUSR1) is not mine
            raise RuntimeError

    before = signal.signal(signal.SIGUSR1, mine)
    try:
        with pytest.raises(RuntimeError):
            fail()
        assert signal.getsignal(signal.SIGUSR1) is mine
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_what_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignals().listening() as signals:
            signal.raise_signal(signal.SIGHUP)
            assert not signals.asked()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_other_threads_leave_the_handlers_alone() -> None:
    before, inside = signal.getsignal(signal.SIGTERM), []

    def listen() -> None:
        with StopSignals().listening():
            inside.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert inside == [before]


def test_a_second_signal_ends_the_process() -> None:
    program = (
        "import signal\n"
        "from goodfit.signals import StopSignals\n"
        "with StopSignals().listening() as signals, signals.deferred():\n"
        "    signal.raise_signal(signal.SIGTERM)\n"
        "    print('noted', flush=True)\n"
        "    signal.raise_signal(signal.SIGINT)\n"
        "    print('not reached', flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, env=dict(os.environ))
    assert (done.returncode, done.stdout, done.stderr) == (130, "noted\n", "")
