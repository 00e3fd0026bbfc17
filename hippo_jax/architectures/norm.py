"""Root-mean-square normalisation in float32."""

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
