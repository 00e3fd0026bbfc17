"""What draft and target both know of a generation, and how a verdict moves it on.

The state is small but for the caches. Where the two models have devices of their own, each keeps a
copy of the small part and moves it on by the same pure function, so that only a chunk's ids travel
one way and a verdict (a count and a token a row) the other.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from hippo_jax.architectures import cache as kv
from hippo_jax.architectures.tensor_parallel import cache_spec
from hippo_jax.decoding.drafting import Prompt
from hippo_jax.decoding.sampling import seen_tokens
from hippo_jax.decoding.stats import SpeculationStats
from hippo_jax.decoding.transition import Progress, begin, candidates, transition
from hippo_jax.inputs.model_inputs import ModelInputs
from hippo_jax.scheduling.plan import Plan
from hippo_jax.scoring.rows import row_spans

T = TypeVar("T")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SpeculativeState:
    """The loop's carry.

    Attributes:
        progress: tokens, modes and counters.
        target_cache, draft_cache: prompt and tail; valid lengths follow from ``progress``. The
            draft's prompt leaves out the last token, which is fed with the first chunk. ``None``
            where the model has devices of its own and this is the other's state.
        seen: bool ``[B, V]``, prompt and committed tokens, for a repetition penalty, else ``None``.
        laws: float32 ``[B, gamma, V]``, the draft's processed logits for the pending tokens
            (maximal coupling), else ``None``.
        target_prompt, draft_prompt: constants of the prompt.
        kept: int32 ``[B, K]``, visual tokens that the draft saw, ordinals within the row.
        visual_tokens: int32 ``[B]``.
    """

    progress: Progress
    target_cache: kv.KVCache | None
    draft_cache: kv.KVCache | None
    seen: jax.Array | None
    laws: jax.Array | None
    target_prompt: Prompt
    draft_prompt: Prompt
    kept: jax.Array
    visual_tokens: jax.Array


def state_specs(axis: str, *, target: bool = True, draft: bool = True) -> SpeculativeState:
    """How a state lies on a mesh: everything the same on all devices, but for the heads of caches.
    ``out_specs`` of ``shard_map``, with specs where the state has arrays.

    ``target``, ``draft``: whether the state holds that model's cache."""
    everywhere: Any = P()
    return SpeculativeState(
        progress=everywhere,
        target_cache=cache_spec(axis) if target else None,
        draft_cache=cache_spec(axis) if draft else None,
        seen=everywhere,
        laws=everywhere,
        target_prompt=everywhere,
        draft_prompt=everywhere,
        kept=everywhere,
        visual_tokens=everywhere,
    )


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Proposal:
    """A round's word from the draft: ``chunk`` int32 ``[B, gamma]`` and, for maximal coupling, the
    processed logits it was drawn from, ``laws`` float32 ``[B, gamma, V]``."""

    chunk: jax.Array
    laws: jax.Array | None


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Verdict:
    """A round's word from the target, int32 ``[B]`` each: it agrees with the first ``count``
    candidates, and behind them stands its own ``token``.

    In the parallel schedule the last candidate is the first token of a chunk that is made at the
    same time. Under greedy decoding and Gumbel coupling the target does not need to know it:
    ``count`` leaves it out, and whether it is accepted follows from its being ``token``.
    """

    count: jax.Array
    token: jax.Array


def first_state(
    inputs: ModelInputs,
    pruned: ModelInputs,
    kept: jax.Array | None,
    limit: jax.Array,
    vocab_size: int,
    plan: Plan,
    *,
    target_cache: kv.KVCache | None,
    draft_cache: kv.KVCache | None,
) -> SpeculativeState:
    """Before the first token. ``kept`` is ``None`` where the draft sees all visual tokens."""
    settings = plan.settings
    token_ids, lengths = jnp.asarray(inputs.token_ids), jnp.asarray(inputs.lengths)
    batch = token_ids.shape[0]
    last = jnp.take_along_axis(token_ids, lengths[:, None] - 1, axis=1)[:, 0]
    penalty = settings.sampler.repetition_penalty != 1.0
    no_laws = jnp.zeros((batch, plan.gamma, vocab_size), jnp.float32)
    _, own = row_spans(inputs.table, batch)
    return SpeculativeState(
        progress=begin(batch, plan.gamma, limit, settings),
        target_cache=target_cache,
        draft_cache=draft_cache,
        seen=seen_tokens(token_ids, lengths, vocab_size) if penalty else None,
        laws=no_laws if plan.maximal and plan.parallel else None,
        target_prompt=Prompt(lengths, jnp.asarray(inputs.next_position), last),
        draft_prompt=Prompt(lengths, jnp.asarray(pruned.next_position), last),
        kept=_all_tokens(inputs, own) if kept is None else kept,
        visual_tokens=own,
    )


