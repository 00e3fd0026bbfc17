"""From a stored tensor to device memory: slices converted on the host, each put where it stays.

A tensor is never whole on a device that does not keep it whole. On the CPU the buffers made here
are handed to jax without another copy, which needs addresses that are multiples of 64.
"""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import ml_dtypes
import numpy as np
from jax.sharding import PartitionSpec as P

from hippo_jax.architectures.int8 import LARGEST, scale_path
from hippo_jax.architectures.sharding import Home
from hippo_jax.errors import HippoError

Array = np.ndarray[Any, Any]
Index = tuple[slice, ...]

_ALIGNMENT = 64
# Tiles keep both sides of a transposition in cache (three to five times faster than one
# assignment); rows are taken until about this many elements.
_TILE = 128
_CHUNK = 1 << 20

DTYPES: dict[str, np.dtype[Any]] = {
    "float32": np.dtype(np.float32),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float16": np.dtype(np.float16),
}


def parse_dtype(dtype: Any) -> np.dtype[Any]:
    """float32, bfloat16 or float16 from a name or anything numpy takes for a dtype."""
    try:
        found = np.dtype(DTYPES.get(dtype, dtype) if isinstance(dtype, str) else dtype)
    except TypeError:
        found = None
    if found is None or found not in DTYPES.values():
        raise HippoError(f"dtype {dtype!r}: use one of {', '.join(DTYPES)}")
    return found


def default_device() -> jax.Device:
    """The device that jax puts uncommitted arrays on."""
    chosen = getattr(jax.config, "jax_default_device")  # noqa: B009  (mypy does not know it)
    if isinstance(chosen, str):
        return jax.local_devices(backend=chosen)[0]
    return jax.local_devices()[0] if chosen is None else chosen


def default_dtype(device: jax.Device) -> np.dtype[Any]:
    """float32 on CPU; bfloat16 on TPU and on GPUs that compute in it; float16 on older GPUs."""
    if device.platform == "cpu":
        return DTYPES["float32"]
    if device.platform == "gpu":
        # "9.0" on NVIDIA, where bfloat16 began with 8.0; AMD names its chips ("gfx90a").
        capability = str(getattr(device, "compute_capability", ""))
        major = capability.split(".")[0]
        if major.isdigit() and int(major) < 8:
            return DTYPES["float16"]
    return DTYPES["bfloat16"]


