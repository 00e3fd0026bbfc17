"""How much a visual token differs from its neighbours in time and in space.

Both scores work with half the squared distance of unit vectors, which is 1 - cos without its
cancellation: equal vectors are exactly 0 apart.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hippo_jax.errors import HippoError
from hippo_jax.inputs.model_inputs import VisualTable
from hippo_jax.scoring.config import NEIGHBOURS, Neighbour, check_choice, check_crop
from hippo_jax.scoring.rows import table_size

# Vectors nearer than this (1.4e-5 of their length) are equal up to the rounding of float32. A
# still frame would otherwise get tiny scores that normalising makes as large as any. One bfloat16
# step in one of thousands of numbers of like size is already more.
SAME = 1e-10

Apart = Callable[[jax.Array], jax.Array]
"""``apart(lines int32 [N]) -> [N]``: 1 - cos between each token and the token at ``lines``."""


def _distances(features: jax.Array) -> Apart:
    """1 - cos between lines of ``features [N, D]``; a zero vector is at right angles to all but
    another zero vector."""
    rows = features.astype(jnp.float32)
    # Divided by its largest number first: squares of large bfloat16 numbers leave float32.
    largest = jnp.max(jnp.abs(rows), axis=1, keepdims=True)
    zero = largest < jnp.finfo(jnp.float32).tiny
    rows = jnp.where(zero, 0.0, rows / jnp.where(zero, 1.0, largest))
    length = jnp.sqrt(jnp.sum(rows * rows, axis=1, keepdims=True))
    unit = rows / jnp.where(zero, 1.0, length)

    def apart(lines: jax.Array) -> jax.Array:
        step = 0.5 * jnp.sum(jnp.square(unit - unit[lines]), axis=1)
        # Half of the squared distance from zero to a unit vector is 1/2, but cos is 0.
        step = jnp.where((zero != zero[lines])[:, 0], 1.0, step)
        return jnp.where(step < SAME, 0.0, step)

    return apart


def temporal_change(
    features: Any, table: VisualTable, *, neighbour: Neighbour = "previous"
) -> jax.Array:
    """1 - cos between a visual token and the token at the same place of a neighbouring frame.

    Args:
        features: projected visual tokens ``[N, D]``.
        neighbour: ``"previous"``, ``"next"`` or ``"both"`` (the mean of those that exist). A frame
            without the one asked for takes the other one.

    Returns:
        float32 ``[N]`` from 0 to 2; 0 for a single frame or an image, and on padding.
    """
    check_choice("neighbour", neighbour, NEIGHBOURS)
    return _temporal_change(_checked(features, table), table, neighbour)


@partial(jax.jit, static_argnames="neighbour")
def _temporal_change(features: jax.Array, table: VisualTable, neighbour: Neighbour) -> jax.Array:
    return change_between_frames(features, table, neighbour)


def change_between_frames(
    features: jax.Array, table: VisualTable, neighbour: Neighbour
) -> jax.Array:
    """``temporal_change`` without its checks."""
    lines, apart = jnp.arange(table_size(table)), _distances(features)
    tokens = jnp.asarray(table.height) * jnp.asarray(table.width)
    before = jnp.asarray(table.valid) & (table.frame > 0)
    after = jnp.asarray(table.valid) & (table.frame + 1 < table.frames)

    if neighbour == "both":
        total = jnp.where(before, apart(jnp.where(before, lines - tokens, lines)), 0.0)
        total += jnp.where(after, apart(jnp.where(after, lines + tokens, lines)), 0.0)
        return total / jnp.maximum(before.astype(jnp.float32) + after, 1.0)
    backwards = before if neighbour == "previous" else before & ~after
    other = jnp.where(backwards, lines - tokens, lines + tokens)
    exists = before | after
    return jnp.where(exists, apart(jnp.where(exists, other, lines)), 0.0)


def spatial_variance(features: Any, table: VisualTable, *, crop: int = 5) -> jax.Array:
    """Population variance of the cosines between a visual token and those around it.

    Around it is the window of ``crop x crop`` tokens of the same frame with the token in its
    middle, cut off at the border, the token itself left out.

    Args:
        features: projected visual tokens ``[N, D]``.
        crop: side of the window, odd, at least 3.

    Returns:
        float32 ``[N]``; 0 where nothing is around, and on padding.
    """
    check_crop(crop)
    return _spatial_variance(_checked(features, table), table, crop)


@partial(jax.jit, static_argnames="crop")
def _spatial_variance(features: jax.Array, table: VisualTable, crop: int) -> jax.Array:
    return variance_in_crops(features, table, crop)


def variance_in_crops(features: jax.Array, table: VisualTable, crop: int) -> jax.Array:
    """``spatial_variance`` without its checks.

    A distance serves both of its ends, so only half of the window's offsets are walked. The
    variance is updated with each (Welford), since the difference of two large sums would lose a
    small one.
    """
    size, reach = table_size(table), crop // 2
    lines, apart = jnp.arange(size), _distances(features)
    valid = jnp.asarray(table.valid)

    def inside(dy: jax.Array, dx: jax.Array) -> jax.Array:
        y, x = table.y + dy, table.x + dx
        return valid & (y >= 0) & (y < table.height) & (x >= 0) & (x < table.width)

    def update(
        state: tuple[jax.Array, jax.Array, jax.Array], value: jax.Array, counts: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        number, mean, squares = state
        number = number + counts
        off = jnp.where(counts, value - mean, 0.0)
        mean = mean + off / jnp.maximum(number, 1.0)
        return number, mean, squares + off * (value - mean)

    def step(
        state: tuple[jax.Array, jax.Array, jax.Array], offset: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array, jax.Array], None]:
        dy, dx = offset
        shift = dy * jnp.asarray(table.width) + dx
        there, back = inside(dy, dx), inside(-dy, -dx)
        value = apart(jnp.where(there, lines + shift, lines))
        state = update(state, value, there)
        return update(state, value[jnp.where(back, lines - shift, lines)], back), None

    offsets = np.array(
        [
            (dy, dx)
            for dy in range(reach + 1)
            for dx in range(-reach, reach + 1)
            if (dy, dx) > (0, 0)
        ],
        np.int32,
    )
    start = (jnp.zeros(size, jnp.float32),) * 3
    (number, _, squares), _ = jax.lax.scan(step, start, jnp.asarray(offsets))
    return squares / jnp.maximum(number, 1.0)


def _checked(features: Any, table: VisualTable) -> jax.Array:
    shape = jnp.shape(features)
    if len(shape) != 2 or shape[0] != table_size(table):
        raise HippoError(
            f"features have shape {shape}, but the inputs have {table_size(table)} lines of visual "
            "tokens; give [N, D], as `encode_video` returns them"
        )
    return jnp.asarray(features)
