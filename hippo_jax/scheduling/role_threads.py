"""A thread for each role. They end together: when one is through, when one fails, and on Ctrl-C."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import jax

PATIENCE = 5.0  # seconds that a role gets to finish its step once the other has ended


# What a program computes depends on these, and jax keeps them for each thread: the rounds would
# else be computed otherwise than the prompt.
SETTINGS: Mapping[str, Callable[[Any], Any]] = {
    "jax_default_matmul_precision": jax.default_matmul_precision,
    "jax_threefry_partitionable": jax.threefry_partitionable,
    "jax_enable_x64": jax.enable_x64,
}


class _Closed(BaseException):
    """The other role has ended. No error: what handles errors lets it pass."""


class Mailbox:
    """Hands values from one role's thread to the other's."""

    def __init__(self) -> None:
        self._values: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._closed = False

    def put(self, value: Any) -> None:
        """Hand over a value; never waits."""
        self._values.put(value)

    def take(self) -> Any:
        """The next value, as soon as there is one. Ends the thread once the box is closed."""
        value = self._values.get()
        if self._closed:
            raise _Closed
        return value

    def close(self) -> None:
        """Nothing is taken any more; who waits is woken."""
        self._closed = True
        self._values.put(None)


def run_threads(jobs: Mapping[str, Callable[[], None]], boxes: Sequence[Mailbox]) -> None:
    """Run every job in a thread until the first of them ends, then close the boxes between them.

    What the caller has set by jax's context managers (``SETTINGS``) holds in the threads too.

    Raises:
        What a job raised, the first of them; ``KeyboardInterrupt`` ends the threads too.
    """
    failures: list[BaseException] = []
    ended = threading.Event()
    settings = {name: getattr(jax.config, name) for name in SETTINGS}

    def guarded(job: Callable[[], None]) -> None:
        try:
            with ExitStack() as stack:
                for name, value in settings.items():
                    if getattr(jax.config, name) != value:
                        stack.enter_context(SETTINGS[name](value))
                job()
        except _Closed:
            pass
        except BaseException as error:
            failures.append(error)
        finally:
            ended.set()

    threads = [
        threading.Thread(target=guarded, args=(job,), name=f"hippo {role}", daemon=True)
        for role, job in jobs.items()
    ]
    try:
        for thread in threads:
            thread.start()
        while not ended.wait(timeout=0.1):  # short waits, so that Ctrl-C gets through everywhere
            pass
    finally:
        for box in boxes:
            box.close()
        for thread in threads:
            if thread.ident is not None:  # Ctrl-C may come before it was started
                thread.join(PATIENCE)
    if failures:
        raise failures[0]