def zeros(shapes: T) -> T:
    """Zeros in place of what ``jax.eval_shape`` gave."""
    found: T = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return found


def last_committed(state: SpeculativeState) -> jax.Array:
    """The token that was committed last, ``[B]``: the prompt's last one at first."""
    progress = state.progress
    at = jnp.maximum(progress.lengths - 1, 0)[:, None]
    token = jnp.take_along_axis(progress.tokens, at, axis=1)[:, 0]
    return jnp.where(progress.lengths > 0, token, state.target_prompt.last_token)


def follow(
    state: SpeculativeState, proposal: Proposal, verdict: Verdict, limit: jax.Array, plan: Plan
) -> SpeculativeState:
    """The state behind a round. Pure, and of small arrays only: both roles compute it alike."""
    progress, chunk = state.progress, proposal.chunk
    if plan.parallel:
        proposed, judged = candidates(progress, chunk)
    else:
        proposed, judged = chunk, jnp.full_like(progress.lengths, plan.gamma)
    slots = jnp.arange(plan.block)
    proposed = jnp.pad(proposed, ((0, 0), (0, plan.block - plan.gamma)), constant_values=-1)
    accepted = slots < verdict.count[:, None]
    choice = jnp.where(accepted, proposed, verdict.token[:, None])
    # A candidate refused by rejection sampling stays refused, even if it is then drawn again.
    agree = accepted if plan.maximal else choice == proposed
    following = transition(
        progress, chunk, judged, choice, agree, limit, plan.settings, parallel=plan.parallel
    )
    laws = state.laws
    if laws is not None and proposal.laws is not None:
        laws = jnp.concatenate([proposal.laws[:, 1:], proposal.laws[:, :1]], axis=1)
    return replace(
        state,
        progress=following,
        seen=mark(state.seen, choice, following.lengths - progress.lengths),
        laws=laws,
    )


def finish(state: SpeculativeState, plan: Plan) -> tuple[jax.Array, jax.Array, SpeculationStats]:
    """Tokens ``[B, capacity]`` padded behind each row's end, lengths ``[B]``, and counters."""
    progress, settings = state.progress, plan.settings
    tokens = progress.tokens[:, : settings.capacity]
    valid = jnp.arange(settings.capacity) < progress.lengths[:, None]
    stats = SpeculationStats(
        rounds=progress.rounds,
        round_tokens=progress.round_tokens,
        accepted=progress.accepted,
        judged=progress.judged,
        runs=progress.runs,
        visual_tokens=state.visual_tokens,
        kept_visual_tokens=jnp.sum(state.kept >= 0, axis=1).astype(jnp.int32),
        kept_indices=state.kept,
    )
    return jnp.where(valid, tokens, settings.pad), progress.lengths, stats


def mark(seen: jax.Array | None, tokens: jax.Array, count: jax.Array) -> jax.Array | None:
    """``seen [B, V]`` with the first ``count [B]`` of ``tokens [B, W]`` added."""
    if seen is None:
        return None
    rows = jnp.arange(tokens.shape[0])[:, None]
    return seen.at[rows, tokens].max(jnp.arange(tokens.shape[1]) < count[:, None])


def _all_tokens(inputs: ModelInputs, own: jax.Array) -> jax.Array:
    """Every visual token of each row, as ordinals ``[B, W]``."""
    # At least one column: jaxlib 0.11.2 crashes compiling a loop that carries an empty array over
    # several devices.
    width = max(1, min(inputs.token_ids.shape[1], jnp.asarray(inputs.table.row).shape[0]))
    ordinals = jnp.arange(width, dtype=jnp.int32)
    return jnp.where(ordinals < own[:, None], ordinals, -1)
