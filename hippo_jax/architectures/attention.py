"""Attention over grouped heads: a causal prompt, a block of tokens against a cache, and segments.

Shapes: queries ``[B, T, N, H]``, keys and values ``[B, T, K, H]`` with N a multiple of K. Inside,
the N / K queries that share a key head are folded into the rows of one matmul, so keys are never
repeated. Scores and softmax are float32 whatever the weights are.

Nothing here builds a T x T array for a long prompt: rows go block by block, so memory grows
linearly with the prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp

from hippo_jax.architectures.cache import LayerCache
from hippo_jax.architectures.platform import platform

# Bytes of float32 scores that may be alive at once: they bound a block of query rows, not a result.
# On a CPU a block that stays in cache is up to 1.6 times faster, and many rows of one head multiply
# up to 1.3 times as fast as few rows of all; an accelerator wants few, large kernels.
CPU_SCORE_BYTES = 4 * 2**20
SCORE_BYTES = 256 * 2**20
MAX_CAUSAL_SEGMENTS = 8
MIN_CAUSAL_SEGMENT = 128
MASKED = -1e30  # finite, so that a row with nothing to see gives numbers, not NaN


def score_bytes() -> int:
    """The bound for the kind of device that the program is traced for."""
    return CPU_SCORE_BYTES if platform() == "cpu" else SCORE_BYTES


def _blocks(length: int, row_bytes: int) -> tuple[int, int]:
    """Into how many blocks ``length`` rows are cut, and the rows of each: even blocks, so that the
    last one is not mostly padding. ``row_bytes``: of a row's scores."""
    most = max(8, score_bytes() // row_bytes)
    count = -(-length // most)
    return count, -(-length // count)


def _scores(q: jax.Array, k: jax.Array) -> jax.Array:
    """``q [B, K, R, H]`` and ``k [B, K, S, H]`` -> float32 ``[B, K, R, S]``, scaled."""
    scores = jnp.einsum("bkrh,bksh->bkrs", q, k, preferred_element_type=jnp.float32)
    return scores * q.shape[-1] ** -0.5


def _mix(weights: jax.Array, v: jax.Array) -> jax.Array:
    """``weights [B, K, R, S]`` and ``v [B, K, S, H]`` -> float32 ``[B, K, R, H]``."""
    return jnp.einsum(
        "bkrs,bksh->bkrh", weights.astype(v.dtype), v, preferred_element_type=jnp.float32
    )


def _fold_heads(q: jax.Array, kv_heads: int) -> jax.Array:
    """``[B, T, N, H] -> [B, K, G, T, H]``."""
    b, t, n, h = q.shape
    return q.reshape(b, t, kv_heads, n // kv_heads, h).transpose(0, 2, 3, 1, 4)


def _unfold_heads(context: jax.Array) -> jax.Array:
    """``[B, K, G, T, H] -> [B, T, N, H]``."""
    b, k, g, t, h = context.shape
    return context.transpose(0, 3, 1, 2, 4).reshape(b, t, k * g, h)


def _attend_rows(q: jax.Array, k: jax.Array, v: jax.Array, visible: jax.Array) -> jax.Array:
    """One block of rows: ``q [B, K, G, R, H]`` against ``k, v [B, K, S, H]``.

    ``visible`` is boolean ``[R, S]`` or ``[B, 1, 1, R, S]``. The softmax divides its sum out of the
    ``[R, H]`` result instead of the ``[R, S]`` weights, which spares a pass over the scores.
    """
    b, kv, g, r, h = q.shape
    scores = _scores(q.reshape(b, kv, g * r, h), k).reshape(b, kv, g, r, -1)
    scores = jnp.where(visible, scores, MASKED)
    weights = jnp.exp(scores - jnp.max(scores, axis=-1, keepdims=True))
    total = jnp.sum(weights, axis=-1, keepdims=True)
    mixed = _mix(weights.reshape(b, kv, g * r, -1), v)
    return (mixed.reshape(b, kv, g, r, h) / total).astype(v.dtype)


def causal_attention(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """Self-attention of whole prompts, each token seeing itself and what stands before it.

    Rows are padded on the right, so causality alone hides the padding from every real token. The
    prompt is cut into a few static segments whose keys end where the segment ends (close to half
    of the work of a full square is saved); inside a segment query rows go block by block.
    Returns ``[B, T, N, H]``.
    """
    t = q.shape[1]
    folded = _fold_heads(q, k.shape[2])
    keys, values = k.transpose(0, 2, 1, 3), v.transpose(0, 2, 1, 3)
    segments = max(1, min(MAX_CAUSAL_SEGMENTS, t // MIN_CAUSAL_SEGMENT))
    length = -(-t // segments)
    parts = []
    for start in range(0, t, length):
        end = min(t, start + length)
        attend = partial(_causal_segment, start=start)
        queries = folded[:, :, :, start:end]
        parts.append(_heads_in_turn(attend, queries, keys[:, :, :end], values[:, :, :end]))
    return _unfold_heads(jnp.concatenate(parts, axis=3))


def _heads_in_turn(
    attend: Callable[[jax.Array, jax.Array, jax.Array], jax.Array],
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
) -> jax.Array:
    """``attend`` on ``q [B, K, G, R, H]`` and ``k, v [B, K, S, H]``: on a CPU where the scores are
    too many for all heads at once, one key head after the other."""
    (b, heads, group, length), slots = q.shape[:4], k.shape[2]
    fits = 4 * b * heads * group * length * slots <= score_bytes()
    if platform() != "cpu" or fits or heads == 1:
        return attend(q, k, v)

    def one(part: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        q, k, v = part
        return attend(q[:, None], k[:, None], v[:, None])[:, 0]

    own = (jnp.moveaxis(x, 1, 0) for x in (q, k, v))
    return jnp.moveaxis(jax.lax.map(one, tuple(own)), 0, 1)


def _causal_segment(q: jax.Array, k: jax.Array, v: jax.Array, start: int) -> jax.Array:
    """Query rows ``start ..`` of a prompt, in blocks, against all keys given."""
    b, kv, g, length, _ = q.shape
    blocks, rows = _blocks(length, 4 * b * kv * g * k.shape[2])
    slots = jnp.arange(k.shape[2])
    if blocks == 1:
        return _attend_rows(q, k, v, slots <= start + jnp.arange(length)[:, None])
    padded = jnp.pad(q, ((0, 0), (0, 0), (0, 0), (0, blocks * rows - length), (0, 0)))

    def block(index: jax.Array) -> jax.Array:
        part = jax.lax.dynamic_slice_in_dim(padded, index * rows, rows, axis=3)
        visible = slots <= start + index * rows + jnp.arange(rows)[:, None]
        return _attend_rows(part, k, v, visible)

    done = jax.lax.map(block, jnp.arange(blocks))  # [blocks, B, K, G, rows, H]
    merged = jnp.moveaxis(done, 0, 3)
    return merged.reshape(*q.shape[:3], blocks * rows, q.shape[4])[:, :, :, :length]


def rows_attention(q: jax.Array, k: jax.Array, v: jax.Array, columns: jax.Array) -> jax.Array:
    """A few rows of each prompt: ``q [B, R, N, H]``, standing at ``columns`` int32 ``[B, R]``."""
    b, length, n, _ = q.shape
    folded = _fold_heads(q, k.shape[2])
    keys, values = k.transpose(0, 2, 1, 3), v.transpose(0, 2, 1, 3)
    slots = jnp.arange(k.shape[1])

    def attend(rows: jax.Array, columns: jax.Array) -> jax.Array:
        visible = slots <= columns[..., None]
        return _attend_rows(rows, keys, values, visible[:, None, None])

    count, size = _blocks(length, 4 * b * n * k.shape[1])
    if count == 1:
        return _unfold_heads(attend(folded, columns))
    spare = count * size - length
    rows = jnp.pad(folded, ((0, 0), (0, 0), (0, 0), (0, spare), (0, 0)))
    places = jnp.pad(columns, ((0, 0), (0, spare)))
    done = jax.lax.map(
        lambda part: attend(*part),
        (
            jnp.moveaxis(rows.reshape(*rows.shape[:3], count, size, -1), 3, 0),
            jnp.moveaxis(places.reshape(b, count, size), 1, 0),
        ),
    )
    merged = jnp.moveaxis(done, 0, 3).reshape(rows.shape)
    return _unfold_heads(merged[:, :, :, :length])


def cached_attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    layer: LayerCache,
    prompt_lengths: jax.Array,
    tail_lengths: jax.Array,
    first: jax.Array | int = 0,
) -> jax.Array:
    """A block of new tokens against the prompt, the tail written so far, and the block itself.

    Args:
        q: the block's queries, ``[B, Q, N, H]``.
        k, v: ``[B, W, K, H]``, W >= Q. Query i sees slots <= first + i of them.
        layer: this layer's keys and values, read only.
        prompt_lengths: int32 ``[B]``, prompt slots that hold a row's own tokens.
        tail_lengths: int32 ``[B]``, tail slots that are valid. Slots past it may hold any finite
            number.
        first: slot of the block's first token among ``k`` and ``v``, which may hold tokens that are
            not in the tail yet.

    The three parts meet in one softmax; only their scores are concatenated, never keys. Returns
    ``[B, Q, N, H]``.
    """
    kv = k.shape[2]
    folded = _fold_heads(q, kv)
    b, _, g, length, h = folded.shape
    rows = folded.reshape(b, kv, g * length, h)
    block_k, block_v = k.transpose(0, 2, 1, 3), v.transpose(0, 2, 1, 3)

    def hide(scores: jax.Array, visible: jax.Array) -> jax.Array:
        return jnp.where(visible[:, None, None, :], scores, MASKED)

    prompt = hide(
        _scores(rows, layer.prompt_k),
        jnp.arange(layer.prompt_k.shape[2]) < prompt_lengths[:, None],
    )
    tail = hide(
        _scores(rows, layer.tail_k), jnp.arange(layer.tail_k.shape[2]) < tail_lengths[:, None]
    )
    width = k.shape[1]
    own = _scores(rows, block_k).reshape(b, kv, g, length, width)
    causal = jnp.arange(width) <= first + jnp.arange(length)[:, None]
    own = jnp.where(causal, own, MASKED).reshape(b, kv, g * length, width)

    joined = jnp.concatenate([prompt, tail, own], axis=-1)
    weights = jax.nn.softmax(joined, axis=-1)
    first, second = prompt.shape[-1], prompt.shape[-1] + tail.shape[-1]
    context = _mix(weights[..., :first], layer.prompt_v)
    context += _mix(weights[..., first:second], layer.tail_v)
    context += _mix(weights[..., second:], block_v)
    return _unfold_heads(context.astype(v.dtype).reshape(b, kv, g, length, h))


def segment_attention(
    q: jax.Array, k: jax.Array, v: jax.Array, groups: Sequence[jax.Array], place: jax.Array
) -> jax.Array:
    """Attention inside disjoint segments of one long list of patches (windows, or frames).

    Args:
        q, k, v: ``[P, N, H]``.
        groups: segments of about one size each, int32 ``[S, M]``: the patches of each segment, -1
            where it is shorter. Padding thus stays small where sizes differ widely.
        place: int32 ``[P]``, where each patch stands in the groups, flattened and joined.

    Returns ``[P, N, H]``.
    """
    return jnp.concatenate([_attend_segments(q, k, v, members) for members in groups])[place]


def _attend_segments(q: jax.Array, k: jax.Array, v: jax.Array, members: jax.Array) -> jax.Array:
    """One group, ``members [S, M]`` -> ``[S * M, N, H]``.

    Small segments go through together, long ones in blocks of rows, so that at most about
    ``score_bytes()`` of scores are alive.
    """
    segments, size = members.shape
    heads, dim = q.shape[1:]
    index = jnp.maximum(members, 0)
    queries, keys, values = (x[index].transpose(0, 2, 1, 3) for x in (q, k, v))
    visible = (members >= 0)[:, None, :]
    together = score_bytes() // (4 * heads * size * size)

    def attend(part: tuple[jax.Array, jax.Array, jax.Array, jax.Array]) -> jax.Array:
        """One segment: ``q [N, R, H]``, ``k, v [N, M, H]``, ``visible [1, M]``."""
        rows, keys, values, visible = part
        return _attend_rows(rows[None, :, None], keys[None], values[None], visible)[0, :, 0]

    def in_blocks(part: tuple[jax.Array, jax.Array, jax.Array, jax.Array]) -> jax.Array:
        queries, keys, values, visible = part

        def blocks(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
            count = q.shape[1]
            turns, rows = _blocks(size, 4 * count * size)
            padded = jnp.pad(q[0, :, 0], ((0, 0), (0, turns * rows - size), (0, 0)))
            split = padded.reshape(count, turns, rows, dim).swapaxes(0, 1)
            done = jax.lax.map(lambda block: attend((block, k[0], v[0], visible)), split)
            return done.swapaxes(0, 1).reshape(count, turns * rows, dim)[None, :, None, :size]

        whole = (queries[None, :, None], keys[None], values[None])
        return _heads_in_turn(blocks, *whole)[0, :, 0]

    parts = (queries, keys, values, visible)
    if together >= segments:
        done = jax.vmap(attend)(parts)
    elif together >= 1:
        done = jax.lax.map(attend, parts, batch_size=together)
    else:
        done = jax.lax.map(in_blocks, parts)
    return done.transpose(0, 2, 1, 3).reshape(segments * size, heads, dim)
