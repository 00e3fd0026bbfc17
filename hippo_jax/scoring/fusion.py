"""Scores made comparable within each frame and added."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from hippo_jax.errors import HippoError
from hippo_jax.inputs.model_inputs import VisualTable
from hippo_jax.scoring.config import NORMALISERS, Normaliser, check_choice, check_weight
from hippo_jax.scoring.rows import frame_starts, table_size

# A frame whose scores differ by less than this share of the largest has one score and rounding.
FLAT = 1e-6


def normalise(scores: Any, table: VisualTable, normaliser: Normaliser = "minmax") -> jax.Array:
    """Scores ``[N]`` on a common scale within each frame, float32 ``[N]``; 0 on padding.

    Args:
        normaliser: ``"minmax"``: from 0 to 1; ``"zscore"``: mean 0 and (population) standard
            deviation 1; ``"none"``: as they are. A frame of one and the same score gives 0.
    """
    check_choice("normaliser", normaliser, NORMALISERS)
    size, valid = table_size(table), jnp.asarray(table.valid)
    scores = jnp.where(valid, jnp.asarray(scores, jnp.float32), 0.0)
    if normaliser == "none" or size == 0:
        return scores
    frame = frame_starts(table)
    lowest = jax.ops.segment_min(scores, frame, num_segments=size)[frame]
    highest = jax.ops.segment_max(scores, frame, num_segments=size)[frame]
    flat = highest - lowest <= FLAT * jnp.maximum(jnp.abs(highest), jnp.abs(lowest))
    if normaliser == "minmax":
        middle, spread = lowest, highest - lowest
    else:

        def mean(values: jax.Array) -> jax.Array:
            return jax.ops.segment_sum(values, frame, num_segments=size)[frame] / tokens

        tokens = jnp.maximum(jnp.asarray(table.height) * jnp.asarray(table.width), 1)
        middle = mean(scores)
        spread = jnp.sqrt(mean(jnp.square(scores - middle)))
    return jnp.where(flat, 0.0, (scores - middle) / jnp.where(flat, 1.0, spread))


def holistic_scores(
    attention: Any,
    temporal: Any,
    spatial: Any,
    table: VisualTable,
    *,
    weights: tuple[float, float, float] = (1.0, 1.0, 1.0),
    normaliser: Normaliser = "minmax",
) -> jax.Array:
    """The weighted sum of three scores, each normalised within its frame.

    Args:
        attention, temporal, spatial: float ``[N]`` each; ``None`` is allowed at weight 0.
        weights: theirs, in this order; at least 0, not all 0.

    Returns:
        float32 ``[N]``; 0 on padding.
    """
    total = jnp.zeros(table_size(table), jnp.float32)
    names = ("attention", "temporal", "spatial")
    if len(weights) != len(names):
        raise HippoError(f"weights must be three numbers, got {len(weights)}")
    for name, scores, weight in zip(names, (attention, temporal, spatial), weights, strict=True):
        check_weight(f"the weight of {name}", weight)
        if weight == 0:
            continue
        if scores is None:
            raise HippoError(f"no {name} scores are given; give them or set their weight to 0")
        if jnp.shape(scores) != total.shape:
            raise HippoError(
                f"{name} scores have shape {jnp.shape(scores)}, but there are {total.shape[0]} "
                "lines of visual tokens; give one score a line"
            )
        total += weight * normalise(scores, table, normaliser)
    if not any(weights):
        raise HippoError("all weights are 0; weigh at least one score")
    return total
