"""The converted directory: what lies where, and the checksum of every file.

    DESTINATION/
      manifest.json        written last: a directory without it is not finished
      unfinished.json      from the first moment until the manifest stands: what was begun
      config.json, ...     config, tokenizer, processor and generation files of the source
      part-00000/          at most one gigabyte of weights each
        files.json         checksums of the part, written with it
        weights/           an Orbax checkpoint: a flat tree of named pieces

A weight lies in one piece, or in several along its first axis when it is larger than a part or
than 32 MB, so that no more than that of it is read at a time.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hippo_jax.errors import HippoError
from hippo_jax.weights.safetensors_reader import read_json

MANIFEST = "manifest.json"
UNFINISHED = "unfinished.json"
PART_FILES = "files.json"
WEIGHTS = "weights"
FORMAT = "hippo_jax converted checkpoint"
VERSION = 1
# Part names have five digits: a hundred terabytes.
MOST_PARTS = 100_000

_SHA = re.compile(r"^[0-9a-f]{64}$")
_PART = re.compile(r"^part-\d{5}$")


@dataclass(frozen=True)
class Piece:
    """Rows ``start`` to ``stop`` of a weight (0 to 1 for a scalar), stored in a part."""

    part: int
    start: int
    stop: int


@dataclass(frozen=True)
class FileSum:
    """Length and SHA-256 of one file."""

    size: int
    sha256: str


@dataclass(frozen=True)
class StoredWeight:
    """Shape and pieces of one weight, in the layout of our models."""

    shape: tuple[int, ...]
    pieces: tuple[Piece, ...]


@dataclass(frozen=True)
class Manifest:
    """A finished conversion.

    Attributes:
        dtype: of every weight.
        fingerprint: of the source that was converted.
        tied: the logits use the token embedding; there is no separate output matrix.
        parts: number of parts.
        tensors: weight path -> where it lies.
        files: path relative to the directory -> its checksum, of every file but the manifest.
    """

    dtype: str
    fingerprint: str
    tied: bool
    parts: int
    tensors: dict[str, StoredWeight]
    files: dict[str, FileSum]


def piece_key(path: str, piece: Piece, weight: StoredWeight) -> str:
    """The name under which a part holds a piece: the weight's path, with the first row if split."""
    return path if len(weight.pieces) == 1 else f"{path}@{piece.start}"


def part_name(number: int) -> str:
    """Directory of a part."""
    return f"part-{number:05d}"


def checksum(path: Path, *, sync: bool = False) -> FileSum:
    """Length and SHA-256 of a file; ``sync`` also makes its content durable."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = file.tell()
        if sync:
            os.fsync(file.fileno())
    return FileSum(size, digest)


def sums_to_json(sums: Mapping[str, FileSum]) -> dict[str, list[Any]]:
    """Checksums as ``{name: [bytes, sha256]}``."""
    return {name: [item.size, item.sha256] for name, item in sums.items()}


def sums_from_json(value: Any) -> dict[str, FileSum]:
    """The inverse of :func:`sums_to_json`; ValueError for anything else."""
    if not isinstance(value, dict):
        raise ValueError("its list of files is not an object")
    sums = {}
    for name, entry in value.items():
        steps = Path(name).parts
        inside = bool(steps) and not Path(name).is_absolute() and ".." not in steps
        good = isinstance(entry, list) and len(entry) == 2 and _is_count(entry[0])
        if not inside or "\0" in name or not good or not _SHA.match(str(entry[1])):
            raise ValueError(f"the entry of file {name[:80]!r} is malformed")
        sums[name] = FileSum(entry[0], str(entry[1]))
    return sums


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def to_json(manifest: Manifest) -> dict[str, Any]:
    """What :func:`read_manifest` reads."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "dtype": manifest.dtype,
        "fingerprint": manifest.fingerprint,
        "tied": manifest.tied,
        "parts": manifest.parts,
        "tensors": {
            path: {
                "shape": list(weight.shape),
                "pieces": [[p.part, p.start, p.stop] for p in weight.pieces],
            }
            for path, weight in manifest.tensors.items()
        },
        "files": sums_to_json(manifest.files),
    }


