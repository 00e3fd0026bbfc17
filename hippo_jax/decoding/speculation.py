"""Draft and target together: both prefills, the choice of visual tokens, and rounds in a loop.

Everything here is traced: a call is one program, and nothing in the loop looks at the host.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import jax
import jax.numpy as jnp

from hippo_jax.architectures import cache as kv
from hippo_jax.architectures.video_lm import VideoLM
from hippo_jax.decoding.arguments import Settings
from hippo_jax.decoding.config import HippoConfig
from hippo_jax.decoding.drafting import Prompt, draft_chunk
from hippo_jax.decoding.pruning import prune
from hippo_jax.decoding.sampling import draw, seen_tokens
from hippo_jax.decoding.stats import SpeculationStats
from hippo_jax.decoding.transition import Progress, begin, candidates, commit, transition
from hippo_jax.decoding.verification import is_maximal, judge
from hippo_jax.inputs.model_inputs import ModelInputs
from hippo_jax.scoring.attention import Relevance
from hippo_jax.scoring.rows import row_spans
from hippo_jax.scoring.selection import select_tokens
from hippo_jax.scoring.selectors import SelectionContext, needs, scope, selector_scores, support

Schedule = Literal["sequential", "parallel"]


@jax.tree_util.register_static
@dataclass(frozen=True)
class Plan:
    """Static part of a call: what its program is compiled for.

    Attributes:
        settings: as for plain decoding.
        config: the user's, with nothing left on ``"auto"``.
    """

    settings: Settings
    config: HippoConfig

    @property
    def gamma(self) -> int:
        """Tokens of a chunk."""
        assert isinstance(self.config.gamma, int)
        return self.config.gamma

    @property
    def parallel(self) -> bool:
        """Which state machine."""
        return self.config.schedule == "parallel"

    @property
    def block(self) -> int:
        """Tokens that the target is fed a round. The sequential schedule has one slot more, for the
        token of its own behind a fully accepted chunk."""
        return self.gamma if self.parallel else self.gamma + 1


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SpeculativeState:
    """The loop's carry.

    Attributes:
        progress: tokens, modes and counters.
        target_cache, draft_cache: prompt and tail; valid lengths follow from ``progress``. The
            draft's prompt leaves out the last token, which is fed with the first chunk.
        seen: bool ``[B, V]``, prompt and committed tokens, for a repetition penalty, else ``None``.
        laws: float32 ``[B, gamma, V]``, the draft's processed logits for the pending tokens
            (maximal coupling), else ``None``.
        target_prompt, draft_prompt: constants of the prompt.
        kept: int32 ``[B, K]``, visual tokens that the draft saw, ordinals within the row.
        visual_tokens: int32 ``[B]``.
    """

    progress: Progress
    target_cache: kv.KVCache
    draft_cache: kv.KVCache
    seen: jax.Array | None
    laws: jax.Array | None
    target_prompt: Prompt
    draft_prompt: Prompt
    kept: jax.Array
    visual_tokens: jax.Array


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
    settings, config, gamma = plan.settings, plan.config, plan.gamma
    batch = inputs.token_ids.shape[0]
    lengths = jnp.asarray(inputs.lengths)
    logits, target_cache, draft_visual, kept = _prefill_and_select(
        target, draft, inputs, plan, kept
    )
    pruned = inputs if kept is None else prune(inputs, kept, positions=config.draft_positions)
    _, draft_cache = draft.prefill(pruned, settings.capacity + 2 * gamma, visual=draft_visual)
    draft_cache = replace(draft_cache, prompt_lengths=jnp.asarray(pruned.lengths) - 1)

    vocab_size = logits.shape[-1]
    last = jnp.take_along_axis(jnp.asarray(inputs.token_ids), lengths[:, None] - 1, axis=1)[:, 0]
    seen = None
    if settings.sampler.repetition_penalty != 1.0:
        seen = seen_tokens(jnp.asarray(inputs.token_ids), lengths, vocab_size)
    maximal = is_maximal(settings.sampler)
    no_laws = jnp.zeros((batch, gamma, vocab_size), jnp.float32)
    _, own = row_spans(inputs.table, batch)
    state = SpeculativeState(
        progress=begin(batch, gamma, limit, settings),
        target_cache=target_cache,
        draft_cache=draft_cache,
        seen=seen,
        laws=no_laws if maximal and plan.parallel else None,
        target_prompt=Prompt(lengths, jnp.asarray(inputs.next_position), last),
        draft_prompt=Prompt(lengths, jnp.asarray(pruned.next_position), last),
        kept=_all_tokens(inputs, own) if kept is None else kept,
        visual_tokens=own,
    )
    if plan.parallel:
        chunk, laws, draft_cache = _propose(draft, state, vocab_size, key, plan)
        state = replace(state, draft_cache=draft_cache)
        first = jnp.broadcast_to(logits[:, None], (batch, plan.block, vocab_size))
        return _verdict(state, chunk, laws, first, limit, key, plan)
    token = draw(logits, settings.sampler, seen, key, jnp.arange(batch), lengths)
    progress, count = commit(
        state.progress, token[:, None], jnp.ones_like(lengths), limit, settings
    )
    return replace(state, progress=progress, seen=_mark(seen, token[:, None], count))


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

    def running(carry: tuple[SpeculativeState, jax.Array]) -> jax.Array:
        state, count = carry
        return ~jnp.all(state.progress.done) & (count < rounds)

    def body(carry: tuple[SpeculativeState, jax.Array]) -> tuple[SpeculativeState, jax.Array]:
        state, count = carry
        return one_round(target, draft, state, limit, key, plan), count + 1

    return jax.lax.while_loop(running, body, (state, jnp.zeros_like(rounds)))[0]


def one_round(
    target: VideoLM,
    draft: VideoLM,
    state: SpeculativeState,
    limit: jax.Array,
    key: jax.Array | None,
    plan: Plan,
) -> SpeculativeState:
    """The draft proposes, the target judges, the state moves on.

    In the parallel schedule the target's forward reads nothing that this round's chunk gives, so
    the two can run side by side; here they run one after the other.
    """
    vocab_size = target.config.text.vocab_size
    chunk, laws, draft_cache = _propose(draft, state, vocab_size, key, plan)
    progress = state.progress
    last = _last_committed(progress, state.target_prompt)
    behind = progress.pending[:, : plan.gamma - 1] if plan.parallel else chunk
    block = jnp.concatenate([last[:, None], behind], axis=1)
    tail = jnp.maximum(progress.lengths - 1, 0)
    places = tail[:, None] + jnp.arange(plan.block)
    positions = state.target_prompt.next_position[:, None] + places
    logits, blocks = target.forward_block(
        block, jnp.broadcast_to(positions, (3, *positions.shape)), state.target_cache, tail
    )
    state = replace(
        state, target_cache=kv.write(state.target_cache, blocks, tail), draft_cache=draft_cache
    )
    return _verdict(state, chunk, laws, logits, limit, key, plan)


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


def _prefill_and_select(
    target: VideoLM,
    draft: VideoLM,
    inputs: ModelInputs,
    plan: Plan,
    given: jax.Array | None,
) -> tuple[jax.Array, kv.KVCache, jax.Array | None, jax.Array | None]:
    """Prefill of the target, the draft's visual tokens, and which of them are kept (``None``:
    all)."""
    config, scoring = plan.config, plan.config.scoring
    pruning = inputs.vision is not None and config.keep_ratio < 1 and given is None
    wants_relevance, wants_features, whose = needs(scoring)
    visual = {
        "target": target.encode_video(inputs),
        "draft": draft.encode_video(inputs, draft=True),
    }
    relevance = Relevance(inputs, support(scoring))
    watched: dict[str, Any] = {}
    if pruning and wants_relevance:
        watched = {"observe": relevance.observe}
    of_target = {} if whose != "target" else watched
    if of_target:
        of_target["observed_layers"] = config.score_layers
    capacity = plan.settings.capacity + plan.gamma
    logits, cache = target.prefill(inputs, capacity, visual=visual["target"], **of_target)
    if not pruning:
        return logits, cache, visual["draft"], given
    if whose == "draft" and watched:  # a prefill of its own, of the whole prompt
        draft.prefill(inputs, 1, visual=visual["draft"], **watched)
    context = SelectionContext(
        inputs=inputs,
        keep_ratio=config.keep_ratio,
        relevance=relevance.scores() if wants_relevance else None,
        features=visual[whose] if wants_features else None,
        config=scoring,
    )
    kept = select_tokens(selector_scores(context), inputs, config.keep_ratio, scope=scope(scoring))
    return logits, cache, visual["draft"], kept


def _all_tokens(inputs: ModelInputs, own: jax.Array) -> jax.Array:
    """Every visual token of each row, as ordinals ``[B, W]``."""
    width = min(inputs.token_ids.shape[1], jnp.asarray(inputs.table.row).shape[0])
    ordinals = jnp.arange(width, dtype=jnp.int32)
    return jnp.where(ordinals < own[:, None], ordinals, -1)


def _last_committed(progress: Progress, prompt: Prompt) -> jax.Array:
    """The token that was committed last, ``[B]``: the prompt's last one at first."""
    at = jnp.maximum(progress.lengths - 1, 0)[:, None]
    token = jnp.take_along_axis(progress.tokens, at, axis=1)[:, 0]
    return jnp.where(progress.lengths > 0, token, prompt.last_token)


