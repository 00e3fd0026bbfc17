"""From scores to the visual tokens that the draft keeps."""

from __future__ import annotations

from numbers import Real
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hippo_jax.errors import HippoError
from hippo_jax.inputs.model_inputs import ModelInputs
from hippo_jax.scoring.config import SCOPES, Scope, check_choice
from hippo_jax.scoring.rows import floor_share, row_windows, table_size


def check_keep_ratio(keep_ratio: Any) -> float:
    """``keep_ratio`` as a Python number; ``HippoError`` unless it is above 0 and at most 1."""
    number = isinstance(keep_ratio, Real) and not isinstance(keep_ratio, bool)
    if not (number and 0 < keep_ratio <= 1):
        raise HippoError(f"keep_ratio must be a number above 0 and at most 1, got {keep_ratio!r}")
    return float(keep_ratio)


def kept_counts(keep_ratio: float, n_max: int) -> np.ndarray:
    """How many of n visual tokens are kept, int32 ``[n_max + 1]`` for n from 0 on.

    ``ceil(keep_ratio * n)`` in double precision, so at least one of some and none of none. Made on
    the host: a device would round the product in float32.
    """
    ratio = check_keep_ratio(keep_ratio)
    return np.ceil(ratio * np.arange(n_max + 1)).astype(np.int32)


def row_capacity(inputs: ModelInputs) -> int:
    """The most visual tokens that a row of these shapes can have."""
    return min(table_size(inputs.table), inputs.token_ids.shape[1])


def kept_capacity(keep_ratio: float, inputs: ModelInputs) -> int:
    """Width K of what ``select_tokens`` returns: known from shapes alone."""
    return int(kept_counts(keep_ratio, row_capacity(inputs))[-1])


def select_tokens(
    scores: Any, inputs: ModelInputs, keep_ratio: float, *, scope: Scope = "global"
) -> jax.Array:
    """Which visual tokens of each row are kept.

    A row of n tokens keeps ``ceil(keep_ratio * n)``, so at least one. Of equal scores the earlier
    token wins; NaN counts as the lowest.

    Args:
        scores: float ``[N]``, one a line of ``inputs.table``.
        keep_ratio: static, above 0 and at most 1.
        scope: ``"global"``: a row's tokens compete with each other. ``"per_frame"``: the budget is
            split over the row's frames in proportion to their tokens, as evenly as whole numbers
            allow, and a frame's tokens compete with each other.

    Returns:
        int32 ``[B, K]``: the kept tokens, counted from 0 within the row, ascending, -1 behind them.
    """
    check_choice("scope", scope, SCOPES)
    table, width = inputs.table, row_capacity(inputs)
    counts = jnp.asarray(kept_counts(keep_ratio, width))
    capacity = kept_capacity(keep_ratio, inputs)
    if jnp.shape(scores) != (table_size(table),):
        raise HippoError(
            f"scores have shape {jnp.shape(scores)}, but the inputs have {table_size(table)} lines "
            "of visual tokens; give one score a line"
        )
    lines, own = row_windows(table, inputs.batch, width)
    if width == 0:
        return lines
    ranks = sortable(jnp.asarray(scores)[lines], own)
    count = jnp.sum(own, axis=1, dtype=jnp.int32)[:, None]
    budget = counts[count]
    if scope == "global":
        _, places = jax.lax.top_k(ranks, capacity)
        places = jnp.where(jnp.arange(capacity) < budget, places, width)
    else:
        places = _per_frame(ranks, inputs, lines, own, count, budget)
    places = jnp.sort(places, axis=1)[:, :capacity]
    return jnp.where(places < width, places, -1).astype(jnp.int32)


def sortable(scores: jax.Array, own: jax.Array) -> jax.Array:
    """int32 in the order of ``scores``: NaN like minus infinity, and below it what is not ``own``.

    Floats themselves leave no number below minus infinity, and sort NaN and the two zeros
    differently on different devices.
    """
    scores = scores.astype(jnp.float32)
    scores = jnp.where(jnp.isnan(scores), -jnp.inf, jnp.where(scores == 0, 0.0, scores))
    bits = jax.lax.bitcast_convert_type(scores, jnp.int32)
    # Negative floats grow in magnitude as their bits do: all but the sign is turned round.
    ordered = jnp.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    return jnp.where(own, ordered, jnp.iinfo(jnp.int32).min)


def _per_frame(
    ranks: jax.Array,
    inputs: ModelInputs,
    lines: jax.Array,
    own: jax.Array,
    count: jax.Array,
    budget: jax.Array,
) -> jax.Array:
    """Each frame's best tokens, ``[B, width]`` in any order; ``width`` for what is not kept.

    Frames take turns in the budget: up to and including a frame that ends at token c, a row keeps
    ``floor(budget * c / count)`` tokens.
    """
    table, width = inputs.table, lines.shape[1]
    places = jnp.broadcast_to(jnp.arange(width, dtype=jnp.int32), lines.shape)
    y, x = jnp.asarray(table.y)[lines], jnp.asarray(table.x)[lines]
    frame_width = jnp.asarray(table.width)[lines]
    first = jnp.where(own, places - (y * frame_width + x), width)
    size = jnp.asarray(table.height)[lines] * frame_width
    # Frames stay where they are; within each, the best token comes first.
    first, _, places, size = jax.lax.sort((first, ~ranks, places, size), dimension=1, num_keys=3)
    total = jnp.maximum(count, 1)
    quota = floor_share(budget, first + size, total) - floor_share(budget, first, total)
    keep = (jnp.arange(width) - first < quota) & (first < width)
    return jnp.where(keep, places, width)
