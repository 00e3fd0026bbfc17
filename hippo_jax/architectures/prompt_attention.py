"""By which kernel a prompt attends to itself: our blocks, or cuDNN's fused attention."""

from __future__ import annotations

from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from hippo_jax.architectures.attention import causal_attention
from hippo_jax.architectures.platform import platform
from hippo_jax.errors import HippoError

Kernel = Literal["blocks", "cudnn"]
IMPLEMENTATION: Literal["cudnn", "xla"] = "cudnn"  # of jax.nn; tests run the same call through XLA


def check_kernel(kernel: str, dtype: Any) -> None:
    """
    Args:
        dtype: that the model computes in.

    Raises:
        HippoError: there is no such kernel, or not here, or not in this dtype.
    """
    if kernel not in get_args(Kernel):
        raise HippoError(f"attention {kernel!r}: use one of {', '.join(get_args(Kernel))}")
    if kernel == "blocks":
        return
    if IMPLEMENTATION == "cudnn" and platform() != "gpu":
        raise HippoError(f"attention 'cudnn' needs an NVIDIA GPU, this is a {platform()}")
    if dtype not in (jnp.bfloat16, jnp.float16):
        raise HippoError(
            f"attention 'cudnn' computes in bfloat16 or float16, the model is in {dtype}"
        )


def prompt_attention(q: jax.Array, k: jax.Array, v: jax.Array, kernel: Kernel) -> jax.Array:
    """Causal self-attention of whole prompts that are padded on the right.

    Args:
        q, k, v: ``[B, T, N, H]``, ``[B, T, K, H]``.
        kernel: ``"blocks"`` runs everywhere and writes a block of scores after the other;
            ``"cudnn"`` never writes scores, on NVIDIA GPUs, in bfloat16 or float16.

    Returns ``[B, T, N, H]``.

    Raises:
        HippoError: cuDNN cannot do it.
    """
    check_kernel(kernel, q.dtype)
    if kernel == "blocks":
        return causal_attention(q, k, v)
    try:
        return jax.nn.dot_product_attention(q, k, v, is_causal=True, implementation=IMPLEMENTATION)
    except (RuntimeError, NotImplementedError, ValueError) as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise HippoError(f"cuDNN refuses this attention: {said[0]}; use 'blocks'") from error
