"""What a model's weights and caches take on a device, and what a device has.

Numbers come from configs alone: nothing is read or allocated. What a program needs while it runs
(activations, a prefill's scores) comes on top.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from hippo_jax.architectures.config import VideoLMConfig
from hippo_jax.architectures.parameters import Declared, declared
from hippo_jax.architectures.sharding import Home, specs_at, split_axes
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


def weight_bytes(config: VideoLMConfig, dtype: Any, home: Home | None) -> int:
    """Bytes of one model's weights on one device of ``home``, the same on each of them.

    Args:
        dtype: as for ``load_model``.
        home: ``None`` is one device, which holds the whole model.
    """
    return weight_elements(config, home) * parse_dtype(dtype).itemsize


def weight_elements(config: VideoLMConfig, home: Home | None) -> int:
    """Numbers in them."""
    weights = _declared(config)
    specs = specs_at(config, weights, home)
    size = 1 if home is None else home.size
    elements = 0
    for path, item in weights.items():
        parts = size if any(name is not None for name in specs[path]) else 1
        elements += math.prod(item.shape) // parts
    return elements


@functools.lru_cache(maxsize=8)
def _declared(config: VideoLMConfig) -> Mapping[str, Declared]:
    # The abstract model of a large config takes seconds.
    return declared(abstract_model(config))


def cache_bytes(
    config: VideoLMConfig, dtype: Any, home: Home | None, batch: int, prompt: int, capacity: int
) -> int:
    """Bytes of one model's key/value cache on one device of ``home``, the same on each of them.

    Args:
        dtype: of the weights, which keys and values share.
        batch: rows.
        prompt: tokens of the padded prompt.
        capacity: tail slots. Speculation needs more of them than it may generate tokens: ``gamma``
            more for the target, twice ``gamma`` more for the draft.
    """
    text = config.text
    size = 1 if home is None else home.size
    split = split_axes(config, size)
    if "q_heads" not in split:
        heads = text.num_kv_heads  # attention is whole on every device
    elif "kv_heads" in split:
        heads = text.num_kv_heads // size
    else:
        heads = 1  # a device keeps the one key head that its query heads read
    row = text.num_layers * 2 * heads * (prompt + capacity) * text.head_dim
    lengths = np.dtype(np.int32).itemsize
    return batch * (row * parse_dtype(dtype).itemsize + lengths)


def as_text(count: int) -> str:
    """Bytes for people."""
    mebi = count / 2**20
    return f"{mebi:.1f} MiB" if mebi < 1024 else f"{mebi / 1024:.2f} GiB"
