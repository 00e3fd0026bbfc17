"""The programs of two meshes: each touches one model and runs on its devices only.

Both sides keep their own copy of the small state. A side's program of a round first moves it on by
the last round's proposal and verdict, so that what crosses between the meshes is a chunk's ids one
way and a count and a token a row the other (rejection sampling sends the draft's laws too).

Every program begins by looking whether all rows are done; if so it leaves the forward out. The host
may therefore enqueue more rounds than are needed: they cost next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from hippo_jax.architectures import cache as kv
from hippo_jax.architectures.cache import PartialPrefill
from hippo_jax.architectures.tensor_parallel import on_devices, prefill_spec
from hippo_jax.architectures.video_lm import VideoLM
from hippo_jax.inputs.model_inputs import ModelInputs
from hippo_jax.scheduling.flat import FlatModel
from hippo_jax.scheduling.one_device import commit_first
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
from hippo_jax.scheduling.state import (
    Proposal,
    SpeculativeState,
    Verdict,
    first_state,
    follow,
    state_specs,
    zeros,
)

Key = jax.Array | None
T = TypeVar("T")


def _unless_done(state: SpeculativeState, function: Callable[[], T]) -> T:
    """``function()``, or zeros of the same shapes once every row is done."""
    shapes = jax.eval_shape(function)
    found: T = jax.lax.cond(
        jnp.all(state.progress.done),
        lambda: zeros(shapes),
        function,
    )
    return found


def _target_and(count: int) -> Callable[[str], Any]:
    """The target's state, and ``count`` results that are the same on all its devices."""
    return lambda axis: (state_specs(axis, draft=False), *[P()] * count)


def _draft_and(count: int) -> Callable[[str], Any]:
    """The draft's state, and ``count`` results that are the same on all its devices."""
    return lambda axis: (state_specs(axis, target=False), *[P()] * count)


# The target ------------------------------------------------------------------------------------


@partial(jax.jit, static_argnames="plan")
def target_reads(target: FlatModel, inputs: ModelInputs, plan: Plan) -> Any:
    """The video and as many layers as score it; the kept tokens, if the target's scores choose."""

    def local(target: VideoLM, inputs: ModelInputs) -> Any:
        visual = target.encode_video(inputs)
        return read_prompt(target, inputs, visual, plan, choose=chooser(plan) == "target")

    return on_devices(
        local, (target.model(),), inputs, outputs=lambda axis: (prefill_spec(axis), P())
    )


@partial(jax.jit, static_argnames="plan")
def target_starts(
    target: FlatModel,
    inputs: ModelInputs,
    begun: PartialPrefill,
    kept: jax.Array | None,
    limit: jax.Array,
    key: Key,
    plan: Plan,
) -> tuple[SpeculativeState, Any]:
    """The other layers. What it says: a verdict, or for maximal coupling the logits ``[B, W, V]``
    that it will rule by."""

    def local(
        target: VideoLM,
        inputs: ModelInputs,
        begun: PartialPrefill,
        kept: jax.Array | None,
        limit: jax.Array,
        key: Key,
    ) -> tuple[SpeculativeState, Any]:
        logits, cache = target.end_prefill(inputs, begun, plan.settings.capacity + plan.gamma)
        state = first_state(
            inputs,
            inputs,
            kept,
            limit,
            logits.shape[-1],
            plan,
            target_cache=cache,
            draft_cache=None,
        )
        if not plan.parallel:
            verdict = first_token(logits, state, key, plan)
            return commit_first(state, verdict, limit, plan), verdict
        block = as_block(logits, plan)
        return state, block if plan.maximal else rule(block, state, None, key, plan)

    return on_devices(
        local,
        (target.model(),),
        inputs,
        begun,
        kept,
        limit,
        key,
        outputs=_target_and(1),
    )


@partial(jax.jit, static_argnames="plan", donate_argnames="state")
def target_verifies(
    target: FlatModel,
    state: SpeculativeState,
    proposal: Proposal | None,
    verdict: Verdict | None,
    limit: jax.Array,
    key: Key,
    plan: Plan,
) -> tuple[SpeculativeState, Any, jax.Array]:
    """A forward. Parallel: behind the last round's ``proposal`` and ``verdict`` (if they are not
    counted yet), says the next verdict, or the logits for maximal coupling. Sequential: judges
    ``proposal`` and moves on. The third result says whether all rows were done before it."""

    def local(
        target: VideoLM,
        state: SpeculativeState,
        proposal: Proposal | None,
        verdict: Verdict | None,
        limit: jax.Array,
        key: Key,
    ) -> tuple[SpeculativeState, Any, jax.Array]:
        if verdict is not None:
            assert proposal is not None
            state = follow(state, proposal, verdict, limit, plan)

        def forward() -> Any:
            chunk = None if plan.parallel or proposal is None else proposal.chunk
            logits, blocks = verify(target, state, chunk, plan)
            if plan.parallel and plan.maximal:
                return logits, blocks
            return rule(logits, state, None if plan.parallel else proposal, key, plan), blocks

        said, blocks = _unless_done(state, forward)
        assert state.target_cache is not None
        cache = kv.write(state.target_cache, blocks, verified_slot(state))
        done = jnp.all(state.progress.done)
        state = replace(state, target_cache=cache)
        if not plan.parallel:
            assert proposal is not None
            state = follow(state, proposal, said, limit, plan)
            done = jnp.all(state.progress.done)
        return state, said, done

    return on_devices(
        local, (target.model(),), state, proposal, verdict, limit, key, outputs=_target_and(2)
    )


