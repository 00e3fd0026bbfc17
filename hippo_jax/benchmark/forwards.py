"""Milliseconds of a forward of a model against its cache."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from hippo_jax.architectures import cache as kv
from hippo_jax.architectures.tensor_parallel import on_devices
from hippo_jax.architectures.video_lm import VideoLM
from hippo_jax.benchmark.measure import Run

STEPS = 32  # forwards of one measurement


def milliseconds(call: Callable[[], Any], count: int = 1) -> Run:
    """Wall time of one of the ``count`` things that ``call`` does, as ``"ms"``."""

    def run() -> dict[str, float]:
        begin = time.perf_counter()
        jax.block_until_ready(call())
        return {"ms": 1e3 * (time.perf_counter() - begin) / count}

    return run


def forwards(model: VideoLM, cache: kv.KVCache, next_position: Any, width: int) -> Run:
    """``STEPS`` forwards of ``width`` tokens, each fed what the one before found likeliest."""
    room = cache.capacity - width + 1

    def local(model: VideoLM, cache: kv.KVCache, next_position: Any) -> Any:
        def step(number: Any, carry: tuple[Any, kv.KVCache]) -> tuple[Any, kv.KVCache]:
            fed, cache = carry
            slot = jnp.full((1,), number % room, jnp.int32)
            places = (next_position + slot)[:, None] + jnp.arange(width)
            positions = jnp.broadcast_to(places, (3, 1, width))
            logits, blocks = model.forward_block(fed, positions, cache, slot)
            return jnp.argmax(logits, axis=-1).astype(jnp.int32), kv.write(cache, blocks, slot)

        fed = jnp.zeros((1, width), jnp.int32)
        return jax.lax.fori_loop(0, STEPS, step, (fed, cache))[0]

    program = jax.jit(lambda model, *rest: on_devices(local, (model,), *rest))
    compiled = program.lower(model, cache, next_position).compile()
    return milliseconds(lambda: compiled(model, cache, next_position), STEPS)
