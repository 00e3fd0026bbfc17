"""The flat table of visual tokens, seen row by row and frame by frame.

All scores are one float32 a line of the table. Everything here is cut out by index arithmetic, so
that shapes stay static; what a row gets depends neither on its batch mates nor on bucket padding.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from hippo_jax.inputs.model_inputs import VisualTable


def table_size(table: VisualTable) -> int:
    """Lines of the table, padding included (static)."""
    return table.valid.shape[0]


def frame_starts(table: VisualTable) -> jax.Array:
    """Line of the first token of each token's frame, int32 ``[N]``: also a number that no other
    frame has. A padding line is a frame of its own."""
    inside = jnp.asarray(table.y) * jnp.asarray(table.width) + jnp.asarray(table.x)
    return jnp.arange(table_size(table), dtype=jnp.int32) - inside


def row_spans(table: VisualTable, batch: int) -> tuple[jax.Array, jax.Array]:
    """First line and number of visual tokens of each row, int32 ``[B]`` both."""
    own = jnp.asarray(table.valid).astype(jnp.int32)
    count = jax.ops.segment_sum(own, jnp.asarray(table.row), num_segments=batch)
    return jnp.cumsum(count) - count, count


def row_windows(table: VisualTable, batch: int, width: int) -> tuple[jax.Array, jax.Array]:
    """Each row's own lines in order.

    Returns the lines, int32 ``[B, width]`` (clipped behind the row's last), and which of them are
    the row's own, bool ``[B, width]``. No row may have more than ``width`` tokens.
    """
    start, count = row_spans(table, batch)
    places = jnp.arange(width, dtype=jnp.int32)
    lines = jnp.minimum(start[:, None] + places, max(table_size(table) - 1, 0))
    return lines, places < count[:, None]


def row_ordinals(table: VisualTable, batch: int) -> jax.Array:
    """Place of each token within its row, int32 ``[N]``; any number on padding."""
    start, _ = row_spans(table, batch)
    return jnp.arange(table_size(table), dtype=jnp.int32) - start[jnp.asarray(table.row)]


def floor_share(a: jax.Array, b: jax.Array, n: jax.Array) -> jax.Array:
    """``floor(a * b / n)``, exact in int32 for whole numbers below 2^20 (``n`` at least 1).

    The product itself would overflow from 46341 tokens on, so it is divided nine bits at a time.
    """
    high = a * (b >> 9)
    rest = (high % n << 9) + a * (b & 511)
    return (high // n << 9) + rest // n