@partial(jax.jit, static_argnames="plan", donate_argnames="state")
def target_rules(
    target: FlatModel,
    state: SpeculativeState,
    logits: jax.Array,
    proposal: Proposal,
    limit: jax.Array,
    key: Key,
    plan: Plan,
) -> tuple[SpeculativeState, Verdict]:
    """Rejection sampling in the parallel schedule: a verdict on a chunk that is known by now."""

    def local(target: VideoLM, state: SpeculativeState, *rest: Any) -> Any:
        logits, proposal, limit, key = rest
        verdict = rule(logits, state, proposal, key, plan)
        return follow(state, proposal, verdict, limit, plan), verdict

    return on_devices(
        local, (target.model(),), state, logits, proposal, limit, key, outputs=_target_and(1)
    )


# The draft -------------------------------------------------------------------------------------


@partial(jax.jit, static_argnames="plan")
def draft_looks(draft: FlatModel, inputs: ModelInputs, plan: Plan) -> Any:
    """The draft's visual tokens, which wait for no scores, and the kept ones if it chooses."""

    def local(draft: VideoLM, inputs: ModelInputs) -> Any:
        visual = draft.encode_video(inputs, draft=True)
        if chooser(plan) == "target" or not prunes(inputs, plan):
            return visual, None
        return visual, read_prompt(draft, inputs, visual, plan, choose=True)[1]

    return on_devices(local, (draft.model(),), inputs)


@partial(jax.jit, static_argnames=("plan", "vocab_size"))
def draft_starts(
    draft: FlatModel,
    inputs: ModelInputs,
    kept: jax.Array | None,
    visual: jax.Array | None,
    limit: jax.Array,
    key: Key,
    plan: Plan,
    vocab_size: int,
) -> tuple[SpeculativeState, Proposal | None]:
    """The pruned prompt and, in the parallel schedule, the first chunk."""

    def local(draft: VideoLM, *rest: Any) -> Any:
        inputs, kept, visual, limit, key = rest
        pruned, cache = prepare_draft(draft, inputs, kept, visual, plan)
        state = first_state(
            inputs, pruned, kept, limit, vocab_size, plan, target_cache=None, draft_cache=cache
        )
        if not plan.parallel:
            return state, None
        proposal, blocks = propose(draft, state, vocab_size, key, plan)
        cache = kv.write(cache, blocks, proposed_slot(state, plan))
        return replace(state, draft_cache=cache), proposal

    return on_devices(
        local, (draft.model(),), inputs, kept, visual, limit, key, outputs=_draft_and(1)
    )


@partial(jax.jit, static_argnames=("plan", "vocab_size"), donate_argnames="state")
def draft_proposes(
    draft: FlatModel,
    state: SpeculativeState,
    proposal: Proposal | None,
    verdict: Verdict,
    limit: jax.Array,
    key: Key,
    plan: Plan,
    vocab_size: int,
) -> tuple[SpeculativeState, Proposal]:
    """Behind the last round's ``proposal`` and ``verdict``, the next chunk. Without a proposal the
    verdict is the sequential schedule's first token."""

    def local(draft: VideoLM, *rest: Any) -> tuple[SpeculativeState, Proposal]:
        state, proposal, verdict, limit, key = rest
        assert isinstance(state, SpeculativeState)
        if proposal is None:
            state = commit_first(state, verdict, limit, plan)
        else:
            state = follow(state, proposal, verdict, limit, plan)
        made, blocks = _unless_done(state, lambda: propose(draft, state, vocab_size, key, plan))
        assert state.draft_cache is not None
        cache = kv.write(state.draft_cache, blocks, proposed_slot(state, plan))
        return replace(state, draft_cache=cache), made

    return on_devices(
        local, (draft.model(),), state, proposal, verdict, limit, key, outputs=_draft_and(1)
    )
