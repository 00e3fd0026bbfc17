"""Milliseconds of a forward of a model against its cache."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax

from hippo_jax.architectures import cache as kv
from hippo_jax.architectures.video_lm import VideoLM
from hippo_jax.benchmark.measure import Run
from hippo_jax.scheduling.forwards import compiled_forwards

STEPS = 32  # forwards of one measurement


def milliseconds(call: Callable[[], Any], count: int = 1) -> Run:
    """Wall time of one of the ``count`` things that ``call`` does, as ``"ms"``."""

    def run() -> dict[str, float]:
        begin = time.perf_counter()
        jax.block_until_ready(call())
        return {"ms": 1e3 * (time.perf_counter() - begin) / count}

    return run


def forwards(model: VideoLM, cache: kv.KVCache, next_position: Any, width: int) -> Run:
    """A forward of ``width`` tokens a row, by ``STEPS`` of them."""
    return milliseconds(compiled_forwards(model, cache, next_position, width, STEPS), STEPS)
