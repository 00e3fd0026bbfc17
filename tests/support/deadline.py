"""Tests of what must not hang."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def at_most(seconds: int) -> Iterator[None]:
    """Fail what is still at work after ``seconds``: the main thread's waits are broken off."""

    def late(*_: object) -> None:
        pytest.fail(f"still at work after {seconds} s")  # no ``Exception``: nobody handles it

    begin = time.monotonic()
    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
        assert time.monotonic() - begin < seconds
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGINT raises ``KeyboardInterrupt``, whatever the test's runner does with it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
