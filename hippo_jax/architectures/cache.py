"""The key/value cache: a prompt part that is never written again and a small tail.

The prompt's keys and values are loop invariant: no decoding loop carries them, so none copies
them. New tokens go to the tail, whose slots are addressed by how many tokens are committed; to
roll back is to pass a smaller length, since slots past the length are hidden and overwritten.
Layers are separate arrays: nothing is ever sliced out of a stack.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp

Block = tuple[jax.Array, jax.Array]
"""Keys and values of newly computed tokens, each ``[B, T, K, H]``."""


class LayerCache(NamedTuple):
    """One layer's share: prompt ``[B, K, P, H]`` and tail ``[B, K, C, H]``."""

    prompt_k: jax.Array
    prompt_v: jax.Array
    tail_k: jax.Array
    tail_v: jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class KVCache:
    """All layers.

    Attributes:
        layers: one ``LayerCache`` a layer.
        prompt_lengths: int32 ``[B]``, valid prompt slots of each row (rows are right-padded).
    """

    layers: tuple[LayerCache, ...]
    prompt_lengths: jax.Array

    @property
    def capacity(self) -> int:
        """Tail slots."""
        return self.layers[0].tail_k.shape[2]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PartialPrefill:
    """A prompt on its way through the layers.

    Attributes:
        hidden: ``[B, T, D]``, or behind the last layer ``[B, R, D]``: only the rows that are
            wanted.
        blocks: keys and values of the layers that are done.
        deep: ``[rows, k * D]``, what the vision tower adds behind the first k layers (deepstack);
            ``None`` in families that add nothing, and once these layers are done.
    """

    hidden: jax.Array
    blocks: tuple[Block, ...]
    deep: jax.Array | None = None


def from_prompt(blocks: Sequence[Block], lengths: jax.Array, capacity: int) -> KVCache:
    """A cache over a prefilled prompt with ``capacity`` empty tail slots."""

    def layer(block: Block) -> LayerCache:
        keys, values = (x.transpose(0, 2, 1, 3) for x in block)
        b, heads, _, dim = keys.shape
        empty = jnp.zeros((b, heads, capacity, dim), keys.dtype)
        return LayerCache(keys, values, empty, empty)

    return KVCache(tuple(layer(block) for block in blocks), lengths)


def fresh_blocks(cache: KVCache, width: int) -> list[Block]:
    """Room for ``width`` tokens that are not written to the cache yet."""
    b, heads, _, dim = cache.layers[0].tail_k.shape
    return [(jnp.zeros((b, width, heads, dim), layer.tail_k.dtype),) * 2 for layer in cache.layers]


def write(cache: KVCache, blocks: Sequence[Block], slot: jax.Array) -> KVCache:
    """Write new tokens at tail ``slot``: one int32 for all rows, or ``[B]``.

    The caller sees to it that ``slot + T <= capacity``: past the end the update would be moved
    back over valid slots without a word.
    """

    def put(old: jax.Array, new: jax.Array) -> jax.Array:
        new = new.transpose(0, 2, 1, 3)
        if slot.ndim == 0:
            return jax.lax.dynamic_update_slice_in_dim(old, new, slot, axis=2)
        row = jax.vmap(lambda o, n, s: jax.lax.dynamic_update_slice_in_dim(o, n, s, axis=1))
        return row(old, new, slot)

    layers = tuple(
        layer._replace(tail_k=put(layer.tail_k, k), tail_v=put(layer.tail_v, v))
        for layer, (k, v) in zip(cache.layers, blocks, strict=True)
    )
    return replace(cache, layers=layers)
