"""What the target does and what the draft does, each on its own.

Every function here touches the weights of one model. Schedulers put them one behind the other on
one device, into the two branches of one program, or into programs of two meshes.
"""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp

from hippo_jax.architectures import cache as kv
from hippo_jax.architectures.cache import PartialPrefill
from hippo_jax.architectures.video_lm import VideoLM
from hippo_jax.decoding.drafting import draft_chunk
from hippo_jax.decoding.pruning import prune
from hippo_jax.decoding.sampling import draw
from hippo_jax.decoding.transition import candidates
from hippo_jax.decoding.verification import judge
from hippo_jax.inputs.model_inputs import ModelInputs
from hippo_jax.scheduling.plan import Plan
from hippo_jax.scheduling.state import Proposal, SpeculativeState, Verdict, last_committed, mark
from hippo_jax.scoring.attention import Relevance
from hippo_jax.scoring.selection import select_tokens
from hippo_jax.scoring.selectors import SelectionContext, needs, scope, selector_scores, support


def prunes(inputs: ModelInputs, plan: Plan) -> bool:
    """Whether the draft sees less than the whole video."""
    return inputs.vision is not None and plan.config.keep_ratio < 1


def chooser(plan: Plan) -> str:
    """Whose scores choose the kept tokens: ``"target"`` or ``"draft"``."""
    return needs(plan.config.scoring)[2]


def read_prompt(
    model: VideoLM, inputs: ModelInputs, visual: jax.Array | None, plan: Plan, *, choose: bool
) -> tuple[PartialPrefill, jax.Array | None]:
    """The prompt as far as the scores need it, and the kept tokens.

    Args:
        visual: the model's visual tokens.
        choose: whether this model's scores choose. If not, nothing is run yet.

    Returns kept tokens as int32 ``[B, K]``, ordinals within the row, -1 for none; ``None`` if this
    model does not choose, or nothing is pruned.
    """
    config, scoring = plan.config, plan.config.scoring
    if not (choose and prunes(inputs, plan)):
        return model.begin_prefill(inputs, 0, visual=visual), None
    wants_relevance, wants_features, whose = needs(scoring)
    relevance = Relevance(inputs, support(scoring), model.head_shards)
    layers = model.config.text.num_layers
    if whose == "target" and config.score_layers is not None:
        layers = config.score_layers
    begun = model.begin_prefill(
        inputs, layers if wants_relevance else 0, visual=visual, observe=relevance.observe
    )
    context = SelectionContext(
        inputs=inputs,
        keep_ratio=config.keep_ratio,
        relevance=relevance.scores() if wants_relevance else None,
        features=(
            model.visual_features(inputs, visual) if wants_features and visual is not None else None
        ),
        config=scoring,
    )
    kept = select_tokens(selector_scores(context), inputs, config.keep_ratio, scope=scope(scoring))
    return begun, kept


def prepare_draft(
    draft: VideoLM,
    inputs: ModelInputs,
    kept: jax.Array | None,
    visual: jax.Array | None,
    plan: Plan,
) -> tuple[ModelInputs, kv.KVCache]:
    """The pruned prompt, read by the draft. Its cache leaves out the last token."""
    pruned = pruned_inputs(inputs, kept, plan)
    room = plan.settings.capacity + 2 * plan.gamma
    _, cache = draft.prefill(pruned, room, visual=visual)
    return pruned, replace(cache, prompt_lengths=jnp.asarray(pruned.lengths) - 1)


def pruned_inputs(inputs: ModelInputs, kept: jax.Array | None, plan: Plan) -> ModelInputs:
    """The prompt with the kept visual tokens alone."""
    if kept is None:
        return inputs
    return prune(inputs, kept, positions=plan.config.draft_positions)


def first_token(
    logits: jax.Array, state: SpeculativeState, key: jax.Array | None, plan: Plan
) -> Verdict:
    """The sequential schedule's first token, from the prefill's ``logits [B, V]``."""
    lengths = state.target_prompt.lengths
    rows = jnp.arange(lengths.shape[0])
    token = draw(logits, plan.settings.sampler, state.seen, key, rows, lengths)
    return Verdict(jnp.zeros_like(lengths), token)


def as_block(logits: jax.Array, plan: Plan) -> jax.Array:
    """The prefill's ``logits [B, V]`` in the form of a round's, ``[B, W, V]``: with nothing pending
    only the first slot counts."""
    return jnp.broadcast_to(logits[:, None], (logits.shape[0], plan.block, logits.shape[1]))


