"""Lines of JSON that outlive a kill, for runs that go on where they were.

A line is written in one piece and made durable before the next one begins. What a kill leaves of an
unfinished line is cut off at the next start.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hippo_jax.errors import HippoError


class Journal:
    """A file of lines, open for more."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        self._cut()

    def _cut(self) -> None:
        """Cut off a line that a kill, or a full disk, left without its end."""
        content = self.file.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.ftruncate(self._handle, whole)
            os.fsync(self._handle)

    def append(self, value: Any) -> None:
        """Write a line and wait until it is on the disk."""
        line = json.dumps(value, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        written = os.write(self._handle, line)
        if written < len(line):
            # The rest may follow, or raise what is wrong with the disk.
            os.write(self._handle, line[written:])
        os.fsync(self._handle)

    def close(self) -> None:
        """Close the file."""
        os.close(self._handle)


def refuse_other(before: Any, now: Any, what: str, cure: str) -> None:
    """Settings that an unfinished run was begun with, and those that are asked for now, as JSON.

    Raises:
        HippoError: ``what``, the first difference, and ``cure``.
    """
    for path, first, second in _differences(before, now, ""):
        raise HippoError(f"{what}: {path} was {_short(first)} and is now {_short(second)}; {cure}")


def _differences(before: Any, now: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(before, dict) and isinstance(now, dict):
        for name in [*before, *(name for name in now if name not in before)]:
            inner = f"{path}.{name}" if path else name
            yield from _differences(before.get(name), now.get(name), inner)
    elif before != now:
        yield path, before, now


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