def _weight_from_json(path: str, value: Any, parts: int) -> StoredWeight:
    wrong = ValueError(f"the entry of weight {path[:80]!r} is malformed")
    if not isinstance(value, dict):
        raise wrong
    shape, entries = value.get("shape"), value.get("pieces")
    if not isinstance(shape, list) or not all(map(_is_count, shape)):
        raise wrong
    if not isinstance(entries, list) or not entries:
        raise wrong
    pieces: list[Piece] = []
    for entry in entries:
        if not isinstance(entry, list) or len(entry) != 3 or not all(map(_is_count, entry)):
            raise wrong
        if entry[0] >= parts or (pieces and entry[0] < pieces[-1].part):
            raise wrong
        pieces.append(Piece(*entry))
    # The pieces follow each other, part after part, and cover the first axis.
    ends = [piece.stop for piece in pieces]
    rows = shape[0] if shape else 1
    if [piece.start for piece in pieces] != [0, *ends[:-1]] or ends[-1] != rows:
        raise wrong
    return StoredWeight(tuple(shape), tuple(pieces))


def read_manifest(directory: Path) -> Manifest:
    """The manifest of a finished conversion.

    Raises:
        HippoError: absent, malformed, or of a later version of the format.
    """
    path = directory / MANIFEST
    value = read_json(path)
    try:
        if value.get("format") != FORMAT:
            raise ValueError("it is not the manifest of a converted checkpoint")
        if value.get("version") != VERSION:
            raise ValueError(
                f"format version {str(value.get('version'))[:20]}, this release reads {VERSION}"
            )
        dtype, fingerprint, tied = (value.get(key) for key in ("dtype", "fingerprint", "tied"))
        parts, tensors = value.get("parts"), value.get("tensors")
        if not isinstance(dtype, str) or not isinstance(fingerprint, str):
            raise ValueError("dtype or fingerprint is absent")
        if not isinstance(tied, bool) or not isinstance(tensors, dict):
            raise ValueError("tied or tensors is absent")
        if not isinstance(parts, int) or not 0 < parts <= MOST_PARTS:
            raise ValueError("its number of parts is absent or absurd")
        weights = {name: _weight_from_json(name, item, parts) for name, item in tensors.items()}
        return Manifest(
            dtype, fingerprint, tied, parts, weights, sums_from_json(value.get("files"))
        )
    except ValueError as error:
        raise HippoError(f"{path}: {error}; convert the model again") from None


def is_finished(directory: Path) -> bool:
    """A conversion whose manifest stands."""
    return (directory / MANIFEST).is_file()


def is_unfinished(directory: Path) -> bool:
    """A conversion that was begun and has not reached its end."""
    return not is_finished(directory) and (directory / UNFINISHED).exists()


def verify(directory: Path, files: Mapping[str, FileSum], names: Iterable[str]) -> None:
    """Compare files with their checksums; one HippoError names all that differ."""
    absent: list[str] = []
    changed: list[str] = []
    for name in names:
        try:
            size = (directory / name).stat().st_size
            expected = files[name]
            if size != expected.size or checksum(directory / name) != expected:
                changed.append(name)
        except OSError:
            absent.append(name)
    problems = []
    if absent:
        problems.append(f"{len(absent)} files missing ({_few(absent)})")
    if changed:
        problems.append(f"{len(changed)} files whose checksum is wrong ({_few(changed)})")
    if problems:
        raise HippoError(
            f"{directory}: damaged conversion: {' and '.join(problems)};"
            " delete the directory and convert again"
        )


def _few(names: list[str]) -> str:
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(names[:4]) + more


def is_part_name(name: str) -> bool:
    """``part-00000`` and so on."""
    return _PART.match(name) is not None
