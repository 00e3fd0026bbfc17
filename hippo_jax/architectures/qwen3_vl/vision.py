"""The Qwen3-VL vision tower (arXiv 2511.21631): ViT, patch merger, and features for deepstack."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from hippo_jax.architectures import vit
from hippo_jax.architectures.linear import Linear
from hippo_jax.architectures.norm import LayerNorm
from hippo_jax.architectures.parameters import weight
from hippo_jax.architectures.qwen3_vl.config import VisionConfig
from hippo_jax.architectures.qwen3_vl.layout import VisionLayout
from hippo_jax.architectures.vit import EPS, PatchMerger, axial_rotary


class PositionTable(nnx.Module):
    """A learned square of positions, read between its places at any size of frame."""

    def __init__(self, vision: VisionConfig, *, rngs: nnx.Rngs) -> None:
        self.side = vision.side
        self.table = weight(
            rngs, (vision.num_positions, vision.hidden_size), (None, "vision_embed")
        )

    def __call__(self, coordinates: jax.Array, sizes: jax.Array) -> jax.Array:
        """Float32 ``[P, E]`` for patches at ``coordinates [P, 2]`` of frames of ``sizes [P, 2]``.

        Bilinear, the corner patches of a frame on the corners of the table. The four neighbours are
        added up one by one, so that no array of four times the patches is made.
        """
        place = coordinates.astype(jnp.float32) * (self.side - 1)
        place = place / jnp.maximum(sizes - 1, 1).astype(jnp.float32)
        low = jnp.floor(place)
        part = place - low
        found = jnp.zeros((coordinates.shape[0], self.table[...].shape[1]), jnp.float32)
        for down in (0, 1):
            for right in (0, 1):
                corner = low.astype(jnp.int32) + jnp.array([down, right])
                corner = jnp.minimum(corner, self.side - 1)  # where it has no share
                share = jnp.abs(part - jnp.array([1 - down, 1 - right])).prod(axis=1)
                rows = self.table[...][corner[:, 0] * self.side + corner[:, 1]]
                found += share[:, None] * rows.astype(jnp.float32)
        return found


class VisionBlock(vit.VisionBlock):
    """Pre-norm attention inside each temporal unit, and MLP."""

    def activation(self, x: jax.Array) -> jax.Array:
        """By its tanh approximation."""
        return jax.nn.gelu(x, approximate=True)


class VisionTower(nnx.Module):
    """``pixels [P, patch_dim]`` to visual tokens ``[P / merge^2, (1 + k) * D]``.

    The first D numbers of a token are its embedding, each of the k blocks of D behind them is added
    to its hidden state after one of the decoder's first k layers (deepstack, arXiv 2406.04334).
    """

    def __init__(self, vision: VisionConfig, *, rngs: nnx.Rngs) -> None:
        self.config = vision
        size = vision.hidden_size
        wide = size * vision.merge_size**2
        self.patch_embedding = Linear(
            vision.patch_dim, size, ("patch", "vision_embed"), bias=True, rngs=rngs
        )
        self.positions = PositionTable(vision, rngs=rngs)
        self.blocks = nnx.List([VisionBlock(vision, rngs=rngs) for _ in range(vision.depth)])
        self.merger = PatchMerger(
            vision, LayerNorm(size, EPS, "vision_embed", rngs=rngs), rngs=rngs
        )
        self.deepstack_mergers = nnx.List(
            [
                PatchMerger(
                    vision,
                    LayerNorm(wide, EPS, "vision_merged", rngs=rngs),
                    joined_norm=True,
                    rngs=rngs,
                )
                for _ in vision.deepstack_layers
            ]
        )

    def __call__(self, pixels: jax.Array, layout: VisionLayout) -> jax.Array:
        coordinates = jnp.asarray(layout.coordinates)
        x = self.patch_embedding(pixels.astype(self.patch_embedding.kernel[...].dtype))
        x = x + self.positions(coordinates, jnp.asarray(layout.sizes)).astype(x.dtype)
        rotary = axial_rotary(self.config, coordinates)
        frames, place = tuple(map(jnp.asarray, layout.frames)), jnp.asarray(layout.frame_place)
        deep: list[jax.Array] = []
        for index, block in enumerate(self.blocks):
            x = block(x, rotary, frames, place)
            if index in self.config.deepstack_layers:
                deep.append(self.deepstack_mergers[len(deep)](x))
        return jnp.concatenate([self.merger(x), *deep], axis=-1)
