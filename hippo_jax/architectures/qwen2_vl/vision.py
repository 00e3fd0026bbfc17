"""The Qwen2-VL vision tower (arXiv 2409.12191, section 2.1): full attention inside frames."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from hippo_jax.architectures import vit
from hippo_jax.architectures.linear import Linear
from hippo_jax.architectures.norm import LayerNorm
from hippo_jax.architectures.qwen2_vl.config import VisionConfig
from hippo_jax.architectures.qwen2_vl.layout import VisionLayout
from hippo_jax.architectures.vit import EPS, PatchMerger, axial_rotary


class VisionBlock(vit.VisionBlock):
    """Pre-norm attention inside each temporal unit, and MLP."""

    def activation(self, x: jax.Array) -> jax.Array:
        """``x * sigmoid(1.702 x)``."""
        return x * jax.nn.sigmoid(1.702 * x)


class VisionTower(nnx.Module):
    """``pixels [P, patch_dim]`` to visual tokens ``[P / merge^2, D]``, in raster order."""

    def __init__(self, vision: VisionConfig, *, rngs: nnx.Rngs) -> None:
        self.config = vision
        self.patch_embedding = Linear(
            vision.patch_dim, vision.hidden_size, ("patch", "vision_embed"), bias=False, rngs=rngs
        )
        self.blocks = nnx.List([VisionBlock(vision, rngs=rngs) for _ in range(vision.depth)])
        self.merger = PatchMerger(
            vision, LayerNorm(vision.hidden_size, EPS, "vision_embed", rngs=rngs), rngs=rngs
        )

    def __call__(self, pixels: jax.Array, layout: VisionLayout) -> jax.Array:
        x = self.patch_embedding(pixels.astype(self.patch_embedding.kernel[...].dtype))
        rotary = axial_rotary(self.config, jnp.asarray(layout.coordinates))
        frames, place = tuple(map(jnp.asarray, layout.frames)), jnp.asarray(layout.frame_place)
        for block in self.blocks:
            x = block(x, rotary, frames, place)
        return self.merger(x)
