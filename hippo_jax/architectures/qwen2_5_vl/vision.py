"""The Qwen2.5-VL vision tower (arXiv 2502.13923, section 2.1): windowed ViT and patch merger."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from hippo_jax.architectures.attention import segment_attention
from hippo_jax.architectures.decoder import GatedMLP
from hippo_jax.architectures.linear import Linear
from hippo_jax.architectures.norm import RMSNorm
from hippo_jax.architectures.parameters import weight
from hippo_jax.architectures.qwen2_5_vl.config import VisionConfig
from hippo_jax.architectures.qwen2_5_vl.layout import VisionLayout
from hippo_jax.architectures.rope import Rotary, rotate

EPS = 1e-6  # the reference fixes it; no config field
THETA = 10000.0


def axial_rotary(vision: VisionConfig, coordinates: jax.Array) -> Rotary:
    """Axial RoPE tables for patches at ``coordinates [P, 2]``: half the frequencies follow the
    row, half the column. Float32, shaped ``[P, 1, head_dim / 2]``."""
    quarter = vision.hidden_size // vision.num_heads // 4
    inverse = 1.0 / THETA ** (np.arange(quarter, dtype=np.float32) / np.float32(quarter))
    angles = coordinates.astype(jnp.float32)[:, :, None] * jnp.asarray(inverse, jnp.float32)
    angles = angles.reshape(coordinates.shape[0], 1, 2 * quarter)
    return Rotary(jnp.cos(angles), jnp.sin(angles))


class VisionAttention(nnx.Module):
    """Biased attention with packed q, k, v, inside windows or frames."""

    def __init__(self, vision: VisionConfig, *, rngs: nnx.Rngs) -> None:
        size = vision.hidden_size
        self.qkv_kernel = weight(rngs, (size, 3, size), ("vision_embed", None, "vision_heads"))
        self.qkv_bias = weight(rngs, (3, size), (None, "vision_heads"), "zeros")
        self.output = Linear(size, size, ("vision_heads", "vision_embed"), bias=True, rngs=rngs)
        self.num_heads = vision.num_heads
        self.head_dim = size // vision.num_heads

    def __call__(
        self, x: jax.Array, rotary: Rotary, groups: Sequence[jax.Array], place: jax.Array
    ) -> jax.Array:
        patches = x.shape[0]
        # Contracted as it is stored: a reshape would join a split axis to a whole one.
        packed = jnp.einsum("pd,dks->pks", x, self.qkv_kernel[...]) + self.qkv_bias[...]
        q, k, v = (packed[:, i].reshape(patches, -1, self.head_dim) for i in range(3))
        context = segment_attention(rotate(q, rotary), rotate(k, rotary), v, groups, place)
        return self.output(context.reshape(patches, -1))


class VisionBlock(nnx.Module):
    """Pre-norm attention and biased gated MLP."""

    def __init__(self, vision: VisionConfig, *, rngs: nnx.Rngs) -> None:
        self.attention_norm = RMSNorm(vision.hidden_size, EPS, "vision_embed", rngs=rngs)
        self.attention = VisionAttention(vision, rngs=rngs)
        self.mlp_norm = RMSNorm(vision.hidden_size, EPS, "vision_embed", rngs=rngs)
        self.mlp = GatedMLP(
            vision.hidden_size,
            vision.intermediate_size,
            ("vision_embed", "vision_mlp"),
            bias=True,
            rngs=rngs,
        )

    def __call__(
        self, x: jax.Array, rotary: Rotary, groups: Sequence[jax.Array], place: jax.Array
    ) -> jax.Array:
        x = x + self.attention(self.attention_norm(x), rotary, groups, place)
        return x + self.mlp(self.mlp_norm(x))


class PatchMerger(nnx.Module):
    """Joins each 2 x 2 block of patches into one visual token of the decoder's width."""

    def __init__(self, vision: VisionConfig, *, rngs: nnx.Rngs) -> None:
        wide = vision.hidden_size * vision.merge_size**2
        self.width = wide
        self.norm = RMSNorm(vision.hidden_size, EPS, "vision_embed", rngs=rngs)
        self.inner = Linear(wide, wide, ("vision_merged", "vision_joined"), bias=True, rngs=rngs)
        self.output = Linear(
            wide, vision.out_hidden_size, ("vision_joined", "embed"), bias=True, rngs=rngs
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        joined = self.norm(x).reshape(-1, self.width)
        return self.output(jax.nn.gelu(self.inner(joined), approximate=False))


class VisionTower(nnx.Module):
    """``pixels [P, patch_dim]`` to visual tokens ``[P / merge^2, D]``, in raster order.

    The reference reorders patches so that windows are contiguous and undoes it at the end; here
    patches stay where they are and attention gathers its windows, which is the same function.
    """

    def __init__(self, vision: VisionConfig, *, rngs: nnx.Rngs) -> None:
        self.config = vision
        self.patch_embedding = Linear(
            vision.patch_dim, vision.hidden_size, ("patch", "vision_embed"), bias=False, rngs=rngs
        )
        self.blocks = nnx.List([VisionBlock(vision, rngs=rngs) for _ in range(vision.depth)])
        self.merger = PatchMerger(vision, rngs=rngs)

    def __call__(self, pixels: jax.Array, layout: VisionLayout) -> jax.Array:
        x = self.patch_embedding(pixels.astype(self.patch_embedding.kernel[...].dtype))
        rotary = axial_rotary(self.config, jnp.asarray(layout.coordinates))
        windows, frames = (
            (tuple(map(jnp.asarray, groups)), jnp.asarray(place))
            for groups, place in (
                (layout.windows, layout.window_place),
                (layout.frames, layout.frame_place),
            )
        )
        for index, block in enumerate(self.blocks):
            whole = index in self.config.full_attention_layers
            x = block(x, rotary, *(frames if whole else windows))
        return self.merger(x)
