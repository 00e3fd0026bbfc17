"""The Qwen2.5-VL vision tower (arXiv 2502.13923, section 2.1): windowed ViT and patch merger."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from hippo_jax.architectures.decoder import GatedMLP
from hippo_jax.architectures.linear import Linear
from hippo_jax.architectures.norm import RMSNorm
from hippo_jax.architectures.qwen2_5_vl.config import VisionConfig
from hippo_jax.architectures.qwen2_5_vl.layout import VisionLayout
from hippo_jax.architectures.rope import Rotary
from hippo_jax.architectures.vit import EPS, PackedAttention, PatchMerger, axial_rotary


class VisionBlock(nnx.Module):
    """Pre-norm attention and biased gated MLP."""

    def __init__(self, vision: VisionConfig, *, rngs: nnx.Rngs) -> None:
        self.attention_norm = RMSNorm(vision.hidden_size, EPS, "vision_embed", rngs=rngs)
        self.attention = PackedAttention(vision, rngs=rngs)
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
        self.merger = PatchMerger(
            vision, RMSNorm(vision.hidden_size, EPS, "vision_embed", rngs=rngs), rngs=rngs
        )

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
