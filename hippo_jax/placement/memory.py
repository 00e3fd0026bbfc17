"""What a model's weights and caches take on a device, and what a device has.

Numbers come from configs alone: nothing is read or allocated. What a program needs while it runs
(activations, a prefill's scores) comes on top.
"""

from __future__ import annotations

import functools
import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from hippo_jax.architectures.config import VideoLMConfig
from hippo_jax.architectures.int8 import scale_path, with_int8_kernels
from hippo_jax.architectures.parameters import declared
from hippo_jax.architectures.registry import family_of
from hippo_jax.architectures.sharding import Home, split_axes
from hippo_jax.architectures.video_lm import abstract_model
from hippo_jax.weights.host import parse_dtype


@dataclass(frozen=True)
class Memory:
    """What a device can hold.

    Attributes:
        size: bytes.
        shared: all devices of the platform have it together, as CPU devices do.
    """

    size: int
    shared: bool = False


MemoryOf = Callable[[jax.Device], Memory | None]


def device_memory(device: jax.Device) -> Memory | None:
    """The memory of ``device``, ``None`` where that is not known (also devices of other hosts).

    GPUs and TPUs say how much of theirs jax may use. CPU devices share the machine's.
    """
    if device.process_index != jax.process_index():
        return None
    try:
        limit = (device.memory_stats() or {}).get("bytes_limit")
    except RuntimeError:  # not every backend keeps count
        limit = None
    if limit:
        return Memory(int(limit))
    known = getattr(os, "sysconf_names", {})
    if device.platform == "cpu" and {"SC_PHYS_PAGES", "SC_PAGE_SIZE"} <= set(known):
        return Memory(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), shared=True)
    return None


Shared = Home | int | None
"""How many devices share a model: a home, their number, or ``None`` for one device."""


def devices_of(home: Shared) -> int:
    """The number of devices that share a model."""
    if home is None:
        return 1
    return home if isinstance(home, int) else home.size


def weight_bytes(
    config: VideoLMConfig, dtype: Any, home: Shared, quantize: str | None = None
) -> int:
    """Bytes of one model's weights on one of the devices that share it, the same on each of them.

    Args:
        dtype, quantize: as for ``load_model``.
        home: ``None`` is one device, which holds the whole model.
    """
    size = devices_of(home)
    split, given = split_axes(config, size), parse_dtype(dtype).itemsize
    return sum(
        (given if own is None else own)
        * (elements // size if any(axis in split for axis in axes) else elements)
        for axes, elements, own in _counted(config, quantize)
    )


@functools.lru_cache(maxsize=64)
def _counted(
    config: VideoLMConfig, quantize: str | None
) -> tuple[tuple[tuple[str | None, ...], int, int | None], ...]:
    """Logical axes and numbers of every weight, and bytes of one where quantization fixed them.

    Layers of one kind are alike, so their axes are read off a model of one layer each: the abstract
    model of a large config takes many seconds.
    """
    short = replace(
        config, text=replace(config.text, num_layers=1), vision=replace(config.vision, depth=1)
    )
    model = abstract_model(short)
    if quantize is not None:
        model = with_int8_kernels(model)
    kinds = {_anywhere(path): item for path, item in declared(model).items()}
    found: list[tuple[tuple[str | None, ...], int, int | None]] = []
    for path, tensor in family_of(config.family).hf_tensors(config).items():
        kind, elements = kinds[_anywhere(path)], math.prod(tensor.shape)
        scale = kinds.get(scale_path(_anywhere(path)))
        if scale is None:
            found.append((kind.axes, elements, None))
            continue
        found.append((kind.axes, elements, np.dtype(kind.dtype).itemsize))
        outputs = math.prod(scale.shape)
        found.append((scale.axes, outputs, np.dtype(scale.dtype).itemsize))
    return tuple(found)


def _anywhere(path: str) -> str:
    """A weight's path without the numbers of its layer."""
    return re.sub(r"\.\d+\.", ".", path)


def cache_bytes(
    config: VideoLMConfig, dtype: Any, home: Shared, batch: int, prompt: int, capacity: int
) -> int:
    """Bytes of one model's key/value cache on one of the devices that share it, the same on each.

    Args:
        dtype: of the weights, which keys and values share.
        batch: rows.
        prompt: tokens of the padded prompt.
        capacity: tail slots. Speculation needs more of them than it may generate tokens: ``gamma``
            more for the target, twice ``gamma`` more for the draft.
    """
    text = config.text
    row = text.num_layers * 2 * kv_heads(config, home) * (prompt + capacity) * text.head_dim
    lengths = np.dtype(np.int32).itemsize
    return batch * (row * parse_dtype(dtype).itemsize + lengths)


def kv_heads(config: VideoLMConfig, home: Shared) -> int:
    """Key heads whose keys and values each of the devices keeps."""
    size = devices_of(home)
    split = split_axes(config, size)
    if "q_heads" not in split:
        return config.text.num_kv_heads  # attention is whole on every device
    if "kv_heads" in split:
        return config.text.num_kv_heads // size
    return 1  # a device keeps the one key head that its query heads read


def as_text(count: int) -> str:
    """Bytes for people."""
    mebi = count / 2**20
    return f"{mebi:.1f} MiB" if mebi < 1024 else f"{mebi / 1024:.2f} GiB"
