"""Files that under their own name are whole, whatever happens while they are written."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hippo_jax.errors import HippoError


def side_copy(source: Path, target: Path) -> None:
    """Copy a small file; an earlier ``target`` is replaced only by the whole copy."""
    temporary = target.with_name(target.name + ".tmp")
    shutil.copyfile(source, temporary)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, target)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object so that the name holds all of it or nothing."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=1)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make renames in a directory durable, on systems that can."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextlib.contextmanager
def only_here(place: Path, doing: str = "converting to it") -> Iterator[None]:
    """Hold a directory or file against other processes; the system lets go of it after a kill."""
    try:
        import fcntl
    except ImportError:  # not a POSIX system
        yield
        return
    handle = os.open(place, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise HippoError(f"{place}: another process is {doing}") from None
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(handle)
