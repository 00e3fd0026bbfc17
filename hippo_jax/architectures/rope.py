"""Rotary position embeddings: one-axis, M-RoPE in chunks (Qwen2.x-VL) and interleaved (Qwen3-VL).

M-RoPE (arXiv 2409.12191, section 2.1) gives every token a temporal, a vertical and a horizontal
position and lets each rotary frequency follow one of the three.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hippo_jax.architectures.config import DecoderConfig, VideoLMConfig
from hippo_jax.architectures.platform import platform

LOOPED = 1024  # angles from which on ``cos_and_sin`` takes a loop: those of a prompt


class Rotary(NamedTuple):
    """cos and sin, float32, broadcastable to ``[B, T, heads, head_dim]``."""

    cos: jax.Array
    sin: jax.Array


def axis_of_frequency(config: DecoderConfig) -> np.ndarray:
    """Which position axis (0 t, 1 h, 2 w) each of the ``head_dim / 2`` frequencies follows."""
    half = config.head_dim // 2
    section = config.mrope_section
    if not section:
        return np.zeros(half, np.int32)
    if not config.mrope_interleaved:
        return np.repeat(np.arange(3, dtype=np.int32), section)
    # Interleaved: t h w t h w ...; where h or w has used up its share, t takes the rest.
    axes = np.zeros(half, np.int32)
    axes[1 : 3 * section[1] : 3] = 1
    axes[2 : 3 * section[2] : 3] = 2
    return axes


def rotary_tables(config: DecoderConfig, positions: jax.Array) -> Rotary:
    """Tables for ``positions [3, B, T]`` (t, h, w)."""
    half = config.head_dim // 2
    inverse = 1.0 / config.rope_theta ** (np.arange(half, dtype=np.float32) / np.float32(half))
    chosen = positions.astype(jnp.float32)[axis_of_frequency(config)]  # [half, B, T]
    angles = jnp.moveaxis(chosen, 0, -1) * jnp.asarray(inverse, jnp.float32)  # [B, T, half]
    cos, sin = cos_and_sin(angles)
    return Rotary(cos[:, :, None, :], sin[:, :, None, :])


def cos_and_sin(angles: jax.Array) -> Rotary:
    """Both of ``angles``, of the same shape, float32.

    XLA's CPU backend would work them out anew in every layer and for every head, as part of what
    uses them: 4 % of a prefill. What a loop has made it leaves alone, so a loop of two turns makes
    each half of the frequencies.
    """
    half = angles.shape[-1] // 2
    if platform() != "cpu" or angles.size < LOOPED or 2 * half != angles.shape[-1]:
        return Rotary(jnp.cos(angles), jnp.sin(angles))
    parts = jnp.stack([angles[..., :half], angles[..., half:]])
    both = jax.lax.map(lambda part: (jnp.cos(part), jnp.sin(part)), parts)
    return Rotary(*(jnp.concatenate([*two], axis=-1) for two in both))


def rotate(x: jax.Array, rotary: Rotary) -> jax.Array:
    """Rotate ``x [B, T, heads, head_dim]`` in float32; halves pair up, not neighbours."""
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    cos, sin = rotary
    rotated = (first * cos - second * sin, second * cos + first * sin)
    return jnp.concatenate(rotated, axis=-1).astype(x.dtype)


def one_axis_positions(
    config: VideoLMConfig, token_ids: np.ndarray, media: Sequence[Any]
) -> tuple[np.ndarray, int]:
    """``Family.rope_positions`` of families with ordinary RoPE: every token one behind the other,
    on three equal axes."""
    length = len(token_ids)
    return np.tile(np.arange(length, dtype=np.int32), (3, 1)), length
