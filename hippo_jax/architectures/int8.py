"""Weight-only int8: a kernel as eight-bit integers, with one float32 scale for each output.

``weight = kernel * scale``, symmetric: ``scale`` is the largest magnitude of its output's column
over 127. Activations, sums, caches and all other weights stay as they are.

Quantized are the matrices inside of layers, projectors and mergers, of the decoder and of the
vision tower alike. Left alone are embeddings and heads (a tied head is the embedding, whose rows
are looked up too, and a head's errors go straight into the logits), the patch embedding (a small
convolution, the first that sees the pixels), tables of positions, norms and biases (small, added
or multiplied elementwise).

A kernel is converted to the dtype of the activations as it is used. Left to itself XLA converts it
before the loop that uses it, and whole kernels in full precision wait beside the small ones. On
accelerators a barrier ties the conversion to the activations of each step; the matmul behind it can
still take it in. (No accelerator has been looked at.) On a CPU, which would convert the kernels of
all layers at once even so, a loop converts some columns of each large kernel at a time.
"""

from __future__ import annotations

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from hippo_jax.architectures.platform import platform
from hippo_jax.errors import HippoError

M = TypeVar("M", bound=nnx.Module)

INT8 = "int8"
LARGEST = 127
# Numbers of a kernel that a CPU converts at a time: 1 MiB in float32. Kernels of so many are
# converted whole, which spares small models the loop.
CPU_TILE = 1 << 18
_COLUMNS = 64

_KERNELS = ("kernel", "qkv_kernel")
_LEFT_ALONE = (("decoder", "head"), ("vision", "patch_embedding"))


def check_quantize(quantize: Any) -> str | None:
    """``None`` or ``"int8"``.

    Raises:
        HippoError: anything else.
    """
    if quantize not in (None, INT8):
        raise HippoError(f'quantize {quantize!r}: use "int8", or None for weights as they are')
    return None if quantize is None else INT8


def scale_path(path: str) -> str:
    """Where the scales of the kernel at ``path`` are."""
    return f"{path}_scale"


def with_int8_kernels(model: M) -> M:
    """An abstract model whose kernels are int8 with scales beside them; changed in place."""
    for path, module in nnx.iter_modules(model):
        for name in _KERNELS:
            kernel = getattr(module, name, None)
            if kernel is None or tuple(path) in _LEFT_ALONE:
                continue
            axes, shape = kernel.get_metadata("axes"), kernel.get_value().shape
            small = jax.ShapeDtypeStruct(shape, jnp.int8)
            scale = jax.ShapeDtypeStruct(shape[1:], jnp.float32)
            setattr(module, name, nnx.Param(small, axes=axes))
            setattr(module, scale_path(name), nnx.data(nnx.Param(scale, axes=axes[1:])))
    return model


def int8_matmul(x: jax.Array, kernel: jax.Array, scale: jax.Array) -> jax.Array:
    """``x [..., in]`` times ``kernel [in, out] * scale [out]``: float32 ``[..., out]``.

    Sums are float32, for those of whole numbers up to 127 can be beyond float16.
    """
    large = platform() == "cpu" and kernel.size > CPU_TILE
    return (_by_columns if large else _at_once)(x, kernel) * scale


def _at_once(x: jax.Array, kernel: jax.Array) -> jax.Array:
    kernel, x = jax.lax.optimization_barrier((kernel, x))
    return jnp.matmul(x, kernel.astype(x.dtype), preferred_element_type=jnp.float32)


def _by_columns(x: jax.Array, kernel: jax.Array) -> jax.Array:
    inputs, outputs = kernel.shape
    width = max(_COLUMNS, CPU_TILE // inputs // _COLUMNS * _COLUMNS)
    width = min(width, -(-outputs // 2))  # a loop of one turn would be taken apart

    def add(index: jax.Array, y: jax.Array) -> jax.Array:
        start = jnp.minimum(index * width, outputs - width)  # the last may overlap the one before
        tile = jax.lax.dynamic_slice_in_dim(kernel, start, width, axis=1).astype(x.dtype)
        own = jnp.matmul(x, tile, preferred_element_type=jnp.float32)
        return jax.lax.dynamic_update_slice_in_dim(y, own, start, axis=y.ndim - 1)

    y = jnp.zeros((*x.shape[:-1], outputs), jnp.float32)
    return jax.lax.fori_loop(np.int32(0), np.int32(-(-outputs // width)), add, y)
