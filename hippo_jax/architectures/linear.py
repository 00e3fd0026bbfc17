"""The linear layer: the only place where a matrix of weights meets activations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from flax import nnx

from hippo_jax.architectures.int8 import int8_matmul
from hippo_jax.architectures.parameters import weight

if TYPE_CHECKING:
    from hippo_jax.architectures.tensor_parallel import Shards


class Linear(nnx.Module):
    """``x [..., in] -> [..., out]``.

    The kernel is stored ``[in, out]``, the transpose of torch's. With two to sixteen rows, as in
    verification of a draft, XLA's CPU matmul reads this layout up to twice as fast as ``[out, in]``
    (measured: 12 gated MLPs of 768 x 2048, 2 cores, 4 rows 13.7 against 19.7 ms, 16 rows 23 against
    47 ms; equal at one row). With ``kernel_scale`` it is int8 (see ``int8``).
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        axes: tuple[str | None, str | None],
        *,
        bias: bool,
        rngs: nnx.Rngs,
    ) -> None:
        self.in_features = in_features
        self.shards: Shards | None = None
        self.kernel = weight(rngs, (in_features, out_features), axes)
        self.kernel_scale: nnx.Param[jax.Array] | None = None
        self.bias = weight(rngs, (out_features,), axes[1:], "zeros") if bias else None

    def __call__(self, x: jax.Array, out_dtype: Any = None) -> jax.Array:
        """``out_dtype``: of the sums and the result; default that of ``x``."""
        kernel = self.kernel[...]
        if self.kernel_scale is None:
            y = jnp.matmul(x, kernel, preferred_element_type=out_dtype)
        else:
            y = int8_matmul(x, kernel, self.kernel_scale[...])
            y = y.astype(x.dtype if out_dtype is None else out_dtype)
        if self.shards is not None and kernel.shape[0] < self.in_features:
            y = self.shards.sum(y)
        return y if self.bias is None else y + self.bias[...]
