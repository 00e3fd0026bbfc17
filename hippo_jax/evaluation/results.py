"""Where an evaluation is kept: what was evaluated, and one line a sample, safe against kills.

    OUT/manifest.json         what was evaluated; another evaluation is refused
    OUT/results.0-of-1.jsonl  one line a sample, as ``runner`` says; of several processes each
                              writes a file of its own

A line is durable before the next one begins (``weights.journal``).
"""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hippo_jax.errors import HippoError
from hippo_jax.weights.durable import only_here, sync_directory
from hippo_jax.weights.journal import Journal, refuse_other

MANIFEST = "manifest.json"
_PART = re.compile(r"^results\.(\d+)-of-(\d+)\.jsonl$")

Row = dict[str, Any]


@dataclass(frozen=True)
class Share:
    """Which samples are a process's: those whose place modulo ``count`` is ``index``."""

    index: int = 0
    count: int = 1

    @property
    def name(self) -> str:
        """Its file of results."""
        return f"results.{self.index}-of-{self.count}.jsonl"


def open_evaluation(out: Path, manifest: Mapping[str, Any]) -> None:
    """Begin an evaluation, or go on with it.

    Args:
        manifest: all that the rows depend on, as JSON.

    Raises:
        HippoError: the folder cannot be made, or holds another evaluation.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HippoError(f"{out} cannot be a folder: {error.strerror or error}") from error
    file = out / MANIFEST
    begun = bool(parts(out))  # looked at first: another process may begin just now
    wanted = json.loads(json.dumps(manifest))  # as it will be read: tuples are lists
    if file.exists():
        refuse_other(
            read_manifest(out),
            wanted,
            f"{out} holds another evaluation",
            "choose another --out, or the same settings",
        )
    elif begun:
        raise HippoError(f"{out} has results and no {MANIFEST}; choose another --out")
    else:
        write_whole(file, json.dumps(wanted, indent=1).encode() + b"\n")


def write_whole(file: Path, content: bytes) -> None:
    """Write a file so that its name holds all of it or nothing; several processes may do so."""
    temporary = file.with_name(f"{file.name}.{socket.gethostname()}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(file.parent)


def read_manifest(out: Path) -> dict[str, Any]:
    """What was evaluated.

    Raises:
        HippoError: there is none, or it cannot be read.
    """
    file = out / MANIFEST
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise HippoError(f"{out} has no {MANIFEST}: it is no evaluation") from None
    except (OSError, ValueError) as error:
        raise HippoError(f"{file} cannot be read ({error}); choose another --out") from None
    if not isinstance(found, dict) or not isinstance(found.get("samples"), dict):
        raise HippoError(f"{file} is damaged; choose another --out")
    return found


def parts(out: Path) -> list[Path]:
    """The files of results, by number."""
    found = [path for path in out.iterdir() if _PART.match(path.name)]
    return sorted(found, key=lambda path: [int(n) for n in _PART.findall(path.name)[0]])


def read_rows(file: Path) -> dict[int, Row]:
    """Rows by the sample's place; of several the last. A last line without its end is left out.

    Raises:
        HippoError: a line before it is damaged.
    """
    rows: dict[int, Row] = {}
    content = file.read_bytes() if file.exists() else b""
    whole = content[: content.rfind(b"\n") + 1]
    for number, line in enumerate(whole.split(b"\n")[:-1], 1):
        try:
            row = json.loads(line)
            rows[int(row["index"])] = row
        except (ValueError, KeyError, TypeError):
            raise HippoError(
                f"{file}, line {number} is damaged; remove that line, its sample is evaluated again"
            ) from None
    return rows


def read_all(out: Path) -> dict[int, Row]:
    """The rows of all processes by the sample's place, in that order."""
    rows: dict[int, Row] = {}
    for file in parts(out):
        rows.update(read_rows(file))
    return dict(sorted(rows.items()))


@contextmanager
def opened(out: Path, share: Share) -> Iterator[Journal]:
    """A process's file, held against others that would write it too.

    Raises:
        HippoError: another process writes it, or it belongs to a run with other shares.
    """
    others = [
        path.name for path in parts(out) if int(_PART.findall(path.name)[0][1]) != share.count
    ]
    if others:
        raise HippoError(
            f"{out} holds {others[0]}, a part of a run with another number of processes; run as "
            "many, or choose another --out"
        )
    file = out / share.name
    file.touch()
    with only_here(file, "writing it"):
        found = Journal(file)
        try:
            yield found
        finally:
            found.close()
