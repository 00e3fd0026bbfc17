"""Forwards of one model against its cache in a compiled loop: what a round's steps take."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from hippo_jax.architectures import cache as kv
from hippo_jax.architectures.tensor_parallel import on_devices
from hippo_jax.architectures.video_lm import VideoLM
from hippo_jax.decoding.sampling import likeliest


def compiled_forwards(
    model: VideoLM, cache: kv.KVCache, next_position: Any, width: int, steps: int
) -> Callable[[], jax.Array]:
    """``steps`` forwards of ``width`` tokens a row, each fed what the one before found likeliest,
    ready to be called as often as wanted.

    Args:
        cache: filled by a prefill, with room for ``width`` tokens.
        next_position: int32 ``[B]``, where each row goes on.
    """
    compiled = _forwards.lower(model, cache, next_position, width, steps).compile()
    return lambda: compiled(model, cache, next_position)


@partial(jax.jit, static_argnames=("width", "steps"))
def _forwards(
    model: VideoLM, cache: kv.KVCache, next_position: jax.Array, width: int, steps: int
) -> jax.Array:
    batch, room = next_position.shape[0], cache.capacity - width + 1

    def local(model: VideoLM, cache: kv.KVCache, next_position: jax.Array) -> jax.Array:
        def step(number: Any, carry: tuple[jax.Array, kv.KVCache]) -> tuple[jax.Array, kv.KVCache]:
            fed, cache = carry
            slot = jnp.full((batch,), number % room, jnp.int32)
            places = (next_position + slot)[:, None] + jnp.arange(width)
            positions = jnp.broadcast_to(places, (3, batch, width))
            logits, blocks = model.forward_block(fed, positions, cache, slot)
            return likeliest(logits), kv.write(cache, blocks, slot)

        fed = jnp.zeros((batch, width), jnp.int32)
        return jax.lax.fori_loop(0, steps, step, (fed, cache))[0]

    return on_devices(local, (model,), cache, next_position)
