"""Plain decoding: prefill, then one token at a time in a compiled loop."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from hippo_jax.architectures import cache as kv
from hippo_jax.architectures.tensor_parallel import cache_spec, on_devices
from hippo_jax.architectures.video_lm import VideoLM
from hippo_jax.decoding.arguments import Settings, make_settings
from hippo_jax.decoding.sampling import Sampler, draw, seen_tokens
from hippo_jax.errors import HippoError
from hippo_jax.inputs.model_inputs import ModelInputs


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Generation:
    """What was generated.

    Attributes:
        tokens: int32 ``[B, capacity]``, right-padded with the pad id. An end-of-sequence token
            that stopped a row is its last token.
        lengths: int32 ``[B]``, valid tokens of each row.
        stats: counters of speculative decoding, ``None`` for plain decoding.
    """

    tokens: jax.Array
    lengths: jax.Array
    stats: Any = None

    def text(self, tokenizer: Any) -> list[str]:
        """Each row as a string, special tokens left out."""
        tokens, lengths = np.asarray(self.tokens), np.asarray(self.lengths)
        return [
            tokenizer.decode(row[:length].tolist(), skip_special_tokens=True)
            for row, length in zip(tokens, lengths, strict=True)
        ]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DecodeState:
    """The loop's carry.

    Attributes:
        cache: prompt and tail; ``tail_length`` slots of the tail are valid.
        tokens: int32 ``[B, capacity]``.
        lengths: int32 ``[B]``, tokens generated so far (those of a finished row stay).
        done: bool ``[B]``.
        step: int32, tokens drawn by the rows that still run.
        seen: bool ``[B, V]`` for a repetition penalty, else ``None``.
    """

    cache: kv.KVCache
    tokens: jax.Array
    lengths: jax.Array
    done: jax.Array
    step: jax.Array
    seen: jax.Array | None


def _commit(
    state: DecodeState, token: jax.Array, limit: jax.Array, settings: Settings
) -> DecodeState:
    """Append ``token [B]`` to the rows that still run."""
    running = ~state.done
    written = jnp.where(running, token, settings.pad)
    tokens = jax.lax.dynamic_update_slice(
        state.tokens, written[:, None], (jnp.int32(0), state.step)
    )
    lengths = state.lengths + running
    ended = jnp.isin(token, jnp.array(settings.eos, jnp.int32)) if settings.eos else False
    seen = state.seen
    if seen is not None:
        rows = jnp.arange(token.shape[0])
        seen = seen.at[rows, token].max(running)
    return DecodeState(
        cache=state.cache,
        tokens=tokens,
        lengths=lengths,
        done=state.done | ended | (lengths >= limit),
        step=state.step + 1,
        seen=seen,
    )


def _prefill(
    model: VideoLM,
    inputs: ModelInputs,
    limit: jax.Array,
    key: jax.Array | None,
    settings: Settings,
) -> DecodeState:
    """Process the prompt and draw the first token."""
    logits, cache = model.prefill(inputs, settings.capacity)
    batch, vocab_size = logits.shape
    lengths = jnp.asarray(inputs.lengths)
    seen = None
    if settings.sampler.repetition_penalty != 1.0:
        seen = seen_tokens(jnp.asarray(inputs.token_ids), lengths, vocab_size)
    state = DecodeState(
        cache=cache,
        tokens=jnp.full((batch, settings.capacity), settings.pad, jnp.int32),
        lengths=jnp.zeros(batch, jnp.int32),
        done=jnp.broadcast_to(limit < 1, (batch,)),
        step=jnp.int32(0),
        seen=seen,
    )
    token = draw(logits, settings.sampler, seen, key, jnp.arange(batch), lengths)
    return _commit(state, token, limit, settings)


def _decode(
    model: VideoLM,
    state: DecodeState,
    next_position: jax.Array,
    limit: jax.Array,
    key: jax.Array | None,
    settings: Settings,
    *,
    until: jax.Array | None = None,
) -> DecodeState:
    """One token a step until every row is done, or until step ``until``.

    The newest token is not in the cache yet.
    """
    batch = state.done.shape[0]
    rows = jnp.arange(batch)

    def step(state: DecodeState) -> DecodeState:
        slot = state.step - 1  # tail slot of the token fed now
        fed = jax.lax.dynamic_slice_in_dim(state.tokens, slot, 1, axis=1)
        positions = jnp.broadcast_to((next_position + slot)[:, None], (3, batch, 1))
        tail = jnp.broadcast_to(slot, (batch,))
        logits, blocks = model.forward_block(fed, positions, state.cache, tail)
        cache = kv.write(state.cache, blocks, slot)
        state = DecodeState(cache, state.tokens, state.lengths, state.done, state.step, state.seen)
        own = cache.prompt_lengths + state.step  # absolute position of the token to draw
        token = draw(logits[:, 0], settings.sampler, state.seen, key, rows, own)
        return _commit(state, token, limit, settings)

    def running(state: DecodeState) -> jax.Array:
        more = ~jnp.all(state.done)
        return more if until is None else more & (state.step < until)

    return jax.lax.while_loop(running, step, state)


def prefill_state(
    model: VideoLM, inputs: ModelInputs, limit: jax.Array, key: jax.Array | None, settings: Settings
) -> DecodeState:
    """The first part of ``generate``, to be compiled on its own: prompt and first token."""

    def local(model: VideoLM, *rest: Any) -> DecodeState:
        inputs, limit, key = rest
        return _prefill(model, inputs, limit, key, settings)

    return on_devices(local, (model,), inputs, limit, key, outputs=_state_specs)


def decode_loop(
    model: VideoLM,
    state: DecodeState,
    next_position: jax.Array,
    limit: jax.Array,
    key: jax.Array | None,
    settings: Settings,
    *,
    until: jax.Array | None = None,
) -> DecodeState:
    """The second part of ``generate``: one token a step until every row is done, or until step
    ``until``."""

    def local(model: VideoLM, *rest: Any) -> DecodeState:
        state, next_position, limit, key, until = rest
        return _decode(model, state, next_position, limit, key, settings, until=until)

    arguments = (state, next_position, limit, key, until)
    return on_devices(local, (model,), *arguments, outputs=_state_specs)


def _state_specs(axis: str) -> DecodeState:
    everywhere: Any = P()
    return DecodeState(
        cache=cache_spec(axis),
        tokens=everywhere,
        lengths=everywhere,
        done=everywhere,
        step=everywhere,
        seen=everywhere,
    )


@partial(jax.jit, static_argnames="settings")
def _generate(
    model: VideoLM,
    inputs: ModelInputs,
    limit: jax.Array,
    key: jax.Array | None,
    settings: Settings,
) -> Generation:
    def local(
        model: VideoLM, inputs: ModelInputs, limit: jax.Array, key: jax.Array | None
    ) -> Generation:
        state = _prefill(model, inputs, limit, key, settings)
        final = _decode(model, state, jnp.asarray(inputs.next_position), limit, key, settings)
        return Generation(final.tokens, final.lengths)

    return on_devices(local, (model,), inputs, limit, key)


def generate(
    model: VideoLM,
    inputs: ModelInputs,
    *,
    max_new_tokens: Any = 128,
    capacity: int | None = None,
    sampling: Sampler | None = None,
    key: jax.Array | None = None,
    eos_token_ids: tuple[int, ...] | None = None,
) -> Generation:
    """Decode with one model. Pure: usable under ``jax.jit``; compiled by itself outside of it.

    Args:
        max_new_tokens: tokens a row may get, 128 by default; may be traced (then give
            ``capacity``, which it cannot exceed). Another limit in the same capacity compiles
            nothing.
        capacity: static size of the result; by default the bucket of ``max_new_tokens``.
        sampling: ``Greedy()`` (default) or ``Sampling(...)``, which needs ``key``.
        key: ``jax.random.key``; one key gives one result.
        eos_token_ids: ids that end a row; ``None``: the checkpoint's; ``()``: never stop.

    Returns:
        A ``Generation``; rows stop on their own, the call when all have.

    Raises:
        HippoError: arguments that do not fit.
    """
    if not isinstance(model, VideoLM):
        raise HippoError(f"generate takes one VideoLM, got {type(model).__name__}; use pair.target")
    settings, limit = make_settings(
        model, inputs, max_new_tokens, capacity, sampling, key, eos_token_ids
    )
    return _generate(model, inputs, limit, key, settings)