def propose(
    draft: VideoLM, state: SpeculativeState, vocab_size: int, key: jax.Array | None, plan: Plan
) -> tuple[Proposal, list[kv.Block]]:
    """The draft's next chunk, behind what is committed and pending.

    Returns keys and values too, for ``proposed_slot`` of the cache.
    """
    progress, prompt, cache = state.progress, state.draft_prompt, state.draft_cache
    assert cache is not None
    last = last_committed(state)
    index, seen = progress.lengths, state.seen
    if plan.parallel:
        at = jnp.maximum(progress.pending_count - 1, 0)[:, None]
        waiting = jnp.take_along_axis(progress.pending, at, axis=1)[:, 0]
        fed = jnp.where(progress.pending_count > 0, waiting, last)[:, None]
        index = index + progress.pending_count
        seen = mark(seen, progress.pending, progress.pending_count)
    else:
        # After a fully accepted chunk its last token is not in the draft's cache. Feeding the last
        # two tokens always gives every state one form; the first of them is written twice.
        at = jnp.maximum(progress.lengths - 2, 0)[:, None]
        before = jnp.take_along_axis(progress.tokens, at, axis=1)[:, 0]
        before = jnp.where(progress.lengths > 1, before, prompt.last_token)
        fed = jnp.stack([before, last], axis=1)
        index = jnp.maximum(index, 1)  # rows without a token are done before they begin
    chunk, laws, blocks = draft_chunk(
        draft, cache, prompt, fed, index, plan.gamma, vocab_size, seen, key, plan.settings
    )
    return Proposal(chunk, laws), blocks


def proposed_slot(state: SpeculativeState, plan: Plan) -> jax.Array:
    """The tail slot ``[B]`` where the tokens that ``propose`` feeds begin."""
    progress = state.progress
    if plan.parallel:
        return progress.lengths + progress.pending_count
    return jnp.maximum(progress.lengths, 1) - 1


def verify(
    target: VideoLM, state: SpeculativeState, chunk: jax.Array | None, plan: Plan
) -> tuple[jax.Array, list[kv.Block]]:
    """The target's forward of a round: behind the last committed token, what waits for a verdict.

    Args:
        chunk: the round's chunk in the sequential schedule. The parallel schedule's forward reads
            nothing that the round's chunk gives: that is why the two can run side by side.

    Returns logits ``[B, W, V]``, and keys and values for ``verified_slot`` of the cache.
    """
    progress, cache = state.progress, state.target_cache
    assert cache is not None
    behind = progress.pending[:, : plan.gamma - 1] if plan.parallel else chunk
    assert behind is not None
    block = jnp.concatenate([last_committed(state)[:, None], behind], axis=1)
    tail = verified_slot(state)
    places = tail[:, None] + jnp.arange(plan.block)
    positions = state.target_prompt.next_position[:, None] + places
    return target.forward_block(
        block, jnp.broadcast_to(positions, (3, *positions.shape)), cache, tail
    )


def verified_slot(state: SpeculativeState) -> jax.Array:
    """The tail slot ``[B]`` of the last committed token, where ``verify`` begins."""
    return jnp.maximum(state.progress.lengths - 1, 0)


def rule(
    logits: jax.Array,
    state: SpeculativeState,
    proposal: Proposal | None,
    key: jax.Array | None,
    plan: Plan,
) -> Verdict:
    """The target's verdict on the candidates, by its ``logits [B, W, V]``.

    ``proposal`` may be ``None`` in the parallel schedule, except for maximal coupling (see
    ``Verdict``).
    """
    progress, gamma = state.progress, plan.gamma
    waiting = jnp.arange(gamma) < progress.pending_count[:, None]
    laws = None if proposal is None else proposal.laws
    if not plan.parallel:
        assert proposal is not None
        judged_tokens, judged = proposal.chunk, jnp.full_like(progress.lengths, gamma)
    elif not plan.maximal:
        judged_tokens, judged = jnp.where(waiting, progress.pending, -1), progress.pending_count
    else:
        assert proposal is not None and laws is not None and state.laws is not None
        judged_tokens, judged = candidates(progress, proposal.chunk)
        laws = jnp.where(waiting[..., None], state.laws, laws[:, :1])
    slots = jnp.arange(plan.block)
    positions = (state.target_prompt.lengths + progress.lengths)[:, None] + slots
    choice, agree = judge(
        logits,
        judged_tokens,
        laws,
        plan.settings.sampler,
        _seen_by_slot(state.seen, judged_tokens, plan.block),
        key,
        positions,
    )
    straight = jnp.cumprod(agree & (slots < judged[:, None]), axis=1)
    count = jnp.sum(straight, axis=1, dtype=jnp.int32)
    behind = jnp.minimum(count, plan.block - 1)[:, None]
    return Verdict(count, jnp.take_along_axis(choice, behind, axis=1)[:, 0])


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