def aligned_empty(shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
    """An uninitialised array whose address suits zero-copy transfer to a CPU device."""
    size = math.prod(shape) * dtype.itemsize
    raw = np.empty(size + _ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    return raw[start : start + size].view(dtype).reshape(shape)


@functools.cache
def _malloc_trim() -> Callable[[int], int] | None:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):  # not Linux, or another C library
        return None


def release_freed() -> None:
    """Let the system have the memory that was freed.

    glibc keeps freed blocks of up to 32 MB for each thread that asked for them, and the libraries
    that read arrays ask from many threads: a large part of a model, without this.
    """
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


def _tiles(source: Array) -> Iterator[Index]:
    """Pieces of an array that are quick to copy to a contiguous one."""
    if source.ndim == 0:
        yield ()
        return
    fastest = min(range(source.ndim), key=lambda axis: abs(source.strides[axis]))
    if fastest < source.ndim - 1 and source.shape[-1] > 1:
        tile = [slice(None)] * source.ndim
        for i in range(0, source.shape[fastest], _TILE):
            for j in range(0, source.shape[-1], _TILE):
                tile[fastest], tile[-1] = slice(i, i + _TILE), slice(j, j + _TILE)
                yield tuple(tile)
        return
    rows = max(1, _CHUNK // max(1, math.prod(source.shape[1:])))
    for i in range(0, source.shape[0], rows):
        yield (slice(i, i + rows),)


def column_scales(source: Array) -> Array:
    """Of a kernel ``[in, out ...]`` the scale of each output's int8 values, float32 ``[out ...]``:
    its largest magnitude over 127. Not finite if a value is not."""
    largest = np.zeros(source.shape[1:], np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for tile in _tiles(source):
            own = largest[tile[1:]]
            np.maximum(own, np.abs(source[tile].astype(np.float32)).max(axis=0), out=own)
    return largest / np.float32(LARGEST)


def _quantized(source: Array, scale: Array) -> Array:
    """The nearest whole multiples of ``scale``; 0 where that is 0."""
    values = np.zeros(source.shape, np.float32)
    np.divide(source.astype(np.float32), scale, out=values, where=scale > 0)
    return np.clip(np.rint(values), -LARGEST, LARGEST)


def converted(
    source: Array, dtype: np.dtype[Any], scale: Array | None = None
) -> tuple[Array, bool]:
    """A contiguous aligned copy in ``dtype``, and whether all of it is finite there.

    With ``scale`` (from ``column_scales`` of the whole kernel, cut as ``source`` is) its multiples.
    """
    out = aligned_empty(source.shape, dtype)
    finite = True
    with np.errstate(over="ignore", invalid="ignore"):
        for tile in _tiles(source):
            piece = source[tile]
            out[tile] = piece if scale is None else _quantized(piece, scale[tile[1:]])
            finite = finite and bool(np.isfinite(out[tile]).all())
    return out, finite


def all_finite(source: Array) -> bool:
    """Whether an array holds neither NaN nor infinity, read in pieces."""
    return all(bool(np.isfinite(source[tile]).all()) for tile in _tiles(source))


def fits(source: Array, dtype: np.dtype[Any]) -> bool:
    """Whether every value of ``source`` is finite once it is stored in ``dtype``."""
    with np.errstate(over="ignore", invalid="ignore"):
        return all(bool(np.isfinite(source[tile].astype(dtype)).all()) for tile in _tiles(source))


def place_weight(
    path: str, source: Array, dtype: np.dtype[Any], specs: Mapping[str, P], home: Home | None
) -> tuple[dict[str, jax.Array], bool]:
    """The weight at ``path``, by path, on its devices; and whether all of it is finite.

    It is in ``dtype``, or in int8 with its scales beside it if ``specs`` has a place for these. The
    scales of a kernel that is split come from the whole of it, so that the parts are those of the
    kernel on one device.
    """
    if scale_path(path) not in specs:
        array, finite = place(source, dtype, specs[path], home)
        return {path: array}, finite
    scale = column_scales(source)
    kernel, _ = place(source, np.dtype(np.int8), specs[path], home, scale)
    scales, finite = place(scale, scale.dtype, specs[scale_path(path)], home)
    return {path: kernel, scale_path(path): scales}, finite


def place(
    source: Array,
    dtype: np.dtype[Any],
    spec: P,
    home: Home | None,
    scale: Array | None = None,
) -> tuple[jax.Array, bool]:
    """``source`` (in our layout) on its devices in ``dtype``, and whether all of it is finite.

    Without a home the array is uncommitted on the default device, so that it may still enter a
    computation over many devices. On a mesh each device gets its own shard from the host. Returns
    when the transfer is done, so that host buffers never wait in a row for an accelerator.
    ``scale``: see ``converted``.
    """
    if home is None:
        whole, finite = converted(source, dtype, scale)
        return jax.device_put(whole).block_until_ready(), finite

    # Devices that hold the same part share one host buffer.
    parts: dict[tuple[tuple[int, int], ...], tuple[Array, bool]] = {}

    shape = home.stored_shape(source.shape, spec)

    def shard(index: Index | None) -> Array:
        assert index is not None
        taken = []
        for part, stored, name in zip(index, shape, spec, strict=True):
            start, stop, _ = part.indices(stored)
            length = stop - start
            if name is not None:  # from the place on the mesh to the part of the weight
                start = home.owner(start // length) * length
            taken.append((start, start + length))
        key = tuple(taken)
        if key not in parts:
            cut = tuple(slice(*ends) for ends in key)
            own = None if scale is None else scale[cut[1:]]
            parts[key] = converted(source[cut], dtype, own)
        return parts[key][0]

    array = jax.make_array_from_callback(shape, home.sharding(spec), shard)
    array.block_until_ready()
    return array, all(finite for _, finite in parts.values())
