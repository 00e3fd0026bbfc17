"""The architecture's modules driven for training: equal frames in one batch, packed texts.

No layer is defined here. The decoder takes its attention from the caller, so texts that share one
visual prefix are packed behind it; the vision tower's blocks are run over equal frames without
the gathers that ragged videos need (`tests/training` checks both against the architecture).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from hippo_jax.architectures.attention import MASKED
from hippo_jax.architectures.config import VideoLMConfig
from hippo_jax.architectures.decoder import Attend, Decoder
from hippo_jax.architectures.parameters import values, with_values
from hippo_jax.architectures.qwen2_5_vl.layout import build_vision_layout
from hippo_jax.architectures.qwen2_5_vl.vision import VisionTower
from hippo_jax.architectures.rope import rotary_tables, rotate
from hippo_jax.architectures.vit import axial_rotary
from hippo_jax.training.batches import GRID, prefix_ids
from hippo_jax.training.render import GROUPS, SIDE

Weights = dict[str, jax.Array]

MEAN = STD = 0.5  # of the pixels, every channel
EMBEDDING_SCALE = 0.3  # near the scale of the visual features


class Skeleton(NamedTuple):
    """The modules of one role without weights."""

    config: VideoLMConfig
    decoder: Decoder
    vision: VisionTower

    def with_decoder(self, weights: Weights) -> Decoder:
        return with_values(self.decoder, part(weights, "decoder"))

    def with_vision(self, weights: Weights) -> VisionTower:
        return with_values(self.vision, part(weights, "vision"))


def part(weights: Weights, root: str) -> Weights:
    """The weights under `root.`, without that prefix."""
    return {
        name.removeprefix(f"{root}."): value
        for name, value in weights.items()
        if name.startswith(f"{root}.")
    }


def skeleton(config: VideoLMConfig) -> Skeleton:
    """Abstract modules (shapes only)."""
    decoder = nnx.eval_shape(lambda: Decoder(config.text, rngs=nnx.Rngs(0)))
    vision = nnx.eval_shape(lambda: VisionTower(config.vision, rngs=nnx.Rngs(0)))
    return Skeleton(config, decoder, vision)


def initial_weights(config: VideoLMConfig, seed: int) -> Weights:
    """Random weights by dotted path (`decoder...`, `vision...`).

    Kernels have variance 1 / fan-in; those that write to the residual stream are damped by the
    number of writes.
    """
    modules = {
        "decoder": Decoder(config.text, rngs=nnx.Rngs(seed)),
        "vision": VisionTower(config.vision, rngs=nnx.Rngs(seed + 1)),
    }
    weights: Weights = {}
    for root, module in modules.items():
        depth = config.text.num_layers if root == "decoder" else config.vision.depth
        for name, value in values(module).items():
            if name.endswith("kernel"):
                scale = value.shape[0] ** -0.5 / 0.02
                if name.endswith(("attention.output.kernel", "mlp.down.kernel")):
                    scale *= (2 * depth) ** -0.5
                value = value * scale
            elif name == "embedding":
                value = value * (EMBEDDING_SCALE / 0.02)
            weights[f"{root}.{name}"] = value
    return weights


def normalise(patches: jax.Array) -> jax.Array:
    """Pixels uint8 to float32, as the processor does it."""
    return (patches.astype(jnp.float32) - 255 * MEAN) / (255 * STD)


def encode_clips(tower: VisionTower, patches: jax.Array) -> jax.Array:
    """Patches uint8 `[B, 1296, 1176]` to visual tokens `[B, 324, D]`; every layer sees a frame."""
    clips = patches.shape[0]
    per_frame = GRID[1] * GRID[2]
    layout = build_vision_layout(tower.config, [(1, *GRID[1:])], per_frame)
    rotary = jax.lax.optimization_barrier(
        axial_rotary(tower.config, jnp.asarray(layout.coordinates))
    )
    x = tower.patch_embedding(normalise(patches)).reshape(clips * GROUPS, per_frame, -1)
    size = x.shape[-1]
    for block in tower.blocks:
        attention = block.attention
        packed = block.attention_norm(x) @ attention.qkv_kernel[...].reshape(size, 3 * size)
        packed = packed.reshape(*x.shape[:2], 3, size) + attention.qkv_bias[...]
        heads = (*x.shape[:2], attention.num_heads, -1)
        q, k, v = (packed[:, :, i].reshape(heads) for i in range(3))
        q, k = rotate(q, rotary), rotate(k, rotary)
        scores = jnp.einsum("ftnh,fsnh->fnts", q * q.shape[-1] ** -0.5, k)
        context = jnp.einsum("fnts,fsnh->ftnh", jax.nn.softmax(scores, axis=-1), v)
        x = x + attention.output(context.reshape(x.shape))
        x = x + block.mlp(block.mlp_norm(x))
    return tower.merger(x).reshape(clips, GROUPS * SIDE * SIDE, -1)


def visual_positions() -> np.ndarray:
    """M-RoPE positions `[3, 324]` of the visual tokens."""
    grid = np.meshgrid(np.arange(GROUPS), np.arange(SIDE), np.arange(SIDE), indexing="ij")
    return np.stack(grid).reshape(3, -1).astype(np.int32) + len(prefix_ids())


TEXT_START = 4 + max(GROUPS, SIDE)  # position of the token after the visual ones


class PackedText(NamedTuple):
    """Texts behind one visual prefix, `[B, T]` each (`batches.text_row`)."""

    ids: jax.Array
    offsets: jax.Array
    segments: jax.Array


class Hidden(NamedTuple):
    """Final hidden states before the last norm."""

    visual: jax.Array  # [B, N, D]
    text: jax.Array  # [B, T, D]


def run_decoder(
    decoder: Decoder,
    features: jax.Array,
    positions: jax.Array,
    keep: jax.Array,
    text: PackedText,
) -> Hidden:
    """Visual features `[B, N, D]` at `positions [3, B, N]`, and the texts behind them.

    `keep` bool `[B, N]`: tokens that are not kept are seen by nobody, which is the same as
    removing them while the others stand where they stood.
    """
    prefix = jnp.asarray(prefix_ids())
    batch, visual = keep.shape
    lead = len(prefix)
    embedded = jnp.broadcast_to(decoder.embed(prefix), (batch, lead, features.shape[-1]))
    x = jnp.concatenate([embedded, features, decoder.embed(text.ids)], axis=1)
    places = jnp.concatenate(
        [
            jnp.broadcast_to(jnp.arange(lead), (3, batch, lead)),
            positions,
            jnp.broadcast_to(TEXT_START + text.offsets, (3, *text.ids.shape)),
        ],
        axis=2,
    )
    seen = jnp.concatenate([jnp.ones((batch, lead), bool), keep], axis=1)
    attend = packed_attention(seen, text.segments)
    # Behind a barrier, or XLA recomputes cos and sin inside every use.
    rotary = jax.lax.optimization_barrier(rotary_tables(decoder.config, places))
    for index, layer in enumerate(decoder.layers):
        x, _ = layer(x, rotary, index, attend)
    return Hidden(x[:, lead : lead + visual], x[:, lead + visual :])


def packed_attention(seen: jax.Array, segments: jax.Array) -> Attend:
    """Attention of a prefix (`seen [B, P]`: its visible tokens) and texts in segments `[B, T]`.

    The prefix is causal and never looks at text; text sees the prefix and what stands before it
    in its own segment. Two calls, so that no prefix x text scores are computed.
    """
    length = seen.shape[1]
    causal = jnp.tril(jnp.ones((length, length), bool))
    # A pruned token still sees itself, so that its (unused) row has something to see.
    prefix_mask = causal & (seen[:, None, :] | jnp.eye(length, dtype=bool))
    texts = segments.shape[1]
    own = (segments[:, :, None] == segments[:, None, :]) & jnp.tril(jnp.ones((texts, texts), bool))
    prefix_keys = jnp.broadcast_to(seen[:, None, :], (*segments.shape, length))
    text_mask = jnp.concatenate([prefix_keys, own], axis=2)

    def attend(layer: int, q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        first = _attend(q[:, :length], k[:, :length], v[:, :length], prefix_mask)
        second = _attend(q[:, length:], k, v, text_mask)
        return jnp.concatenate([first, second], axis=1)

    return attend


def _attend(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array) -> jax.Array:
    """`q [B, T, N, H]`, `k, v [B, S, K, H]`, `mask [B, T, S]`; query groups fold into rows."""
    b, t, n, h = q.shape
    kv = k.shape[2]
    rows = (q * h**-0.5).reshape(b, t, kv, n // kv, h).transpose(0, 2, 3, 1, 4)
    rows = rows.reshape(b, kv, n // kv * t, h)
    keys, values_ = k.transpose(0, 2, 1, 3), v.transpose(0, 2, 1, 3)
    scores = (rows @ keys.transpose(0, 1, 3, 2)).reshape(b, kv, n // kv, t, -1)
    weights = jax.nn.softmax(jnp.where(mask[:, None, None], scores, MASKED), axis=-1)
    context = weights.reshape(b, kv, n // kv * t, -1) @ values_
    return context.reshape(b, kv, n // kv, t, h).transpose(0, 3, 1, 2, 4).reshape(b, t, n, h)
