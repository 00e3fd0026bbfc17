"""Normalisation in float32: by the root mean square, or by mean and variance."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from hippo_jax.architectures.parameters import weight


class RMSNorm(nnx.Module):
    """Normalise the last axis in float32, cast back, then scale.

    The cast comes before the scale because the checkpoints were trained that way: in bfloat16 the
    two orders differ.
    """

    def __init__(self, size: int, eps: float, axis: str | None, *, rngs: nnx.Rngs) -> None:
        self.weight = weight(rngs, (size,), (axis,), "ones")
        self.eps = eps

    def __call__(self, x: jax.Array) -> jax.Array:
        x32 = x.astype(jnp.float32)
        mean_square = jnp.mean(jnp.square(x32), axis=-1, keepdims=True)
        return (x32 * jax.lax.rsqrt(mean_square + self.eps)).astype(x.dtype) * self.weight[...]


class LayerNorm(nnx.Module):
    """Mean 0 and variance 1 over the last axis in float32, then scale and shift, then cast back."""

    def __init__(self, size: int, eps: float, axis: str | None, *, rngs: nnx.Rngs) -> None:
        self.weight = weight(rngs, (size,), (axis,), "ones")
        self.bias = weight(rngs, (size,), (axis,), "zeros")
        self.eps = eps

    def __call__(self, x: jax.Array) -> jax.Array:
        x32 = x.astype(jnp.float32)
        centred = x32 - jnp.mean(x32, axis=-1, keepdims=True)
        variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
        scaled = centred * jax.lax.rsqrt(variance + self.eps) * self.weight[...].astype(jnp.float32)
        return (scaled + self.bias[...].astype(jnp.float32)).astype(x.dtype)