def _propose(
    draft: VideoLM, state: SpeculativeState, vocab_size: int, key: jax.Array | None, plan: Plan
) -> tuple[jax.Array, jax.Array | None, kv.KVCache]:
    """The draft's next chunk, behind what is committed and pending."""
    progress, prompt = state.progress, state.draft_prompt
    last = _last_committed(progress, prompt)
    index, seen = progress.lengths, state.seen
    if plan.parallel:
        at = jnp.maximum(progress.pending_count - 1, 0)[:, None]
        waiting = jnp.take_along_axis(progress.pending, at, axis=1)[:, 0]
        fed = jnp.where(progress.pending_count > 0, waiting, last)[:, None]
        index = index + progress.pending_count
        seen = _mark(seen, progress.pending, progress.pending_count)
    else:
        # After a fully accepted chunk its last token is not in the draft's cache. Feeding the last
        # two tokens always gives every state one form; the first of them is written twice.
        at = jnp.maximum(progress.lengths - 2, 0)[:, None]
        before = jnp.take_along_axis(progress.tokens, at, axis=1)[:, 0]
        before = jnp.where(progress.lengths > 1, before, prompt.last_token)
        fed = jnp.stack([before, last], axis=1)
        index = jnp.maximum(index, 1)  # rows without a token are done before they begin
    return draft_chunk(
        draft,
        state.draft_cache,
        prompt,
        fed,
        index,
        plan.gamma,
        vocab_size,
        seen,
        key,
        plan.settings,
    )


