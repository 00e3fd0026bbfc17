"""The video-LLM: a family's vision tower in front of the shared decoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from hippo_jax.architectures import cache as kv
from hippo_jax.architectures.attention import cached_attention, rows_attention
from hippo_jax.architectures.cache import PartialPrefill
from hippo_jax.architectures.config import VideoLMConfig
from hippo_jax.architectures.decoder import AfterLayer, Decoder, Keep
from hippo_jax.architectures.int8 import INT8
from hippo_jax.architectures.prompt_attention import Kernel, prompt_attention
from hippo_jax.architectures.registry import Family, family_of
from hippo_jax.architectures.sharding import Home
from hippo_jax.architectures.tensor_parallel import Shards, on_devices
from hippo_jax.errors import HippoError
from hippo_jax.inputs.model_inputs import ModelInputs

Observe = Callable[[int, jax.Array, jax.Array], None]
"""``observe(layer, q [B,R,N,H], k [B,T,K,H])``: told of the queries at ``inputs.query_columns`` and
of all keys of a layer, rotated, while the prompt is processed."""


class VideoLM(nnx.Module):
    """A video-LLM. A pytree whose leaves are its weights.

    ``model(inputs)`` gives teacher-forced logits; decoding uses ``prefill`` and ``forward_block``,
    which know nothing of how tokens are chosen.

    Attributes:
        config: sizes and special ids (static).
        source: directory with the tokenizer and processor files, or ``None`` (static).
        home: the devices that share its weights, or ``None`` (static).
        attention: by which kernel prompts attend to themselves, see ``prompt_attention`` (static;
            set it before the model is used).
        shards: inside a program over these devices, how they talk to each other.
    """

    def __init__(self, config: VideoLMConfig, *, rngs: nnx.Rngs, source: str | None = None) -> None:
        self.config = config
        self.source = source
        self.home: Home | None = None
        self.attention: Kernel = "blocks"
        self.shards: Shards | None = None
        self.vision = family_of(config.family).vision_tower(config.vision, rngs=rngs)
        self.decoder = Decoder(config.text, rngs=rngs)

    @property
    def family(self) -> Family:
        """The architecture's host-side functions."""
        return family_of(self.config.family)

    @property
    def tokenizer(self) -> Any:
        """The Hugging Face tokenizer, loaded at first use."""
        from hippo_jax.inputs.chat import load_tokenizer

        if self.source is None:
            raise HippoError("this model was made without files, so it has no tokenizer")
        return load_tokenizer(self.source)

    @property
    def dtype(self) -> Any:
        """The dtype of activations, and of all weights but int8 kernels and their scales."""
        return self.decoder.embedding.get_value().dtype

    @property
    def quantize(self) -> str | None:
        """``"int8"`` if the kernels of its layers are, else ``None`` (see ``load_model``)."""
        return None if self.decoder.layers[0].mlp.down.kernel_scale is None else INT8

    @property
    def head_shards(self) -> Shards | None:
        """Who holds the other query heads, ``None`` if all are here."""
        text, kernel = self.config.text, self.decoder.layers[0].attention.query.kernel
        return self.shards if kernel.shape[1] < text.num_heads * text.head_dim else None

    def __call__(
        self, inputs: ModelInputs, *, positions: Any = None, last: bool = False
    ) -> jax.Array:
        """Teacher-forced logits, float32.

        Args:
            positions: int32 ``[B, Q]`` columns of the given ``input_ids`` to answer at;
                ``None`` answers at all.
            last: only each row's last token.

        Returns:
            ``[B, T, V]`` aligned with the given ids (bucket padding cut), ``[B, Q, V]`` at
            ``positions``, or ``[B, 1, V]``. Inside a ``jax.jit`` the widths are not known, so T
            is then the bucket's width and rows start at column 0.
        """
        if positions is not None and last:
            raise HippoError("give positions or last=True, not both")
        inside = isinstance(inputs.lengths, jax.core.Tracer)
        shift = jnp.asarray(inputs.left_padding)[:, None]
        if last:
            columns = jnp.asarray(inputs.lengths)[:, None] - 1
        elif positions is not None:
            if not inside and not isinstance(positions, jax.core.Tracer):
                asked = np.asarray(positions)
                if asked.ndim != 2 or asked.min() < 0 or asked.max() >= int(inputs.width):
                    raise HippoError(
                        f"positions must be [batch, n] columns from 0 to {int(inputs.width) - 1}"
                    )
            columns = jnp.asarray(positions, jnp.int32) - shift
        elif inside:
            columns = jnp.broadcast_to(
                jnp.arange(inputs.token_ids.shape[1]), inputs.token_ids.shape
            )
        else:
            columns = jnp.arange(int(inputs.width))[None, :] - shift
        # Padding columns, left or right, answer for the nearest column that there is.
        return _logits_at(self, inputs, jnp.clip(columns, 0, inputs.token_ids.shape[1] - 1))

    def encode_video(self, inputs: ModelInputs, *, draft: bool = False) -> jax.Array | None:
        """What the vision tower makes of all videos and images, or ``None``.

        ``[N + extra, (1 + k) * D]`` as ``Family.vision_tower`` says; most families have neither
        extra rows nor extra columns. ``visual_features`` cuts out what is scored.

        ``draft``: this model is the draft of the pair that ``inputs`` were prepared for, whose
        tower may need index arrays of its own.
        """
        if inputs.vision is None:
            return None
        vision = inputs.vision
        own = vision.draft_layout if draft and vision.draft_layout is not None else vision.layout
        return self.vision(vision.pixels, own)

    def visual_features(self, inputs: ModelInputs, visual: jax.Array) -> jax.Array:
        """Of ``visual`` (from ``encode_video``) what is scored: ``[N, D]``, one row a line of
        ``inputs.table``."""
        return visual[: inputs.table.valid.shape[0], : self.config.text.hidden_size]

    def embed_prompt(self, inputs: ModelInputs, visual: jax.Array | None) -> jax.Array:
        """Token embeddings ``[B, T, D]`` with visual tokens in their places."""
        x = self.decoder.embed(jnp.asarray(inputs.token_ids))
        if visual is None:
            return x
        index = jnp.asarray(inputs.visual_index)[..., None]
        rows = visual[:, : self.config.text.hidden_size]
        return jnp.where(index >= 0, rows[jnp.maximum(index[..., 0], 0)].astype(x.dtype), x)

    def _deep_rows(self, visual: jax.Array | None) -> jax.Array | None:
        """The columns of ``visual`` that are not embedded, ``None`` without any."""
        width = self.config.text.hidden_size
        return None if visual is None or visual.shape[1] == width else visual[:, width:]

    def _add_deep(
        self, inputs: ModelInputs, deep: jax.Array | None, keep: Keep | None = None
    ) -> AfterLayer | None:
        """Adds block j of ``deep [rows, k * D]`` at visual columns behind layer j. ``keep`` as in
        the last layer of ``run_layers``."""
        if deep is None:
            return None
        index, width = jnp.asarray(inputs.visual_index), self.config.text.hidden_size
        count, last = deep.shape[1] // width, len(self.decoder.layers) - 1

        def add(layer: int, x: jax.Array) -> jax.Array:
            if layer >= count:
                return x
            own = index if keep is None or layer != last else keep(index)
            rows = deep[:, layer * width : (layer + 1) * width][jnp.maximum(own, 0)]
            return jnp.where((own >= 0)[..., None], x + rows.astype(x.dtype), x)

        return add

    def run_prompt(
        self, inputs: ModelInputs, visual: jax.Array | None
    ) -> tuple[jax.Array, list[kv.Block]]:
        """The whole prompt: hidden states ``[B, T, D]`` and every layer's keys and values."""
        x = self.embed_prompt(inputs, visual)
        return self.decoder.run_layers(
            x,
            jnp.asarray(inputs.positions),
            lambda layer, q, k, v: prompt_attention(q, k, v, self.attention),
            after_layer=self._add_deep(inputs, self._deep_rows(visual)),
        )

    def prefill(
        self,
        inputs: ModelInputs,
        capacity: int,
        *,
        visual: jax.Array | None = None,
        observe: Observe | None = None,
        observed_layers: int | None = None,
    ) -> tuple[jax.Array, kv.KVCache]:
        """Process the prompt.

        Args:
            capacity: free slots of the cache.
            visual: what ``encode_video`` gave, where the caller has it already.
            observe: called in the trace for each of the first ``observed_layers`` layers
                (``None``: all).

        Returns logits after each row's last token, float32 ``[B, V]``, and a cache with
        ``capacity`` free slots.
        """
        count = len(self.decoder.layers)
        watched = 0 if observe is None else count if observed_layers is None else observed_layers
        begun = self.begin_prefill(inputs, watched, visual=visual, observe=observe)
        return self.end_prefill(inputs, begun, capacity)

    def begin_prefill(
        self,
        inputs: ModelInputs,
        layers: int,
        *,
        visual: jax.Array | None = None,
        observe: Observe | None = None,
    ) -> PartialPrefill:
        """The prompt through the first ``layers`` layers, each of which ``observe`` is told of."""
        visual = self.encode_video(inputs) if visual is None else visual
        x, deep = self.embed_prompt(inputs, visual), self._deep_rows(visual)
        return self._prompt_layers(inputs, PartialPrefill(x, (), deep), layers, observe)

    def end_prefill(
        self, inputs: ModelInputs, begun: PartialPrefill, capacity: int
    ) -> tuple[jax.Array, kv.KVCache]:
        """The layers that ``begin_prefill`` left; returns what ``prefill`` returns."""
        lengths, count = jnp.asarray(inputs.lengths), len(self.decoder.layers)
        answer = jnp.zeros_like(lengths)
        if len(begun.blocks) == count:  # all query rows were kept, the last of them is the end
            answer = jnp.sum(jnp.asarray(inputs.query_columns) >= 0, axis=1) - 1
        done = self._prompt_layers(inputs, begun, count, None)
        logits = self.decoder.logits(_pick(done.hidden, answer[:, None])[:, 0])
        return logits, kv.from_prompt(done.blocks, lengths, capacity)

    def _prompt_layers(
        self, inputs: ModelInputs, begun: PartialPrefill, stop: int, observe: Observe | None
    ) -> PartialPrefill:
        """From where ``begun`` stands to before layer ``stop``."""
        count = len(self.decoder.layers)
        if len(begun.blocks) == stop:
            return begun
        queries = jnp.maximum(jnp.asarray(inputs.query_columns), 0)
        # The last layer answers for the last token alone, or for all rows that are observed.
        columns = jnp.maximum(jnp.asarray(inputs.lengths) - 1, 0)[:, None]
        columns = columns if observe is None else queries

        def attend(layer: int, q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
            last = layer == count - 1
            if observe is not None:
                observe(layer, q if last else _pick(q, queries), k)
            if last:
                return rows_attention(q, k, v, columns)
            return prompt_attention(q, k, v, self.attention)

        keep = (lambda x: _pick(x, columns)) if stop == count else None
        hidden, blocks = self.decoder.run_layers(
            begun.hidden,
            jnp.asarray(inputs.positions),
            attend,
            start=len(begun.blocks),
            stop=stop,
            after_layer=self._add_deep(inputs, begun.deep, keep),
            keep=keep,
        )
        deep = begun.deep
        if deep is not None and stop * self.config.text.hidden_size >= deep.shape[1]:
            deep = None
        return PartialPrefill(hidden, (*begun.blocks, *blocks), deep)

    def forward_block(
        self,
        token_ids: jax.Array,
        positions: jax.Array,
        cache: kv.KVCache,
        tail_lengths: jax.Array,
        *,
        fresh: Sequence[kv.Block] | None = None,
        first: jax.Array | int = 0,
    ) -> tuple[jax.Array, list[kv.Block]]:
        """A block of new tokens against a cache, which is only read.

        Args:
            token_ids: int32 ``[B, Q]``.
            positions: rotary positions, int32 ``[3, B, Q]``.
            tail_lengths: int32 ``[B]``, valid tail slots.
            fresh, first: every layer's keys and values ``[B, W, K, H]`` of tokens behind the tail
                that are not written to it yet, and how many of them there are. A loop that carries
                these few carries no cache.

        Returns:
            Logits float32 ``[B, Q, V]`` and the block's keys and values, for ``cache.write``; with
            ``fresh`` those of all tokens so far, still ``W`` wide.
        """
        behind: list[kv.Block] = []

        def attend(layer: int, q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
            if fresh is not None:
                k, v = (
                    jax.lax.dynamic_update_slice_in_dim(old, new, first, axis=1)
                    for old, new in zip(fresh[layer], (k, v), strict=True)
                )
                behind.append((k, v))
            return cached_attention(
                q, k, v, cache.layers[layer], cache.prompt_lengths, tail_lengths, first
            )

        hidden, blocks = self.decoder.run_layers(self.decoder.embed(token_ids), positions, attend)
        return self.decoder.logits(hidden), blocks if fresh is None else behind


def _pick(x: jax.Array, columns: jax.Array) -> jax.Array:
    """``x [B, T, ...]`` at ``columns [B, R]`` -> ``[B, R, ...]``."""
    return jax.vmap(lambda row, at: row[at])(x, columns)


@jax.jit
def _logits_at(model: VideoLM, inputs: ModelInputs, columns: jax.Array) -> jax.Array:
    def local(model: VideoLM, inputs: ModelInputs, columns: jax.Array) -> jax.Array:
        hidden, _ = model.run_prompt(inputs, model.encode_video(inputs))
        picked = jnp.take_along_axis(hidden, columns[..., None], axis=1)
        return model.decoder.logits(picked)

    return on_devices(local, (model,), inputs, columns)


def abstract_model(config: VideoLMConfig) -> VideoLM:
    """The model with ``jax.ShapeDtypeStruct`` leaves: shapes without memory."""
    return nnx.eval_shape(lambda: VideoLM(config, rngs=nnx.Rngs(0)))
