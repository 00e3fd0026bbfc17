"""The vision side of LLaVA-OneVision (arXiv 2408.03326, section 3): SigLIP, projector, pooling.

Every frame by itself: its patches attend to each other, are projected to the decoder's width and
then pooled to half as many a side. One learned vector, the newline, ends each video.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from hippo_jax.architectures.attention import segment_attention
from hippo_jax.architectures.linear import Linear
from hippo_jax.architectures.llava_onevision.config import VisionConfig
from hippo_jax.architectures.llava_onevision.layout import VisionLayout
from hippo_jax.architectures.norm import LayerNorm
from hippo_jax.architectures.parameters import weight
from hippo_jax.architectures.vit import MLP


class VisionAttention(nnx.Module):
    """Biased attention among the patches of a frame."""

    def __init__(self, vision: VisionConfig, *, rngs: nnx.Rngs) -> None:
        size = vision.hidden_size
        into, out = ("vision_embed", "vision_heads"), ("vision_heads", "vision_embed")
        self.query = Linear(size, size, into, bias=True, rngs=rngs)
        self.key = Linear(size, size, into, bias=True, rngs=rngs)
        self.value = Linear(size, size, into, bias=True, rngs=rngs)
        self.output = Linear(size, size, out, bias=True, rngs=rngs)
        self.head_dim = size // vision.num_heads

    def __call__(self, x: jax.Array, frames: jax.Array) -> jax.Array:
        """``x [P, D]``; ``frames`` int32 ``[F, P / F]``, the patches of each frame."""
        q, k, v = (
            projection(x).reshape(len(x), -1, self.head_dim)
            for projection in (self.query, self.key, self.value)
        )
        context = segment_attention(q, k, v, (frames,), frames.reshape(-1))
        return self.output(context.reshape(len(x), -1))


def gelu_tanh(x: jax.Array) -> jax.Array:
    """GELU in its tanh form."""
    return jax.nn.gelu(x, approximate=True)


class VisionBlock(nnx.Module):
    """Pre-norm attention and MLP."""

    def __init__(self, vision: VisionConfig, *, rngs: nnx.Rngs) -> None:
        size, eps = vision.hidden_size, vision.layer_norm_eps
        self.attention_norm = LayerNorm(size, eps, "vision_embed", rngs=rngs)
        self.attention = VisionAttention(vision, rngs=rngs)
        self.mlp_norm = LayerNorm(size, eps, "vision_embed", rngs=rngs)
        sizes = (size, vision.intermediate_size, size)
        self.mlp = MLP(sizes, ("vision_embed", "vision_mlp", "vision_embed"), rngs=rngs)

    def __call__(self, x: jax.Array, frames: jax.Array) -> jax.Array:
        x = x + self.attention(self.attention_norm(x), frames)
        return x + self.mlp(self.mlp_norm(x), gelu_tanh)


class Projector(nnx.Module):
    """To the decoder's width, with GELU in its exact form between two layers."""

    def __init__(self, vision: VisionConfig, *, rngs: nnx.Rngs) -> None:
        size, wide, bias = vision.hidden_size, vision.out_hidden_size, vision.projector_bias
        self.inner = Linear(size, wide, ("vision_embed", "projected"), bias=bias, rngs=rngs)
        self.output = Linear(wide, wide, ("projected", "embed"), bias=bias, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.output(jax.nn.gelu(self.inner(x), approximate=False))


def halving(size: int) -> np.ndarray:
    """Bilinear resampling of ``size`` numbers to half as many, rounded up.

    An even size gives means of pairs. An odd one is resampled at ``(i + 0.5) * size / new - 0.5``,
    held at the first and last number: pixel centres, corners not aligned, no antialiasing.
    Returns float32 ``[ceil(size / 2), size]``, which sums to 1 over each row.
    """
    new = -(-size // 2)
    at = np.maximum((np.arange(new) + 0.5) * (size / new) - 0.5, 0)
    first = np.floor(at).astype(int)
    second = np.minimum(first + 1, size - 1)
    matrix = np.zeros((new, size))
    np.add.at(matrix, (np.arange(new), first), 1 - (at - first))
    np.add.at(matrix, (np.arange(new), second), at - first)
    return matrix.astype(np.float32)


def pool(x: jax.Array, side: int) -> jax.Array:
    """``x [F, side * side, D]`` in reading order to ``[F, ceil(side / 2) ** 2, D]``, in float32."""
    matrix = jnp.asarray(halving(side))
    frames, _, width = x.shape
    square = x.astype(jnp.float32).reshape(frames, side, side, width)
    exact = jax.lax.Precision.HIGHEST  # shares of neighbours, which accelerators would round
    square = jnp.einsum("ax,fyxd->fyad", matrix, square, precision=exact)
    square = jnp.einsum("by,fyad->fbad", matrix, square, precision=exact)
    return square.reshape(frames, -1, width).astype(x.dtype)


class VisionTower(nnx.Module):
    """``pixels [F * side^2, patch_dim]``, frames of patches in reading order, to ``[N + 1, D]``:
    visual tokens, frames of tokens in reading order, then the newline.

    ``unused_norm`` is SigLIP's last norm. The language model reads the features before it; it is
    here because every checkpoint holds it.
    """

    def __init__(self, vision: VisionConfig, *, rngs: nnx.Rngs) -> None:
        size = vision.hidden_size
        self.config = vision
        self.patch_embedding = Linear(
            vision.patch_dim, size, ("patch", "vision_embed"), bias=True, rngs=rngs
        )
        self.positions = weight(rngs, (vision.side**2, size), (None, "vision_embed"))
        self.blocks = nnx.List([VisionBlock(vision, rngs=rngs) for _ in range(vision.depth)])
        self.unused_norm = LayerNorm(size, vision.layer_norm_eps, "vision_embed", rngs=rngs)
        self.projector = Projector(vision, rngs=rngs)
        self.newline = weight(rngs, (vision.out_hidden_size,), ("embed",))

    def embed_patches(self, pixels: jax.Array) -> jax.Array:
        """Patches with their learned places, ``[P, hidden]``."""
        x = self.patch_embedding(pixels.astype(self.patch_embedding.kernel[...].dtype))
        places = self.positions[...]
        return (x.reshape(-1, *places.shape) + places).reshape(x.shape)

    def features(self, pixels: jax.Array) -> jax.Array:
        """What the last block gives, without the norm behind it: ``[P, hidden]``."""
        x = self.embed_patches(pixels)
        frames = jnp.arange(len(x), dtype=jnp.int32).reshape(-1, self.config.side**2)
        for block in self.blocks:
            x = block(x, frames)
        return x

    def __call__(self, pixels: jax.Array, layout: VisionLayout) -> jax.Array:
        side = self.config.side
        projected = self.projector(self.features(pixels))
        pooled = pool(projected.reshape(-1, side**2, projected.shape[-1]), side)
        tokens = pooled.reshape(-1, pooled.shape[-1])[jnp.asarray(layout.lines)]
        return jnp.concatenate([tokens, self.newline[...][None].astype(tokens.dtype)])
