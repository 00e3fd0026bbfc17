"""The draft's prompt: all text, and of the visual tokens those that were kept."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp

from hippo_jax.inputs.model_inputs import ModelInputs
from hippo_jax.scoring.rows import row_spans


def kept_columns(inputs: ModelInputs, kept: jax.Array) -> jax.Array:
    """Prompt columns of the kept tokens: ``kept`` int32 ``[B, K]``, ordinals within the row and -1
    behind them, -> int32 ``[B, K]`` with -1 behind them."""
    start, _ = row_spans(inputs.table, inputs.token_ids.shape[0])
    line = start[:, None] + jnp.maximum(kept, 0)
    slots = jnp.asarray(inputs.table.slot)
    return jnp.where(kept >= 0, slots[jnp.minimum(line, slots.shape[0] - 1)], -1)


def prune(inputs: ModelInputs, kept: jax.Array, *, positions: str = "retained") -> ModelInputs:
    """The same prompts without the visual tokens that ``kept`` leaves out.

    Order is kept. ``visual_index`` still points into all visual tokens of the video, and ``table``
    still describes the whole prompt, so the vision tower runs as before.

    Args:
        kept: int32 ``[B, K]``, ordinals of the kept tokens within the row, -1 behind them.
        positions: ``"retained"``: rotary positions are those of the whole prompt. ``"packed"``:
            0, 1, 2, ... on all three axes.

    Returns:
        Inputs whose width is that of ``text_columns`` plus K, at most that of the whole prompt.
    """
    width = inputs.token_ids.shape[1]
    if kept.shape[1] == 0:  # no visual tokens at all
        return inputs
    sources = [jnp.asarray(inputs.text_columns), kept_columns(inputs, kept)]
    joined = jnp.concatenate(sources, axis=1)
    # Text and kept tokens have buckets of their own; together they are never more than the prompt.
    columns = jnp.sort(jnp.where(joined < 0, width, joined), axis=1)[:, :width]
    valid = columns < width
    columns = jnp.minimum(columns, width - 1)
    lengths = jnp.sum(valid, axis=1).astype(jnp.int32)

    def take(x: jax.Array, empty: int) -> jax.Array:
        return jnp.where(valid, jnp.take_along_axis(jnp.asarray(x), columns, axis=1), empty)

    if positions == "packed":
        places = jnp.broadcast_to(jnp.arange(columns.shape[1], dtype=jnp.int32), columns.shape)
        rotary = jnp.broadcast_to(places, (3, *columns.shape))
        following = lengths
    else:
        rotary = jax.vmap(lambda axis: take(axis, 0))(jnp.asarray(inputs.positions))
        following = jnp.asarray(inputs.next_position)

    def moved(old: jax.Array) -> jax.Array:
        """Where columns of text stand now."""
        old = jnp.asarray(old)
        at = jax.vmap(jnp.searchsorted)(jnp.where(valid, columns, width), old)
        return jnp.where(old < 0, -1, at.astype(jnp.int32))

    return replace(
        inputs,
        token_ids=take(inputs.token_ids, 0),
        lengths=lengths,
        positions=rotary,
        next_position=following,
        visual_index=take(inputs.visual_index, -1),
        text_columns=moved(inputs.text_columns),
        query_columns=moved(inputs.query_columns),
    )
