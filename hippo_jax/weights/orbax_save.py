"""Saving with Orbax so that a full disk is one error, not many tracebacks.

Orbax writes from several threads at once. When one write fails it raises once, which is what the
caller needs; beside that each of its threads logs the same error with a traceback, and what was
still being written reports to an event loop that has gone. None of it says anything new.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

# Bytes of a chunk: what is decoded at a time, in threads that keep some of the memory they freed,
# is small beside a model.
_CHUNK = 1 << 22

# Seconds without a straggler after which none is expected, and the longest wait for them.
_QUIET, _PATIENCE = 0.3, 5.0


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Write ``arrays`` by name as an Orbax checkpoint at the new directory ``path``.

    Raises:
        OSError: what the system said: a full disk, a file too large, no right to write.
    """
    from orbax.checkpoint import v1 as ocp

    options = ocp.Context()
    options.array.saving.storage_options.chunk_byte_size = _CHUNK
    with _said_once(), options:
        failure: OSError | None = None
        try:
            ocp.save(path, dict(arrays))
        except (OSError, ValueError, RuntimeError) as error:
            failure = _system_error(error, path.parent)
        if failure is not None:  # out here nothing holds Orbax's frames, so its tasks can go
            raise failure


def _system_error(error: Exception, place: Path) -> OSError:
    """What Orbax and tensorstore report of a full disk and the like, in a text of their own."""
    if isinstance(error, OSError) and error.errno is not None:
        return OSError(error.errno, os.strerror(error.errno), str(place))
    for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES):
        if os.strerror(code) in str(error):
            return OSError(code, os.strerror(code), str(place))
    reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
    return OSError(errno.EIO, reason)


@contextlib.contextmanager
def _said_once() -> Iterator[None]:
    """Drops the repeats of an error that is raised, and nothing else, until the last has come."""
    earlier_hook, heard = sys.unraisablehook, time.monotonic()

    def no_repeat(record: logging.LogRecord) -> bool:
        said = str(record.msg)
        return "_SignalingThread.run() raised" not in said and "was never retrieved" not in said

    def hook(said: sys.UnraisableHookArgs) -> None:
        nonlocal heard
        heard = time.monotonic()
        if str(said.exc_value) != "Event loop is closed":
            earlier_hook(said)

    threads = set(threading.enumerate())
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    for logger in loggers:
        logger.addFilter(no_repeat)
    sys.unraisablehook = hook
    try:
        yield
    except OSError:
        end = time.monotonic() + _PATIENCE
        for thread in set(threading.enumerate()) - threads:
            if type(thread).__module__.startswith("orbax."):
                thread.join(max(0.0, end - time.monotonic()))
        heard = time.monotonic()
        while time.monotonic() < min(heard + _QUIET, end):
            time.sleep(0.02)
        gc.collect()  # a task that failed unheard speaks when it goes
        raise
    finally:
        sys.unraisablehook = earlier_hook
        for logger in loggers:
            logger.removeFilter(no_repeat)
