"""What the device can do at best: bytes copied and products computed a second.

A step of decoding reads the weights once and does little with them, so it cannot be faster than
memory; a prefill does thousands of operations with each weight, so it cannot be faster than the
matrix units. Every figure of the benchmark is a fraction of one of these two.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from hippo_jax.architectures.platform import platform
from hippo_jax.benchmark.measure import Run

COPY, MATMUL = "copy_gb_per_s", "matmul_gflop_per_s"
CEILINGS = "ceilings"
COPIED_BYTES = {"cpu": 2**28, "other": 2**31}
SIDES: Mapping[str, tuple[tuple[int, int, int], ...]] = {  # rows, inner, columns of a product
    "cpu": ((2048, 2048, 2048), (1024, 768, 4096)),
    "other": ((8192, 8192, 8192), (16384, 5120, 27648)),
}
TIMES = 3  # in each turn, of which the fastest counts: a ceiling is what can be reached


def ceilings(dtype: Any) -> Run:
    """The two rates on the default device, for weights of ``dtype``.

    ``copy_gb_per_s``: bytes read and bytes written, of an array that fits no cache.
    ``matmul_gflop_per_s``: of large products in ``dtype``, the best of the shapes in ``SIDES``;
    the precision of float32 products is jax's default.
    """
    kind = "cpu" if platform() == "cpu" else "other"
    count = COPIED_BYTES[kind] // jnp.dtype(dtype).itemsize
    # Into memory that is there already: new pages would be most of the time.
    copied = [jnp.zeros((count,), dtype), jnp.ones((count,), dtype)]
    moved = 2 * copied[0].nbytes
    into = jax.jit(lambda x, place: x + jnp.ones((), x.dtype), donate_argnums=1, keep_unused=True)
    copy = into.lower(*copied).compile()
    products = []
    for rows, inner, columns in SIDES[kind]:
        left, right = jnp.ones((rows, inner), dtype), jnp.ones((inner, columns), dtype)
        program = jax.jit(jnp.matmul).lower(left, right).compile()
        products.append((program, left, right, 2 * rows * inner * columns))

    def run() -> dict[str, float]:
        best = max(work / _seconds(program, a, b) for program, a, b, work in products)
        return {COPY: moved / _copy_seconds(copy, copied) / 1e9, MATMUL: best / 1e9}

    return run


def _copy_seconds(program: Any, copied: list[jax.Array]) -> float:
    taken = []
    for _ in range(TIMES):
        begin = time.perf_counter()
        copied[1] = jax.block_until_ready(program(*copied))
        taken.append(time.perf_counter() - begin)
    return min(taken)


def _seconds(program: Any, *arguments: Any) -> float:
    taken = []
    for _ in range(TIMES):
        begin = time.perf_counter()
        jax.block_until_ready(program(*arguments))
        taken.append(time.perf_counter() - begin)
    return min(taken)
