"""How much the text after the video attends to each visual token.

The score is taken while the prompt is processed, layer by layer: no layer's attention weights
outlive the layer, and query rows go in blocks, so memory grows linearly with the prompt.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from hippo_jax.architectures.attention import MASKED, score_bytes
from hippo_jax.architectures.tensor_parallel import Shards, on_devices
from hippo_jax.architectures.video_lm import VideoLM
from hippo_jax.errors import HippoError
from hippo_jax.inputs.model_inputs import ModelInputs
from hippo_jax.scoring.config import SUPPORTS, Support, check_choice


def row_relevance(
    q: jax.Array, k: jax.Array, query_columns: jax.Array, visual: jax.Array, support: Support
) -> jax.Array:
    """Mean attention weight of every column in one layer, over heads and query rows.

    Args:
        q: rotated queries ``[B, R, N, H]``.
        k: rotated keys ``[B, T, K, H]``; query head n reads key head ``n // (N / K)``.
        query_columns: int32 ``[B, R]``, where the queries stand, -1 for none.
        visual: bool ``[B, T]``.
        support: ``"visual"``: softmax over the visual keys alone (arXiv 2601.08273). ``"all"``:
            over every key up to the query's own column, visual columns read off
            (arXiv 2508.16201).

    Returns:
        float32 ``[B, T]``; 0 where a column is not visual, and in a row without visual tokens.
    """
    b, r, n, h = q.shape
    kv = k.shape[2]
    asked = query_columns >= 0
    share = asked / (n * jnp.maximum(jnp.sum(asked, axis=1, keepdims=True), 1))
    slots = jnp.arange(k.shape[1])

    keys = k.transpose(0, 2, 1, 3)

    def weigh(q: jax.Array, columns: jax.Array, share: jax.Array) -> jax.Array:
        """A block of query rows -> their part of the mean, ``[B, T]``."""
        # All queries of a key head as the rows of one matmul, and the softmax's sum divided out of
        # the shares instead of the weights: five times as fast on a CPU as the textbook's order.
        heads = q.reshape(b, -1, kv, n // kv, h).transpose(0, 2, 3, 1, 4)
        folded = heads.reshape(b, kv, -1, h)
        scores = jnp.einsum("bkqh,bkth->bkqt", folded, keys, preferred_element_type=jnp.float32)
        visible = visual[:, None] if support == "visual" else slots <= columns[..., None]
        visible = jnp.broadcast_to(visible, (b, q.shape[1], visual.shape[1]))
        grouped = (scores * h**-0.5).reshape(*heads.shape[:4], -1)
        grouped = jnp.where(visible[:, None, None], grouped, MASKED)
        weights = jnp.exp(grouped - jnp.max(grouped, axis=-1, keepdims=True))
        parts = share[:, None, None] / jnp.sum(weights, axis=-1)
        return jnp.einsum("bkgrt,bkgr->bt", weights, parts)

    size = max(8, score_bytes() // (4 * b * n * k.shape[1]))
    if size >= r:
        total = weigh(q, query_columns, share)
    else:
        count = -(-r // size)

        def cut(x: jax.Array) -> jax.Array:
            """``[B, R, ...] -> [count, B, size, ...]``; the rows that fill up weigh nothing."""
            padded = jnp.pad(x, ((0, 0), (0, count * size - r), *[(0, 0)] * (x.ndim - 2)))
            return jnp.moveaxis(padded.reshape(b, count, size, *x.shape[2:]), 1, 0)

        total, _ = jax.lax.scan(
            lambda total, part: (total + weigh(*part), None),
            jnp.zeros(visual.shape, jnp.float32),
            (cut(q), cut(query_columns), cut(share)),
        )
    # A row without visual tokens spreads its softmax over columns that are none.
    return jnp.where(visual, total, 0.0)


class Relevance:
    """Collects attention while a prefill is traced.

    ``model.prefill(inputs, capacity, observe=relevance.observe)``, then ``relevance.scores()`` in
    the same trace.
    """

    def __init__(
        self, inputs: ModelInputs, support: Support = "visual", heads: Shards | None = None
    ) -> None:
        """``heads``: the devices that hold the other heads, ``model.head_shards``."""
        check_choice("support", support, SUPPORTS)
        self.heads = heads
        self.inputs = inputs
        self.support: Support = support
        self.total: jax.Array | None = None
        self.layers = 0

    def observe(self, layer: int, q: jax.Array, k: jax.Array) -> None:
        """Add a layer: ``q [B, R, N, H]`` at ``inputs.query_columns``, ``k [B, T, K, H]``."""
        columns = jnp.asarray(self.inputs.query_columns)
        index = jnp.asarray(self.inputs.visual_index)
        visual = (index >= 0) & (index < self.inputs.table.valid.shape[0])  # the scored ones
        own = row_relevance(q, k, columns, visual, self.support)
        self.total = own if self.total is None else self.total + own
        self.layers += 1

    def scores(self) -> jax.Array:
        """Mean over the observed layers, float32 ``[N]``, one a line of the table; 0 on padding."""
        if self.total is None:
            raise HippoError("no layer has been observed; pass `observe` to a prefill first")
        table = self.inputs.table
        total = self.total
        if self.heads is not None:  # each device has the mean over as many heads
            total = self.heads.sum(total) / self.heads.size
        own = total[jnp.asarray(table.row), jnp.asarray(table.slot)] / self.layers
        return jnp.where(jnp.asarray(table.valid), own, 0.0)


@partial(jax.jit, static_argnames=("support", "layers"))
def _relevance(model: VideoLM, inputs: ModelInputs, support: Support, layers: int) -> jax.Array:
    def local(model: VideoLM, inputs: ModelInputs) -> jax.Array:
        relevance = Relevance(inputs, support, model.head_shards)
        model.begin_prefill(inputs, layers, observe=relevance.observe)
        return relevance.scores()

    return on_devices(local, (model,), inputs)


def attention_relevance(
    model: VideoLM, inputs: ModelInputs, *, support: Support = "visual", layers: int | None = None
) -> jax.Array:
    """Attention that the text after the video pays to each visual token.

    The mean over layers, query heads and the rows at ``inputs.query_columns`` of the attention
    weights, taken after the softmax.

    Args:
        support: ``"visual"``: softmax over the visual tokens alone; ``"all"``: over all keys.
        layers: only the first so many layers; ``None`` takes all.

    Returns:
        float32 ``[N]``, one a line of ``inputs.table``; 0 on padding.

    Raises:
        HippoError: an unknown support, or ``layers`` outside of what the model has.
    """
    check_choice("support", support, SUPPORTS)
    return _relevance(model, inputs, support, layer_count(model, layers))


def layer_count(model: VideoLM, layers: Any) -> int:
    """``layers``, or all layers of the model for ``None``; ``HippoError`` if it has fewer."""
    known = len(model.decoder.layers)
    if layers is None:
        return known
    if isinstance(layers, bool) or not isinstance(layers, int) or not 1 <= layers <= known:
        raise HippoError(f"layers must be a whole number from 1 to {known}, got {layers!r}")
    return layers
