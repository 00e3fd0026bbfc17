"""Parts that the vision towers of Qwen-VL share: patches in one list, axial RoPE, merging."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from hippo_jax.architectures.attention import segment_attention
from hippo_jax.architectures.int8 import int8_matmul
from hippo_jax.architectures.linear import Linear
from hippo_jax.architectures.norm import LayerNorm
from hippo_jax.architectures.parameters import weight
from hippo_jax.architectures.rope import Rotary, cos_and_sin, rotate

EPS = 1e-6  # the references fix it; no config field
THETA = 10000.0


class TowerSizes(Protocol):
    """What these parts read of a family's vision config."""

    @property
    def hidden_size(self) -> int: ...
    @property
    def num_heads(self) -> int: ...
    @property
    def intermediate_size(self) -> int: ...
    @property
    def out_hidden_size(self) -> int: ...
    @property
    def merge_size(self) -> int: ...


def vision_axes(vision: TowerSizes) -> dict[str, int]:
    """Logical axes of the tower that may be split over devices, with the units of each."""
    return {
        "vision_heads": vision.num_heads,
        "vision_mlp": vision.intermediate_size,
        "vision_joined": vision.hidden_size * vision.merge_size**2,
    }


def axial_rotary(vision: TowerSizes, coordinates: jax.Array) -> Rotary:
    """Axial RoPE tables for patches at ``coordinates [P, 2]``: half the frequencies follow the
    row, half the column. Float32, shaped ``[P, 1, head_dim / 2]``."""
    quarter = vision.hidden_size // vision.num_heads // 4
    inverse = 1.0 / THETA ** (np.arange(quarter, dtype=np.float32) / np.float32(quarter))
    angles = coordinates.astype(jnp.float32)[:, :, None] * jnp.asarray(inverse, jnp.float32)
    angles = angles.reshape(coordinates.shape[0], 1, 2 * quarter)
    return cos_and_sin(angles)


class PackedAttention(nnx.Module):
    """Biased attention with packed q, k, v, inside windows or frames."""

    def __init__(self, vision: TowerSizes, *, rngs: nnx.Rngs) -> None:
        size = vision.hidden_size
        self.qkv_kernel = weight(rngs, (size, 3, size), ("vision_embed", None, "vision_heads"))
        self.qkv_kernel_scale: nnx.Param[jax.Array] | None = None
        self.qkv_bias = weight(rngs, (3, size), (None, "vision_heads"), "zeros")
        self.output = Linear(size, size, ("vision_heads", "vision_embed"), bias=True, rngs=rngs)
        self.num_heads = vision.num_heads
        self.head_dim = size // vision.num_heads

    def __call__(
        self, x: jax.Array, rotary: Rotary, groups: Sequence[jax.Array], place: jax.Array
    ) -> jax.Array:
        patches = x.shape[0]
        packed = self._projected(x) + self.qkv_bias[...]
        q, k, v = (packed[:, i].reshape(patches, -1, self.head_dim) for i in range(3))
        context = segment_attention(rotate(q, rotary), rotate(k, rotary), v, groups, place)
        return self.output(context.reshape(patches, -1))

    def _projected(self, x: jax.Array) -> jax.Array:
        """``[P, 3, heads * head_dim]``, the heads of this device."""
        kernel = self.qkv_kernel[...]
        if self.qkv_kernel_scale is None:
            # Contracted as it is stored: a reshape would join a split axis to a whole one.
            return jnp.einsum("pd,dks->pks", x, kernel)
        # In shard_map, as everywhere, the arrays here are a device's own.
        flat, scale = kernel.reshape(kernel.shape[0], -1), self.qkv_kernel_scale[...].reshape(-1)
        return int8_matmul(x, flat, scale).astype(x.dtype).reshape(x.shape[0], *kernel.shape[1:])


class MLP(nnx.Module):
    """``output(activation(inner(x)))``, biased; ``sizes`` and logical ``axes`` of input, middle and
    output."""

    def __init__(
        self, sizes: tuple[int, int, int], axes: tuple[str, str, str], *, rngs: nnx.Rngs
    ) -> None:
        self.inner = Linear(sizes[0], sizes[1], axes[:2], bias=True, rngs=rngs)
        self.output = Linear(sizes[1], sizes[2], axes[1:], bias=True, rngs=rngs)

    def __call__(self, x: jax.Array, activation: Callable[[jax.Array], jax.Array]) -> jax.Array:
        return self.output(activation(self.inner(x)))


class VisionBlock(nnx.Module):
    """Pre-norm attention and MLP of Qwen2-VL and Qwen3-VL, whose activations differ."""

    def __init__(self, vision: TowerSizes, *, rngs: nnx.Rngs) -> None:
        size, inner = vision.hidden_size, vision.intermediate_size
        self.attention_norm = LayerNorm(size, EPS, "vision_embed", rngs=rngs)
        self.attention = PackedAttention(vision, rngs=rngs)
        self.mlp_norm = LayerNorm(size, EPS, "vision_embed", rngs=rngs)
        axes = ("vision_embed", "vision_mlp", "vision_embed")
        self.mlp = MLP((size, inner, size), axes, rngs=rngs)

    def __call__(
        self, x: jax.Array, rotary: Rotary, groups: Sequence[jax.Array], place: jax.Array
    ) -> jax.Array:
        x = x + self.attention(self.attention_norm(x), rotary, groups, place)
        return x + self.mlp(self.mlp_norm(x), self.activation)

    @abc.abstractmethod
    def activation(self, x: jax.Array) -> jax.Array:
        """The family's."""


class PatchMerger(nnx.Module):
    """Joins each 2 x 2 block of patches into one visual token of the decoder's width.

    ``norm`` normalises single patches, or with ``joined_norm`` the joined block.
    """

    def __init__(
        self, vision: TowerSizes, norm: nnx.Module, *, joined_norm: bool = False, rngs: nnx.Rngs
    ) -> None:
        wide = vision.hidden_size * vision.merge_size**2
        self.width = wide
        self.joined_norm = joined_norm
        self.norm = norm
        self.inner = Linear(wide, wide, ("vision_merged", "vision_joined"), bias=True, rngs=rngs)
        self.output = Linear(
            wide, vision.out_hidden_size, ("vision_joined", "embed"), bias=True, rngs=rngs
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (-1, self.width)
        x = self.norm(x.reshape(shape)) if self.joined_norm else self.norm(x).reshape(shape)
        return self.output(jax.nn.gelu(self.inner(x), approximate=False))