def _verdict(
    state: SpeculativeState,
    chunk: jax.Array,
    laws: jax.Array | None,
    logits: jax.Array,
    limit: jax.Array,
    key: jax.Array | None,
    plan: Plan,
) -> SpeculativeState:
    """Judge the candidates by the target's ``logits [B, W, V]`` and move on."""
    progress, gamma, settings = state.progress, plan.gamma, plan.settings
    if plan.parallel:
        judged_tokens, judged = candidates(progress, chunk)
        if laws is not None and state.laws is not None:
            waiting = jnp.arange(gamma) < progress.pending_count[:, None]
            judged_laws = jnp.where(waiting[..., None], state.laws, laws[:, :1])
        else:
            judged_laws = None
    else:
        judged_tokens, judged = chunk, jnp.full_like(progress.lengths, gamma)
        judged_laws = laws
    slots = jnp.arange(plan.block)
    positions = (state.target_prompt.lengths + progress.lengths)[:, None] + slots
    choice, agree = judge(
        logits,
        judged_tokens,
        judged_laws,
        settings.sampler,
        _seen_by_slot(state.seen, judged_tokens, plan.block),
        key,
        positions,
    )
    following = transition(
        progress, chunk, judged, choice, agree, limit, settings, parallel=plan.parallel
    )
    kept_laws = state.laws
    if kept_laws is not None and laws is not None:
        kept_laws = jnp.concatenate([laws[:, 1:], laws[:, :1]], axis=1)
    return replace(
        state,
        progress=following,
        seen=_mark(state.seen, choice, following.lengths - progress.lengths),
        laws=kept_laws,
    )


def _mark(seen: jax.Array | None, tokens: jax.Array, count: jax.Array) -> jax.Array | None:
    """``seen [B, V]`` with the first ``count [B]`` of ``tokens [B, W]`` added."""
    if seen is None:
        return None
    rows = jnp.arange(tokens.shape[0])[:, None]
    return seen.at[rows, tokens].max(jnp.arange(tokens.shape[1]) < count[:, None])


def _seen_by_slot(seen: jax.Array | None, tokens: jax.Array, width: int) -> jax.Array | None:
    """What each slot's law counts as seen, ``[B, W, V]``: slot j adds the first j candidates."""
    if seen is None:
        return None
    masks = [seen]
    for slot in range(width - 1):
        masks.append(_mark_one(masks[-1], tokens[:, slot]))
    return jnp.stack(masks, axis=1)


def _mark_one(seen: jax.Array, token: jax.Array) -> jax.Array:
    return seen.at[jnp.arange(token.shape[0]), token].set(True)
