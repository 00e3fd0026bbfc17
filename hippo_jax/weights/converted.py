"""Reading a converted directory: every file against its checksum, then part by part."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from hippo_jax.architectures.int8 import with_int8_kernels
from hippo_jax.architectures.parameters import Declared, declared, with_values
from hippo_jax.architectures.registry import family_of
from hippo_jax.architectures.sharding import Home, specs_at
from hippo_jax.architectures.video_lm import VideoLM, abstract_model
from hippo_jax.errors import HippoError
from hippo_jax.weights import manifest as files
from hippo_jax.weights.checkpoint import read_config, with_tied
from hippo_jax.weights.host import DTYPES, aligned_empty, place_weight, release_freed
from hippo_jax.weights.manifest import Manifest, Piece
from hippo_jax.weights.safetensors_reader import shorten

Array = np.ndarray[Any, Any]

# Bytes of weights that are read in one request: few requests, little memory.
_GROUP = 1 << 25


def is_converted(directory: Path) -> bool:
    """Whether a directory was made by ``convert``.

    Raises:
        HippoError: it was begun and not finished.
    """
    if files.is_unfinished(directory):
        raise HippoError(
            f"{directory}: this conversion is not finished; run the same `hippo convert` command"
            " again, it goes on where it was"
        )
    return files.is_finished(directory)


def load(
    directory: Path, dtype: np.dtype[Any], home: Home | None, quantize: str | None = None
) -> VideoLM:
    """The model of a finished conversion (see ``load_model``)."""
    found = files.read_manifest(directory)
    if found.dtype not in DTYPES:
        raise HippoError(f"{directory}: unknown dtype {found.dtype[:40]!r} in its manifest")
    in_parts = {name for name in found.files if files.is_part_name(Path(name).parts[0])}
    # Configs first: they say what to expect of the parts.
    files.verify(directory, found.files, [name for name in found.files if name not in in_parts])
    config = with_tied(read_config(directory), found.tied)
    layers = max(config.text.num_layers, getattr(config.vision, "depth", 0))
    if layers > len(found.tensors):
        raise HippoError(f"{directory}: its config and its weights are of different models")
    # Names before the model: building a model of a garbled config could take minutes.
    _require_names(directory, found, family_of(config.family).hf_tensors(config))
    model = abstract_model(config)
    wanted = declared(model)
    _require_shapes(directory, found, wanted)
    model = model if quantize is None else with_int8_kernels(model)
    specs = specs_at(model.config, declared(model), home)
    weights: dict[str, jax.Array] = {}
    for path, value in _weights(directory, found, wanted):
        placed, finite = place_weight(path, value, dtype, specs, home)
        weights |= placed
        if not finite:
            raise HippoError(
                f"{directory}: {path} has values that are not finite in {dtype.name};"
                " load it as bfloat16 or float32"
            )
    return with_values(model, weights)


def _require_names(directory: Path, found: Manifest, wanted: Iterable[str]) -> None:
    paths = set(wanted)
    missing = [path for path in paths if path not in found.tensors]
    unknown = [path for path in found.tensors if path not in paths]
    kinds = ((sorted(missing), "missing"), (unknown, "not of this model"))
    _raise_any(directory, kinds)


def _require_shapes(directory: Path, found: Manifest, wanted: Mapping[str, Declared]) -> None:
    other = [path for path, item in wanted.items() if found.tensors[path].shape != item.shape]
    _raise_any(directory, ((other, "of another shape"),))


def _raise_any(directory: Path, kinds: Iterable[tuple[list[str], str]]) -> None:
    problems = [f"{len(names)} {what}: {shorten(names)}" for names, what in kinds if names]
    if problems:
        raise HippoError(
            f"{directory}: weights do not fit the config: {'; '.join(problems)}; convert again"
        )


def _weights(
    directory: Path, found: Manifest, wanted: dict[str, Declared]
) -> Iterator[tuple[str, Array]]:
    """Every weight on the host, whole, in the order of the parts."""
    dtype = DTYPES[found.dtype]
    in_part: dict[int, list[tuple[str, Piece]]] = {}
    for path, weight in found.tensors.items():
        for piece in weight.pieces:
            in_part.setdefault(piece.part, []).append((path, piece))
    halves: dict[str, Array] = {}  # weights of which some pieces have been read
    for part in range(found.parts):
        name = files.part_name(part)
        files.verify(directory, found.files, [f for f in found.files if Path(f).parts[0] == name])
        pieces = in_part.get(part, [])
        keys = [files.piece_key(path, piece, found.tensors[path]) for path, piece in pieces]
        shapes = [_piece_shape(wanted[path], piece) for path, piece in pieces]
        for group in _groups([math.prod(shape) * dtype.itemsize for shape in shapes]):
            asked = {keys[i]: shapes[i] for i in group}
            values = _read(directory / name / files.WEIGHTS, asked, keys, dtype)
            release_freed()
            for i in group:
                (path, piece), value = pieces[i], values.pop(keys[i])
                if len(found.tensors[path].pieces) == 1:
                    yield path, value
                    continue
                if path not in halves:
                    halves[path] = aligned_empty(wanted[path].shape, dtype)
                halves[path][piece.start : piece.stop] = value
                del value  # it would stand beside the whole weight and its copy on the device
                if piece.stop == wanted[path].shape[0]:
                    yield path, halves.pop(path)


def _piece_shape(weight: Declared, piece: Piece) -> tuple[int, ...]:
    shape = tuple(weight.shape)
    return (piece.stop - piece.start, *shape[1:]) if shape else shape


def _groups(sizes: list[int]) -> Iterator[list[int]]:
    """Indices of consecutive pieces that together stay below the size of one request."""
    group: list[int] = []
    total = 0
    for index, size in enumerate(sizes):
        if group and total + size > _GROUP:
            yield group
            group, total = [], 0
        group.append(index)
        total += size
    if group:
        yield group


def _read(
    path: Path, asked: dict[str, tuple[int, ...]], keys: list[str], dtype: np.dtype[Any]
) -> dict[str, Array]:
    """Pieces from one part as numpy arrays, the others left alone."""
    from orbax.checkpoint import v1 as ocp

    target: dict[str, Any] = dict.fromkeys(keys, ocp.PLACEHOLDER)
    # An array that is never written to tells Orbax shape and dtype and takes no memory.
    target |= {key: np.empty(shape, dtype) for key, shape in asked.items()}
    try:
        values = ocp.load(path.absolute(), target)
    except (ValueError, KeyError, OSError, TypeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise HippoError(f"{path}: cannot be read: {reason}; convert the model again") from None
    return {key: np.asarray(values[key]) for key in asked}
