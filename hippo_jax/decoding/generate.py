"""Plain decoding: prefill, then one token at a time in a compiled loop."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hippo_jax.architectures import cache as kv
from hippo_jax.architectures.video_lm import VideoLM
from hippo_jax.decoding.sampling import Greedy, Sampler, Sampling, draw, seen_tokens
from hippo_jax.errors import HippoError
from hippo_jax.inputs.buckets import bucket
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


@jax.tree_util.register_static
@dataclass(frozen=True)
class Settings:
    """Static part of a call: what a compiled program is specialised for."""

    capacity: int
    sampler: Sampler = field(default_factory=Greedy)
    eos: tuple[int, ...] = ()
    pad: int = 0


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


def prefill_state(
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


def decode_loop(
    model: VideoLM,
    state: DecodeState,
    next_position: jax.Array,
    limit: jax.Array,
    key: jax.Array | None,
    settings: Settings,
) -> DecodeState:
    """One token a step until every row is done. The newest token is not in the cache yet."""
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

    return jax.lax.while_loop(lambda s: ~jnp.all(s.done), step, state)


@partial(jax.jit, static_argnames="settings")
def _generate(
    model: VideoLM,
    inputs: ModelInputs,
    limit: jax.Array,
    key: jax.Array | None,
    settings: Settings,
) -> Generation:
    state = prefill_state(model, inputs, limit, key, settings)
    final = decode_loop(model, state, jnp.asarray(inputs.next_position), limit, key, settings)
    return Generation(final.tokens, final.lengths)


def make_settings(
    model: VideoLM,
    inputs: ModelInputs,
    max_new_tokens: Any,
    capacity: int | None,
    sampling: Sampler | None,
    key: jax.Array | None,
    eos_token_ids: tuple[int, ...] | None,
) -> tuple[Settings, Any]:
    """Check a call's arguments.

    Returns its static settings and the traced limit. Raises ``HippoError`` for what the user can
    mend.
    """
    sampler = Greedy() if sampling is None else sampling
    if not isinstance(sampler, (Greedy, Sampling)):
        raise HippoError(f"sampling must be Greedy() or Sampling(...), got {sampling!r}")
    if isinstance(sampler, Sampling) and key is None:
        raise HippoError("sampling needs a key: pass key=jax.random.key(seed)")
    if not isinstance(model, VideoLM):
        raise HippoError(f"generate takes one VideoLM, got {type(model).__name__}; use pair.target")
    if isinstance(sampler, Sampling):
        _check_key(key)
    eos = _eos_ids(model, eos_token_ids)
    if capacity is not None and (isinstance(capacity, bool) or not isinstance(capacity, int)):
        raise HippoError(f"capacity must be a whole number, got {capacity!r}")
    traced = isinstance(max_new_tokens, jax.core.Tracer)
    if not traced:
        wanted = _whole_number(max_new_tokens)
        if wanted < 1:
            raise HippoError(f"max_new_tokens must be at least 1, got {wanted}")
        if capacity is not None and wanted > capacity:
            raise HippoError(f"max_new_tokens {wanted} is above capacity {capacity}")
        if not isinstance(inputs.lengths, jax.core.Tracer):
            longest = int(np.max(np.asarray(inputs.lengths)))
            if longest + wanted > model.config.text.max_positions:
                raise HippoError(
                    f"{longest} prompt tokens and {wanted} new ones exceed the "
                    f"{model.config.text.max_positions} that the model allows; use fewer frames or "
                    "a smaller max_new_tokens"
                )
        capacity = capacity or bucket(wanted, 32)
    elif capacity is None:
        raise HippoError("max_new_tokens is traced, so give the static capacity=")
    elif not jnp.issubdtype(max_new_tokens.dtype, jnp.integer):
        raise HippoError(f"max_new_tokens must be a whole number, got {max_new_tokens.dtype}")
    if capacity is None or not 1 <= capacity <= model.config.text.max_positions:
        raise HippoError(
            f"capacity must be from 1 to the model's {model.config.text.max_positions} positions, "
            f"got {capacity}"
        )
    limit = jnp.minimum(max_new_tokens, capacity) if traced else np.int32(max_new_tokens)
    return Settings(capacity, sampler, eos, model.config.pad_token_id), limit


KEY_INSIDE: Any = object()
"""In place of a key: the caller makes it from a seed inside its own program."""


def _whole_number(max_new_tokens: Any) -> int:
    array = np.asarray(max_new_tokens)
    if array.ndim or array.dtype.kind not in "iu":
        raise HippoError(f"max_new_tokens must be one whole number, got {max_new_tokens!r}")
    return int(array)


def _eos_ids(model: VideoLM, given: Any) -> tuple[int, ...]:
    known = model.config.text.vocab_size
    if given is None:  # a checkpoint may name ids that its head does not have: never drawn
        return tuple(i for i in model.config.eos_token_ids if 0 <= i < known)
    ids = given
    if not isinstance(ids, (tuple, list)) or any(
        isinstance(i, bool) or not isinstance(i, (int, np.integer)) or not 0 <= i < known
        for i in ids
    ):
        raise HippoError(
            f"eos_token_ids must be a tuple of ids from 0 to {known - 1}, or () to never stop; "
            f"got {ids!r}"
        )
    return tuple(int(i) for i in ids)


def _check_key(key: Any) -> None:
    """Noise must not depend on batch mates, which only threefry keys promise under ``vmap``."""
    if key is KEY_INSIDE:
        return
    if not isinstance(key, (jax.Array, np.ndarray)):
        raise HippoError(f"key must be made by jax.random.key(seed), got {type(key).__name__}")
    if key.ndim != (0 if jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key) else 1):
        raise HippoError(f"key must be one key, got an array of shape {key.shape}")
    typed = jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key)
    kind = str(jax.random.key_impl(key if typed else jax.random.wrap_key_data(jnp.asarray(key))))
    if "threefry" not in kind:
        raise HippoError(
            f"keys of kind {kind} draw differently in batches; use "
            "jax.random.key(seed, impl='threefry2x32')"
        )


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
    settings, limit = make_settings(
        model, inputs, max_new_tokens, capacity, sampling, key, eos_token_ids
    )
    return _generate(model, inputs, limit, key, settings)
