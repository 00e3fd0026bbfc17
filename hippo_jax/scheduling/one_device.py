"""Draft and target one after the other: both prefills, the choice of tokens, rounds in a loop.

Everything here is traced: a call is one program, and nothing in the loop looks at the host. Run
inside ``on_devices``, both models are split over all devices of one mesh, which is the rival that
devices of one's own for the draft have to beat.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp

from hippo_jax.architectures import cache as kv
from hippo_jax.architectures.video_lm import VideoLM
from hippo_jax.decoding.transition import commit
from hippo_jax.inputs.model_inputs import ModelInputs
from hippo_jax.scheduling.plan import Plan
from hippo_jax.scheduling.roles import (
    as_block,
    chooser,
    first_token,
    prepare_draft,
    propose,
    proposed_slot,
    prunes,
    read_prompt,
    rule,
    verified_slot,
    verify,
)
from hippo_jax.scheduling.state import SpeculativeState, Verdict, first_state, follow, mark

Round = Callable[[SpeculativeState], SpeculativeState]


def start(
    target: VideoLM,
    draft: VideoLM,
    inputs: ModelInputs,
    limit: jax.Array,
    key: jax.Array | None,
    plan: Plan,
    *,
    kept: jax.Array | None = None,
) -> SpeculativeState:
    """Prefill both models and commit the first token, which is always the target's.

    In the parallel schedule the draft's first chunk is made before that, and the token that the
    prefill's logits give judges its first token: that is the state machine's own first round.

    ``kept`` (int32 ``[B, K]``, ordinals within the row, -1 for none) says which visual tokens the
    draft sees, instead of the scores.
    """
    visual = target.encode_video(inputs)
    draft_visual = draft.encode_video(inputs, draft=True)
    pruning = prunes(inputs, plan) and kept is None
    by_target = pruning and chooser(plan) == "target"
    begun, chosen = read_prompt(target, inputs, visual, plan, choose=by_target)
    if pruning and not by_target:  # a prefill of the draft's own, of the whole prompt
        _, chosen = read_prompt(draft, inputs, draft_visual, plan, choose=True)
    kept = chosen if kept is None else kept
    logits, target_cache = target.end_prefill(inputs, begun, plan.settings.capacity + plan.gamma)
    pruned, draft_cache = prepare_draft(draft, inputs, kept, draft_visual, plan)
    vocab_size = logits.shape[-1]
    state = first_state(
        inputs,
        pruned,
        kept,
        limit,
        vocab_size,
        plan,
        target_cache=target_cache,
        draft_cache=draft_cache,
    )
    if not plan.parallel:
        return commit_first(state, first_token(logits, state, key, plan), limit, plan)
    proposal, blocks = propose(draft, state, vocab_size, key, plan)
    draft_cache = kv.write(draft_cache, blocks, proposed_slot(state, plan))
    verdict = rule(as_block(logits, plan), state, proposal, key, plan)
    return follow(replace(state, draft_cache=draft_cache), proposal, verdict, limit, plan)


def commit_first(
    state: SpeculativeState, verdict: Verdict, limit: jax.Array, plan: Plan
) -> SpeculativeState:
    """The sequential schedule's first token: it comes with the prefill and counts as no round."""
    token = verdict.token[:, None]
    progress, count = commit(
        state.progress, token, jnp.ones_like(verdict.token), limit, plan.settings
    )
    return replace(state, progress=progress, seen=mark(state.seen, token, count))


def rounds_loop(one: Round, state: SpeculativeState, rounds: jax.Array) -> SpeculativeState:
    """At most ``rounds`` (int32) times ``one``, fewer when every row is done."""

    def running(carry: tuple[SpeculativeState, jax.Array]) -> jax.Array:
        state, count = carry
        return ~jnp.all(state.progress.done) & (count < rounds)

    def body(carry: tuple[SpeculativeState, jax.Array]) -> tuple[SpeculativeState, jax.Array]:
        state, count = carry
        return one(state), count + 1

    return jax.lax.while_loop(running, body, (state, jnp.zeros_like(rounds)))[0]


def advance(
    target: VideoLM,
    draft: VideoLM,
    state: SpeculativeState,
    limit: jax.Array,
    key: jax.Array | None,
    rounds: jax.Array,
    plan: Plan,
) -> SpeculativeState:
    """At most ``rounds`` (int32) more rounds, fewer when every row is done."""

    def one(state: SpeculativeState) -> SpeculativeState:
        return one_round(target, draft, state, limit, key, plan)

    return rounds_loop(one, state, rounds)


def one_round(
    target: VideoLM,
    draft: VideoLM,
    state: SpeculativeState,
    limit: jax.Array,
    key: jax.Array | None,
    plan: Plan,
) -> SpeculativeState:
    """The draft proposes, the target judges, the state moves on."""
    vocab_size = target.config.text.vocab_size
    assert state.target_cache is not None and state.draft_cache is not None
    proposal, draft_blocks = propose(draft, state, vocab_size, key, plan)
    logits, blocks = verify(target, state, proposal.chunk, plan)
    verdict = rule(logits, state, proposal, key, plan)
    state = replace(
        state,
        target_cache=kv.write(state.target_cache, blocks, verified_slot(state)),
        draft_cache=kv.write(state.draft_cache, draft_blocks, proposed_slot(state, plan)),
    )
    return follow(state, proposal, verdict, limit, plan)
