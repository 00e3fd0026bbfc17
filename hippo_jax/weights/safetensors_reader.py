"""What a safetensors checkpoint holds, read from its headers and checked before any tensor is.

A file is eight bytes with the length of a JSON header, the header (name -> dtype, shape, byte
range) and then the bytes of all tensors. Headers are parsed here and not by the safetensors package
because every malformed field must end in one clear line, and because single slices of a tensor have
to be read in numpy, bfloat16 included.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from hippo_jax.errors import HippoError

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"
# The format's own bound: a longer header is an error whatever the size of the file.
LARGEST_HEADER = 100_000_000

FLOATS: dict[str, np.dtype[Any]] = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
# Bits an element of every dtype of the format; what is not in FLOATS can be listed, not loaded.
_BITS = {
    "BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8,
    "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32, "C64": 64, "F64": 64, "I64": 64, "U64": 64,
}  # fmt: skip
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".msgpack", ".h5")
_OF = re.compile(r"-\d+-of-(\d+)\.safetensors$")


@dataclass(frozen=True)
class StoredTensor:
    """One tensor as it lies in a file. ``offset`` counts bytes from the start of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    offset: int
    size: int

    def view(self) -> np.ndarray[Any, Any]:
        """The tensor as a read-only memory map of its own, released with the last reference.

        Mapped pages belong to the file, so looking at a tensor takes no anonymous memory.
        """
        if self.size == 0:
            return np.empty(self.shape, FLOATS[self.dtype])
        try:
            return np.memmap(
                self.file, FLOATS[self.dtype], mode="r", offset=self.offset, shape=self.shape
            )
        except (OSError, ValueError) as error:
            raise HippoError(f"{self.file}: cannot read tensor {self.name!r}: {error}") from None

    def bytes_equal(self, other: StoredTensor) -> bool:
        """Whether two tensors of one shape and dtype hold the same bytes, compared in pieces."""
        step = 1 << 22
        with self.file.open("rb") as mine, other.file.open("rb") as theirs:
            mine.seek(self.offset)
            theirs.seek(other.offset)
            for start in range(0, self.size, step):
                count = min(step, self.size - start)
                if mine.read(count) != theirs.read(count):
                    return False
        return True


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise ValueError("a name appears twice")
    return entries


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; HippoError when it is anything else."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise HippoError(f"{path}: no such file") from None
    # RecursionError: brackets nested a thousand deep.
    except (OSError, ValueError, RecursionError) as error:
        raise HippoError(f"{path}: not readable as JSON: {_first_line(error)}") from None
    if not isinstance(value, dict):
        raise HippoError(f"{path}: a JSON object is expected, this is a {type(value).__name__}")
    return value


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _tensor(path: Path, name: str, entry: Any, start: int, end: int) -> StoredTensor:
    """One checked header entry; ``start`` and ``end`` bound the file's data."""

    def wrong(what: str) -> HippoError:
        return HippoError(f"{path}: corrupt header: tensor {name[:80]!r}: {what}")

    if not isinstance(entry, dict):
        raise wrong("its entry is not an object")
    dtype, shape, span = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise wrong(f"unknown dtype {str(dtype)[:40]!r}")
    if not isinstance(shape, list) or not all(map(_is_count, shape)) or len(shape) > 32:
        raise wrong("its shape is not a list of sizes")
    if not isinstance(span, list) or len(span) != 2 or not all(map(_is_count, span)):
        raise wrong("its data_offsets are not two byte positions")
    first, last = span
    size = math.prod(shape) * _BITS[dtype] // 8
    if last - first != size:
        raise wrong(f"{dtype} {shape} takes {size} bytes, its data_offsets span {last - first}")
    if start + last > end:
        raise HippoError(
            f"{path}: truncated: {start + last - end} bytes of tensor {name[:80]!r} are missing;"
            " download or copy the file again"
        )
    return StoredTensor(name, dtype, tuple(shape), path, start + first, size)


