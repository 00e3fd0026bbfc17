"""The named ways to rank visual tokens, behind one interface."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp

from hippo_jax.errors import HippoError
from hippo_jax.inputs.model_inputs import ModelInputs
from hippo_jax.scoring.config import Scope, ScoringConfig, Support
from hippo_jax.scoring.features import spatial_variance, temporal_change
from hippo_jax.scoring.fusion import holistic_scores
from hippo_jax.scoring.rows import floor_share, row_ordinals, row_spans, row_windows, table_size
from hippo_jax.scoring.selection import kept_counts, row_capacity, sortable


@dataclass(frozen=True)
class SelectionContext:
    """What a selector may look at.

    Attributes:
        inputs: the prompts.
        keep_ratio: share of the visual tokens to keep (static).
        relevance: attention of the text to each visual token, float32 ``[N]``, or ``None``.
        features: projected visual tokens ``[N, D]``, or ``None``.
        config: the scoring settings.

    Relevance and features are those of the model that ``needs`` names.
    """

    inputs: ModelInputs
    keep_ratio: float
    relevance: Any
    features: Any
    config: ScoringConfig


def needs(config: ScoringConfig) -> tuple[bool, bool, Literal["target", "draft"]]:
    """Whether relevance and features have to be computed, and whose. A callable gets both of the
    target."""
    if callable(config.selector):
        return True, True, "target"
    if config.selector in ("holistic", "draft"):
        features = config.temporal > 0 or config.spatial > 0
        return config.attention > 0, features, "draft" if config.selector == "draft" else "target"
    return config.selector == "specvlm", False, "target"


def support(config: ScoringConfig) -> Support:
    """The attention support in force, see ``ScoringConfig.attention_support``."""
    if config.attention_support is not None:
        return config.attention_support
    return "all" if config.selector == "specvlm" else "visual"


def scope(config: ScoringConfig) -> Scope:
    """The scope in force for ``select_tokens``, see ``ScoringConfig.scope``."""
    return "global" if config.selector in ("uniform", "specvlm") else config.scope


def selector_scores(context: SelectionContext) -> jax.Array:
    """Scores of ``config.selector``, float32 ``[N]``, for ``select_tokens``; 0 on padding.

    Raises:
        HippoError: relevance or features that the selector needs are missing, or a callable
            returned something else than one float a line of the table.
    """
    config, table = context.config, context.inputs.table
    if table_size(table) == 0:
        return jnp.zeros(0, jnp.float32)
    if callable(config.selector):
        scores = _called(context)
    else:
        relevance, features, _ = needs(config)
        if relevance and context.relevance is None:
            raise HippoError(f"the selector {config.selector!r} needs the attention relevance")
        if features and context.features is None:
            raise HippoError(f"the selector {config.selector!r} needs visual features")
        ways = {
            "holistic": _holistic,
            "draft": _holistic,
            "random": _random,
            "uniform": _uniform,
            "specvlm": _specvlm,
        }
        scores = ways[config.selector](context)
    return jnp.where(jnp.asarray(table.valid), scores, 0.0)


def _called(context: SelectionContext) -> jax.Array:
    assert callable(context.config.selector)
    given = context.config.selector(context)
    size = table_size(context.inputs.table)
    if not hasattr(given, "shape") or not hasattr(given, "dtype"):
        raise HippoError(
            f"the selector returned {type(given).__name__}; return an array of {size} float scores"
        )
    if given.shape != (size,) or not jnp.issubdtype(given.dtype, jnp.floating):
        raise HippoError(
            f"the selector returned {given.dtype}{list(given.shape)}; return float scores of shape "
            f"[{size}]"
        )
    return jnp.asarray(given).astype(jnp.float32)


def _holistic(context: SelectionContext) -> jax.Array:
    """The three scores of arXiv 2601.08273, those with a weight."""
    config, table = context.config, context.inputs.table
    temporal = spatial = None
    if config.temporal > 0:
        temporal = temporal_change(context.features, table, neighbour=config.neighbour)
    if config.spatial > 0:
        spatial = spatial_variance(context.features, table, crop=config.crop)
    return holistic_scores(
        context.relevance,
        temporal,
        spatial,
        table,
        weights=config.weights,
        normaliser=config.normaliser,
    )


def _random(context: SelectionContext) -> jax.Array:
    """Uniform noise that depends on the seed, the row and the place within it alone."""
    table = context.inputs.table
    key = jax.random.key(context.config.seed, impl="threefry2x32")

    def noise(row: jax.Array, place: jax.Array) -> jax.Array:
        own = jax.random.fold_in(jax.random.fold_in(key, row), place)
        return jax.random.uniform(own, (), jnp.float32)

    places = row_ordinals(table, context.inputs.batch)
    return jax.vmap(noise)(jnp.asarray(table.row), places)


def _uniform(context: SelectionContext) -> jax.Array:
    """1 for evenly spaced tokens of each row in table order, as many as are kept, else 0."""
    table, batch = context.inputs.table, context.inputs.batch
    _, count = row_spans(table, batch)
    row, place = jnp.asarray(table.row), row_ordinals(table, batch)
    budget = jnp.asarray(kept_counts(context.keep_ratio, row_capacity(context.inputs)))[count]
    # Padding lines count on past the row's end, where the exact division no longer holds.
    place = jnp.clip(place, 0, jnp.maximum(count[row] - 1, 0))
    total = jnp.maximum(count, 1)[row]
    after = floor_share(budget[row], place + 1, total)
    return (after > floor_share(budget[row], place, total)).astype(jnp.float32)


def _specvlm(context: SelectionContext) -> jax.Array:
    """The two stages of arXiv 2508.16201: 2 for tokens of stage one, 1 of stage two, else 0.

    Stage one takes the fewest tokens whose relevance reaches ``specvlm_mass`` of the row's total,
    cut to the budget. Stage two spreads the rest of the budget evenly over what is left, in table
    order, from its first token to its last.
    """
    inputs, config = context.inputs, context.config
    width = row_capacity(inputs)
    lines, own = row_windows(inputs.table, inputs.batch, width)
    relevance = jnp.where(own, jnp.asarray(context.relevance, jnp.float32)[lines], 0.0)
    count = jnp.sum(own, axis=1, dtype=jnp.int32)[:, None]
    budget = jnp.asarray(kept_counts(context.keep_ratio, width))[count]

    order = jnp.argsort(~sortable(relevance, own), axis=1)  # stable: the best first
    reached = jnp.cumsum(jnp.take_along_axis(relevance, order, axis=1), axis=1)
    before = jnp.pad(reached, ((0, 0), (1, 0)))[:, :-1]
    needed = before < config.specvlm_mass * reached[:, -1:]
    taken = jnp.minimum(jnp.sum(needed, axis=1, keepdims=True, dtype=jnp.int32), budget)
    rank = jnp.argsort(order, axis=1)
    first = rank < taken

    left, picks = count - taken, budget - taken
    pick = jnp.arange(width, dtype=jnp.int32)[None]
    spot = floor_share(jnp.maximum(left - 1, 0), pick, jnp.maximum(picks - 1, 1))
    spot = jnp.where(pick < picks, spot, width)
    chosen = jax.vmap(lambda spot: jnp.zeros(width, bool).at[spot].set(True, mode="drop"))(spot)
    remaining = own & ~first
    place = jnp.maximum(jnp.cumsum(remaining, axis=1) - 1, 0)
    second = remaining & jnp.take_along_axis(chosen, place, axis=1)
    by_row = jnp.where(first & own, 2.0, jnp.where(second, 1.0, 0.0))
    places = jnp.clip(row_ordinals(inputs.table, inputs.batch), 0, width - 1)
    return by_row[jnp.asarray(inputs.table.row), places]
