"""``convert``: a checkpoint to an Orbax directory that loads without rearranging anything.

The directory is described in ``manifest.py``. Each part is written under a temporary name and then
renamed, so whatever stands under its own name is whole; the manifest comes last. A conversion that
was killed therefore goes on with the first part that is not there.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hippo_jax.architectures.parameters import Declared, declared
from hippo_jax.architectures.video_lm import abstract_model
from hippo_jax.errors import HippoError
from hippo_jax.weights import manifest as files
from hippo_jax.weights.checkpoint import Checkpoint, open_checkpoint
from hippo_jax.weights.durable import only_here, side_copy, sync_directory, write_json
from hippo_jax.weights.fingerprint import fingerprint
from hippo_jax.weights.host import DTYPES, converted, parse_dtype
from hippo_jax.weights.manifest import FileSum, Manifest, Piece, StoredWeight
from hippo_jax.weights.orbax_save import save_arrays
from hippo_jax.weights.safetensors_reader import FLOATS, shorten
from hippo_jax.weights.source import locate, side_files

Progress = Callable[[int, int], None]

LARGEST_PART = 1_000_000_000
# Of a model in 32 parts a kill loses at most a thirty-second; even smaller parts only cost time.
_PARTS = 32
_SMALLEST_PART = 1 << 16
# A weight is read piece by piece, so that what is read at a time is small beside a model.
_LARGEST_PIECE = 1 << 25


def convert(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    *,
    dtype: Any = None,
    revision: str | None = None,
    progress: Progress | None = None,
    _part_bytes: int | None = None,
) -> Path:
    """Convert a checkpoint to an Orbax directory that ``load_model`` reads.

    Weights are written in the layout of our models, in parts of at most one gigabyte, with the
    config, tokenizer and processor files beside them. After a kill the same call goes on where it
    was; a finished conversion is left as it is.

    Args:
        source: a Hugging Face directory or hub id.
        destination: a new or empty directory, or one that this conversion was begun in.
        dtype: of the weights written (default: the one most of the source's bytes are in).
        revision: branch, tag or commit on the hub.
        progress: called with ``(bytes done, bytes in all)`` at the start and after each part.

    Returns:
        The destination.

    Raises:
        HippoError: the source does not load, the destination holds something else (another
            source or dtype included) or cannot be written, or another process is converting to it.
    """
    asked = None if dtype is None else parse_dtype(dtype)
    directory = locate(source, revision)
    if files.is_finished(directory) or files.is_unfinished(directory):
        raise HippoError(f"{directory}: this is a converted directory; convert its source instead")
    checkpoint = open_checkpoint(directory)
    target = asked if asked is not None else _common_dtype(checkpoint)
    checkpoint.require_fitting(target)
    place = Path(destination).expanduser().absolute()
    try:
        place.mkdir(parents=True, exist_ok=True)
        with only_here(place):
            _convert(checkpoint, place, target, progress or (lambda done, total: None), _part_bytes)
    except OSError as error:
        raise HippoError(
            f"{error.filename or place}: {error.strerror or error}; mend that and run the same"
            " command again, it goes on where it was"
        ) from None
    return place


def _convert(
    checkpoint: Checkpoint,
    place: Path,
    dtype: np.dtype[Any],
    progress: Progress,
    part_bytes: int | None,
) -> None:
    weights = declared(abstract_model(checkpoint.config))
    total = sum(math.prod(item.shape) * dtype.itemsize for item in weights.values())
    if part_bytes is None:
        part_bytes = min(LARGEST_PART, max(_SMALLEST_PART, total // _PARTS))
    begun: dict[str, Any] = {
        "format": files.FORMAT,
        "version": files.VERSION,
        "fingerprint": fingerprint(checkpoint),
        "dtype": dtype.name,
        "piece_bytes": _LARGEST_PIECE,  # with the size of a part it says what lies in which
    }
    if _already_finished(place, begun):
        progress(total, total)
        return
    part_bytes = _begin(place, begun, part_bytes)
    sums = _copy_side_files(checkpoint.directory, place)
    tensors = plan(weights, dtype.itemsize, part_bytes)
    parts = 1 + max(piece.part for weight in tensors.values() for piece in weight.pieces)
    done = 0
    progress(done, total)
    for part in range(parts):
        pieces = [
            (path, piece)
            for path, weight in tensors.items()
            for piece in weight.pieces
            if piece.part == part
        ]
        found = _committed(place, part)
        if found is None:
            found = _write_part(checkpoint, place, part, pieces, tensors, dtype)
        sums |= found
        done += sum(_piece_bytes(tensors[path], piece, dtype) for path, piece in pieces)
        progress(done, total)
    tied = checkpoint.config.text.tied
    result = Manifest(dtype.name, begun["fingerprint"], tied, parts, tensors, sums)
    write_json(place / files.MANIFEST, files.to_json(result))
    (place / files.UNFINISHED).unlink()


def plan(
    weights: Mapping[str, Declared], itemsize: int, part_bytes: int
) -> dict[str, StoredWeight]:
    """Deal the weights out to parts of at most ``part_bytes``, in order.

    A weight larger than a part or than 32 MB is cut along its first axis; only a single row that
    is itself larger makes a larger piece.
    """
    piece_bytes = min(part_bytes, _LARGEST_PIECE)
    tensors: dict[str, StoredWeight] = {}
    part, filled = 0, 0
    for path, item in weights.items():
        shape = tuple(item.shape)
        rows = shape[0] if shape else 1
        row_bytes = max(1, math.prod(shape[1:]) * itemsize)
        step = rows if rows * row_bytes <= piece_bytes else max(1, piece_bytes // row_bytes)
        pieces = []
        for start in range(0, rows, step):
            stop = min(rows, start + step)
            size = (stop - start) * row_bytes
            if filled and filled + size > part_bytes:
                part, filled = part + 1, 0
            filled += size
            pieces.append(Piece(part, start, stop))
        tensors[path] = StoredWeight(shape, tuple(pieces))
    return tensors


def _piece_bytes(weight: StoredWeight, piece: Piece, dtype: np.dtype[Any]) -> int:
    return (piece.stop - piece.start) * math.prod(weight.shape[1:]) * dtype.itemsize


def _common_dtype(checkpoint: Checkpoint) -> np.dtype[Any]:
    """The dtype of most bytes of the source; float32 stands in for float64."""
    sizes: dict[str, int] = {}
    for tensor in checkpoint.tensors.values():
        sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.size
    most = FLOATS[max(sizes, key=lambda name: sizes[name])] if sizes else DTYPES["float32"]
    return most if most in DTYPES.values() else DTYPES["float32"]


def _already_finished(place: Path, begun: Mapping[str, Any]) -> bool:
    """Whether the destination is this very conversion, finished; an error if it is another."""
    if not files.is_finished(place):
        return False
    found = files.read_manifest(place)
    if (found.fingerprint, found.dtype) != (begun["fingerprint"], begun["dtype"]):
        raise HippoError(
            f"{place}: holds a finished conversion to {found.dtype} of another source or dtype;"
            " choose another destination or delete it"
        )
    # Killed between the manifest and the removal of its forerunner.
    (place / files.UNFINISHED).unlink(missing_ok=True)
    return True


def _begin(place: Path, begun: Mapping[str, Any], part_bytes: int) -> int:
    """Mark the destination as ours, or recognise that it is; the size of parts begun with."""
    state = place / files.UNFINISHED
    temporary = state.with_name(state.name + ".tmp")
    if state.exists():
        found = files.read_json(state)
        earlier = found.pop("part_bytes", None)
        if found != begun or not isinstance(earlier, int) or earlier < 1:
            raise HippoError(
                f"{place}: holds an unfinished conversion to {str(found.get('dtype'))[:20]} of"
                " another source or dtype; finish that one, choose another destination or delete it"
            )
        return earlier
    others = sorted(path.name for path in place.iterdir() if path != temporary)
    if others:
        raise HippoError(
            f"{place}: holds something else ({shorten(others, 3)}); choose a new or empty directory"
        )
    write_json(state, {**begun, "part_bytes": part_bytes})
    return part_bytes


def _copy_side_files(source: Path, place: Path) -> dict[str, FileSum]:
    sums = {}
    for path in side_files(source):
        if path.name not in (files.MANIFEST, files.UNFINISHED):
            side_copy(path, place / path.name)
            sums[path.name] = files.checksum(place / path.name)
    return sums


def _committed(place: Path, part: int) -> dict[str, FileSum] | None:
    """The checksums of a part that stands whole; whatever else has its name is removed."""
    directory = place / files.part_name(part)
    temporary = place / (files.part_name(part) + ".tmp")
    if temporary.exists():
        shutil.rmtree(temporary)
    if not directory.exists():
        return None
    try:
        listed = files.read_json(directory / files.PART_FILES).get("files")
        sums = files.sums_from_json(listed)
        if all((place / name).stat().st_size == item.size for name, item in sums.items()):
            own = f"{directory.name}/{files.PART_FILES}"
            return {**sums, own: files.checksum(directory / files.PART_FILES)}
    except (ValueError, OSError):  # HippoError is a ValueError
        pass
    shutil.rmtree(directory)
    return None


def _write_part(
    checkpoint: Checkpoint,
    place: Path,
    part: int,
    pieces: list[tuple[str, Piece]],
    tensors: Mapping[str, StoredWeight],
    dtype: np.dtype[Any],
) -> dict[str, FileSum]:
    """Convert and write one part; it takes its name when every byte of it is on disk."""
    values: dict[str, np.ndarray[Any, Any]] = {}
    for path, piece in pieces:
        whole = checkpoint.weight(path, tensors[path].shape)
        rows = whole[piece.start : piece.stop] if whole.ndim else whole
        value, finite = converted(rows, dtype)
        if not finite:
            checkpoint.raise_with_values(dtype)
        values[files.piece_key(path, piece, tensors[path])] = value
    name = files.part_name(part)
    temporary = place / (name + ".tmp")
    temporary.mkdir()
    save_arrays(temporary / files.WEIGHTS, values)
    sums = {
        f"{name}/{path.relative_to(temporary).as_posix()}": files.checksum(path, sync=True)
        for path in sorted(temporary.rglob("*"))
        if path.is_file()
    }
    write_json(temporary / files.PART_FILES, {"files": files.sums_to_json(sums)})
    sums[f"{name}/{files.PART_FILES}"] = files.checksum(temporary / files.PART_FILES)
    os.replace(temporary, place / name)
    sync_directory(place)
    return sums