def read_header(path: Path) -> dict[str, StoredTensor]:
    """Every tensor of one file by its stored name.

    Raises:
        HippoError: the file is missing, truncated, too long, or its header is malformed.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8:
                raise HippoError(f"{path}: truncated: {size} bytes are no safetensors file")
            if length > LARGEST_HEADER or 8 + length > size:
                raise HippoError(
                    f"{path}: corrupt or truncated: its header claims {length} bytes"
                    f" in a file of {size}; download or copy the file again"
                )
            raw = file.read(length)
    except FileNotFoundError:
        raise HippoError(f"{path}: no such file") from None
    except OSError as error:
        raise HippoError(f"{path}: cannot be read: {error.strerror or error}") from None
    try:
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise HippoError(f"{path}: corrupt header: {_first_line(error)}") from None
    if not isinstance(header, dict):
        raise HippoError(f"{path}: corrupt header: a JSON object is expected")
    header.pop("__metadata__", None)
    found = {name: _tensor(path, name, entry, 8 + length, size) for name, entry in header.items()}
    position = 8 + length
    for tensor in sorted(found.values(), key=lambda item: (item.offset, item.size)):
        if tensor.offset != position:
            raise HippoError(
                f"{path}: corrupt header: tensor {tensor.name[:80]!r} starts at byte"
                f" {tensor.offset}, the one before ends at {position}"
            )
        position += tensor.size
    if position != size:
        raise HippoError(f"{path}: corrupt: {size - position} bytes belong to no tensor")
    return found


def _indexed_files(directory: Path) -> dict[str, list[str]]:
    """File name -> the tensors that the index says it holds."""
    index = directory / INDEX_NAME
    entries = read_json(index).get("weight_map")
    if not isinstance(entries, dict) or not entries:
        raise HippoError(f"{index}: it has no weight_map; download the index again")
    files: dict[str, list[str]] = {}
    for tensor, file in entries.items():
        # A plain name: an index never leads out of its own directory.
        if not isinstance(file, str) or Path(file).name != file or "\\" in file or "\0" in file:
            raise HippoError(f"{index}: {str(file)[:80]!r} is no file name of this directory")
        if not file.endswith(".safetensors"):
            raise HippoError(f"{index}: {file[:80]!r}: only safetensors files are read")
        files.setdefault(file, []).append(tensor)
    missing = sorted(file for file in files if not (directory / file).is_file())
    if missing:
        raise HippoError(
            f"{directory}: {len(missing)} of {len(files)} shards are missing:"
            f" {shorten(missing)}; download them again"
        )
    return files


def weight_files(directory: Path) -> dict[str, list[str]]:
    """The safetensors files of a checkpoint and the tensors its index expects in each.

    ``model.safetensors`` first, then the index, then whatever shards lie there without an index.
    """
    if (directory / SINGLE_NAME).is_file():
        return {SINGLE_NAME: []}
    if (directory / INDEX_NAME).exists():
        return _indexed_files(directory)
    names = sorted(path.name for path in directory.glob("*.safetensors") if path.is_file())
    if not names:
        pickled = sorted(p.name for p in directory.iterdir() if p.suffix.lower() in _PICKLES)
        if pickled:
            raise HippoError(
                f"{directory}: only pickled weights ({shorten(pickled)}), which are never read"
                " because a pickle can run code; save the model as safetensors"
            )
        raise HippoError(f"{directory}: no safetensors weights in this directory")
    totals = {int(match.group(1)) for name in names if (match := _OF.search(name))}
    if totals and totals != {len(names)}:
        raise HippoError(
            f"{directory}: {len(names)} shards where their names say {max(totals)};"
            " download the missing ones"
        )
    return {name: [] for name in names}


def read_checkpoint(directory: Path) -> dict[str, StoredTensor]:
    """All tensors of a directory by stored name, from one file or many.

    Raises:
        HippoError: no safetensors here, a shard missing or corrupt, a tensor in two shards, or an
            index that disagrees with the files.
    """
    tensors: dict[str, StoredTensor] = {}
    twice: list[str] = []
    absent: list[str] = []
    for name, expected in weight_files(directory).items():
        found = read_header(directory / name)
        absent += [tensor for tensor in expected if tensor not in found]
        twice += [tensor for tensor in found if tensor in tensors]
        tensors |= found
    if twice:
        raise HippoError(f"{directory}: {len(twice)} tensors lie in two shards: {shorten(twice)}")
    if absent:
        raise HippoError(
            f"{directory / INDEX_NAME}: {len(absent)} tensors are not in the shards it names:"
            f" {shorten(absent)}; download index and shards of one revision"
        )
    return tensors


def shorten(names: Iterable[str], most: int = 6) -> str:
    """The first names of a long list and how many more there are."""
    names = [name[:120] for name in names]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def total_bytes(tensors: Mapping[str, StoredTensor]) -> int:
    """Bytes of all tensors as stored."""
    return sum(tensor.size for tensor in tensors.values())
