"""The draft makes a chunk: gamma tokens, one small forward each."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from hippo_jax.architectures import cache as kv
from hippo_jax.architectures.video_lm import VideoLM
from hippo_jax.decoding.arguments import Settings
from hippo_jax.decoding.verification import fit_vocabulary, is_maximal, propose


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Prompt:
    """What a model's decoding must know of the prompt; constant in the loop. int32 ``[B]`` each.

    Attributes:
        lengths: tokens of the whole prompt, which key the noise.
        next_position: rotary position of the first generated token, for this model.
        last_token: the prompt's last token.
    """

    lengths: jax.Array
    next_position: jax.Array
    last_token: jax.Array


def draft_chunk(
    draft: VideoLM,
    cache: kv.KVCache,
    prompt: Prompt,
    fed: jax.Array,
    index: jax.Array,
    gamma: int,
    vocab_size: int,
    seen: jax.Array | None,
    key: jax.Array | None,
    settings: Settings,
) -> tuple[jax.Array, jax.Array | None, list[kv.Block]]:
    """Propose ``gamma`` tokens.

    Tokens are numbered from the prompt's last one (0), which the draft's cache leaves out: token i
    takes tail slot i. So a chunk always begins by feeding what was said last, in every state.

    Args:
        fed: int32 ``[B, Q]``, the tokens to feed first; Q is 1, or 2 where the one before the last
            may be missing from the cache.
        index: int32 ``[B]``, number of the last of them.
        vocab_size: the target's.
        seen: bool ``[B, V]`` for a repetition penalty: ids up to and including ``fed``.

    Returns:
        Tokens int32 ``[B, gamma]``, their laws float32 ``[B, gamma, V]`` (processed logits;
        ``None`` unless coupling is maximal), and for ``cache.write`` the keys and values of all
        tokens fed. The cache itself is only read: inside a loop or a branch a cache that is
        written would be copied.
    """
    batch, width = fed.shape
    rows = jnp.arange(batch)
    known = draft.config.text.vocab_size
    banned = [i for i in (draft.config.image_token_id, draft.config.video_token_id) if i >= 0]
    laws = (
        jnp.zeros((batch, gamma, vocab_size), jnp.float32) if is_maximal(settings.sampler) else None
    )

    start = index - (width - 1)

    def step(fed: jax.Array, first: jax.Array | int, carry: _Carry, place: jax.Array) -> _Carry:
        """Feed tokens behind the ``first`` that this chunk has fed already, draw the next."""
        slots = (start + first)[:, None] + jnp.arange(fed.shape[1])
        positions = jnp.broadcast_to(prompt.next_position[:, None] - 1 + slots, (3, *slots.shape))
        logits, fresh = draft.forward_block(
            jnp.minimum(fed, known - 1), positions, cache, start, fresh=carry.fresh, first=first
        )
        fitted = fit_vocabulary(logits[:, -1], vocab_size)
        if banned:  # a model that was trained says no placeholders: proposing them is wasted
            fitted = fitted.at[:, jnp.array(banned)].set(-1e30, mode="drop")
        token, law = propose(
            fitted, settings.sampler, carry.seen, key, rows, prompt.lengths + slots[:, -1]
        )
        return _Carry(
            fresh=fresh,
            tokens=carry.tokens.at[:, place].set(token),
            laws=None if carry.laws is None else carry.laws.at[:, place].set(law),
            seen=None if carry.seen is None else carry.seen.at[rows, token].set(True),
        )

    fresh = kv.fresh_blocks(cache, gamma + width - 1)
    carry = _Carry(fresh, jnp.zeros((batch, gamma), jnp.int32), laws, seen)
    done = 0
    if width > 1:
        carry = step(fed, 0, carry, jnp.int32(0))
        done = 1

    def again(place: jax.Array, carry: _Carry) -> _Carry:
        last = jnp.where(place > 0, carry.tokens[:, place - 1], fed[:, -1])
        return step(last[:, None], place + width - 1, carry, place)

    carry = jax.lax.fori_loop(done, gamma, again, carry)
    return carry.tokens, carry.laws, carry.fresh


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Carry:
    fresh: list[kv.Block]
    tokens: jax.Array
    laws: jax.Array | None
    seen: jax.Array | None
