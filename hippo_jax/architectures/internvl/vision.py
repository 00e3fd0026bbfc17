"""InternViT with pixel shuffle and projector (arXiv 2312.14238 and 2404.16821): one frame at a
time, a plain ViT with a class token, learnt positions and layer scale."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from hippo_jax.architectures.attention import segment_attention
from hippo_jax.architectures.internvl.config import VisionConfig
from hippo_jax.architectures.internvl.layout import frame_chunks
from hippo_jax.architectures.linear import Linear
from hippo_jax.architectures.norm import LayerNorm, RMSNorm
from hippo_jax.architectures.parameters import weight
from hippo_jax.architectures.vit import MLP

# Fixed by the reference, no config fields: norms of queries and keys; norm of the projector.
QK_EPS, PROJECTOR_EPS = 1e-6, 1e-5


def _norm(vision: VisionConfig, *, rngs: nnx.Rngs) -> LayerNorm | RMSNorm:
    kind = LayerNorm if vision.norm_type == "layer_norm" else RMSNorm
    return kind(vision.hidden_size, vision.norm_eps, "vision_embed", rngs=rngs)


class VisionAttention(nnx.Module):
    """Attention inside frames; queries and keys may be normalised over all heads together."""

    def __init__(self, vision: VisionConfig, *, rngs: nnx.Rngs) -> None:
        size, bias = vision.hidden_size, vision.qkv_bias
        axes = ("vision_embed", "vision_heads")
        self.query = Linear(size, size, axes, bias=bias, rngs=rngs)
        self.key = Linear(size, size, axes, bias=bias, rngs=rngs)
        self.value = Linear(size, size, axes, bias=bias, rngs=rngs)
        self.output = Linear(size, size, axes[::-1], bias=True, rngs=rngs)
        norm = vision.qk_norm
        self.query_norm = RMSNorm(size, QK_EPS, None, rngs=rngs) if norm else None
        self.key_norm = RMSNorm(size, QK_EPS, None, rngs=rngs) if norm else None
        self.head_dim = size // vision.num_heads

    def __call__(self, x: jax.Array) -> jax.Array:
        """``x [F, S, D]``, frame by frame."""
        frames, length, _ = x.shape
        q, k, v = self.query(x), self.key(x), self.value(x)
        if self.query_norm is not None and self.key_norm is not None:
            q, k = self.query_norm(q), self.key_norm(k)
        q, k, v = (y.reshape(frames * length, -1, self.head_dim) for y in (q, k, v))
        rows = np.arange(frames * length, dtype=np.int32)
        members = jnp.asarray(rows.reshape(frames, length))
        context = segment_attention(q, k, v, (members,), jnp.asarray(rows))
        return self.output(context.reshape(frames, length, -1))


def gelu(x: jax.Array) -> jax.Array:
    """The exact one, here and in the projector."""
    return jax.nn.gelu(x, approximate=False)


class VisionBlock(nnx.Module):
    """Pre-norm attention and MLP, what each adds scaled by feature (layer scale)."""

    def __init__(self, vision: VisionConfig, *, rngs: nnx.Rngs) -> None:
        size, inner = vision.hidden_size, vision.intermediate_size
        self.attention_norm = _norm(vision, rngs=rngs)
        self.attention = VisionAttention(vision, rngs=rngs)
        self.attention_scale = weight(rngs, (size,), ("vision_embed",), "ones")
        self.mlp_norm = _norm(vision, rngs=rngs)
        axes = ("vision_embed", "vision_mlp", "vision_embed")
        self.mlp = MLP((size, inner, size), axes, rngs=rngs)
        self.mlp_scale = weight(rngs, (size,), ("vision_embed",), "ones")

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + self.attention_scale[...] * self.attention(self.attention_norm(x))
        return x + self.mlp_scale[...] * self.mlp(self.mlp_norm(x), gelu)


def pixel_shuffle(x: jax.Array, merge: int) -> jax.Array:
    """``[F, S, S, D] -> [F, S / merge, S / merge, merge^2 D]``.

    Features of a merged token come row by row, then column by column, of its block. The reference
    says so by two reshapes with a transpose after each, which is the same order.
    """
    frames, side, _, width = x.shape
    small = side // merge
    blocks = x.reshape(frames, small, merge, small, merge, width).transpose(0, 1, 3, 2, 4, 5)
    return blocks.reshape(frames, small, small, merge * merge * width)


class Projector(nnx.Module):
    """LayerNorm over a merged token, then an MLP into the decoder's width."""

    def __init__(self, vision: VisionConfig, *, rngs: nnx.Rngs) -> None:
        wide, out = vision.hidden_size * vision.merge_size**2, vision.out_hidden_size
        self.norm = LayerNorm(wide, PROJECTOR_EPS, "vision_merged", rngs=rngs)
        axes = ("vision_merged", "vision_joined", "embed")
        self.mlp = MLP((wide, out, out), axes, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.mlp(self.norm(x), gelu)


class VisionTower(nnx.Module):
    """``pixels [P, patch_dim]``, frames in raster order, to visual tokens ``[P / merge^2, D]``."""

    def __init__(self, vision: VisionConfig, *, rngs: nnx.Rngs) -> None:
        self.config = vision
        size = vision.hidden_size
        self.patch_embedding = Linear(
            vision.patch_dim, size, ("patch", "vision_embed"), bias=True, rngs=rngs
        )
        self.class_token = weight(rngs, (size,), ("vision_embed",))
        self.position_embedding = (
            weight(rngs, (vision.patches_per_frame + 1, size), (None, "vision_embed"))
            if vision.position_embeddings
            else None
        )
        self.blocks = nnx.List([VisionBlock(vision, rngs=rngs) for _ in range(vision.depth)])
        self.final_norm = (
            LayerNorm(size, vision.norm_eps, "vision_embed", rngs=rngs)
            if vision.final_norm
            else None
        )
        self.projector = Projector(vision, rngs=rngs)

    def embed(self, pixels: jax.Array) -> jax.Array:
        """``[F, patches, patch_dim] -> [F, 1 + patches, D]``, the class token first."""
        x = self.patch_embedding(pixels.astype(self.patch_embedding.kernel[...].dtype))
        first = jnp.broadcast_to(self.class_token[...].astype(x.dtype), (len(x), 1, x.shape[-1]))
        x = jnp.concatenate([first, x], axis=1)
        table = self.position_embedding
        return x if table is None else x + table[...].astype(x.dtype)

    def encode(self, pixels: jax.Array) -> jax.Array:
        """Whole frames ``[F, patches, patch_dim]`` to visual tokens ``[F, tokens, D]``."""
        x = self.embed(pixels)
        for block in self.blocks:
            x = block(x)
        if self.final_norm is not None:
            x = self.final_norm(x)
        frames, side = len(x), self.config.image_size // self.config.patch_size
        grid = x[:, 1:].reshape(frames, side, side, -1)
        merged = pixel_shuffle(grid, self.config.merge_size)
        return self.projector(merged.reshape(frames, self.config.tokens_per_frame, -1))

    def __call__(self, pixels: jax.Array, layout: Any = None) -> jax.Array:
        """``layout`` is empty in this family: all frames are alike."""
        patches, each = pixels.shape[0], self.config.patches_per_frame
        chunks, size = frame_chunks(self.config, patches)
        whole = jnp.pad(pixels, ((0, chunks * size * each - patches), (0, 0)))
        split = whole.reshape(chunks, size, each, -1)
        tokens = self.encode(split[0]) if chunks == 1 else jax.lax.map(self.encode, split)
        return tokens.reshape(-1, tokens.shape[-1])[: patches // self.config.merge_size**2]
