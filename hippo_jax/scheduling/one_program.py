"""Draft and target in one program, each on devices of its own (scheduler A).

One ``shard_map`` over the devices of both. Every device runs the branch of its role; behind the
branches the roles tell each other what they found, tokens and counts, and all devices move the
small state on alike. The loop is a ``lax.while_loop`` whose predicate follows from exchanged values
only, so that all devices leave it together; the host is not in it. The same program runs over
several hosts.

Two things keep a round cheap. Branches read the caches and return new keys and values alone: a
branch that returned a cache would copy it. And a branch talks only to devices of its own role.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from hippo_jax.architectures import cache as kv
from hippo_jax.architectures.sharding import ROLE_AXIS, Home
from hippo_jax.architectures.tensor_parallel import told_by
from hippo_jax.architectures.video_lm import VideoLM
from hippo_jax.inputs.model_inputs import ModelInputs
from hippo_jax.scheduling.faults import failing
from hippo_jax.scheduling.one_device import commit_first, rounds_loop
from hippo_jax.scheduling.plan import Plan
from hippo_jax.scheduling.roles import (
    as_block,
    chooser,
    first_token,
    prepare_draft,
    propose,
    proposed_slot,
    pruned_inputs,
    prunes,
    read_prompt,
    rule,
    verified_slot,
    verify,
)
from hippo_jax.scheduling.state import Proposal, SpeculativeState, first_state, follow, zeros

T = TypeVar("T")
D = TypeVar("D")


@dataclass(frozen=True)
class Roles:
    """Who this device is, inside ``shard_map`` over the devices of both roles."""

    target: Home
    draft: Home

    def is_draft(self) -> jax.Array:
        """Whether this device works for the draft, bool."""
        if ROLE_AXIS in self.target.mesh.axis_names:
            return jax.lax.axis_index(ROLE_AXIS) == 1
        return jax.lax.axis_index(str(self.draft.axis)) >= self.draft.first

    def side_by_side(self, target: Callable[[], T], draft: Callable[[], D]) -> tuple[T, D]:
        """Each role runs its own function. What the other one found is zeros here, until
        ``from_target`` or ``from_draft`` brings it."""
        with failing("target"):
            of_target = jax.eval_shape(target)
        with failing("draft"):
            of_draft = jax.eval_shape(draft)
        found: tuple[T, D] = jax.lax.cond(
            self.is_draft(),
            lambda: (zeros(of_target), draft()),
            lambda: (target(), zeros(of_draft)),
        )
        return found

    def from_target(self, values: T) -> T:
        """The target's values on all devices."""
        return self._from(values, 0, self.target.first)

    def from_draft(self, values: D) -> D:
        """The draft's values on all devices."""
        return self._from(values, 1, self.draft.first)

    def _from(self, values: Any, role: int, first: int) -> Any:
        """The values of the role's first device."""
        axes = self.target.mesh.axis_names
        if ROLE_AXIS in axes:
            own = (jax.lax.axis_index(ROLE_AXIS) == role) & (jax.lax.axis_index(axes[1]) == 0)
        else:
            own = jax.lax.axis_index(axes[0]) == first
        return told_by(values, own, axes)


def start(
    roles: Roles,
    target: VideoLM,
    draft: VideoLM,
    inputs: ModelInputs,
    limit: jax.Array,
    key: jax.Array | None,
    plan: Plan,
) -> SpeculativeState:
    """Both prefills and the first tokens.

    The draft's vision tower runs beside the target's first layers; once these have scored the
    visual tokens, the draft reads what is kept and makes its first chunk beside the others. How
    many layers score is ``HippoConfig.score_layers``.
    """
    pruning = prunes(inputs, plan)
    by_target = chooser(plan) == "target"

    def read() -> Any:
        visual = target.encode_video(inputs)
        return read_prompt(target, inputs, visual, plan, choose=by_target)

    def look() -> Any:
        visual = draft.encode_video(inputs, draft=True)
        if by_target or not pruning:
            return visual, None
        return visual, read_prompt(draft, inputs, visual, plan, choose=True)[1]

    (begun, chosen), (visual, own_choice) = roles.side_by_side(read, look)
    kept = roles.from_target(chosen) if by_target else roles.from_draft(own_choice)
    vocab_size = target.config.text.vocab_size

    def state_with(target_cache: Any, draft_cache: Any) -> SpeculativeState:
        return first_state(
            inputs,
            pruned_inputs(inputs, kept, plan),
            kept,
            limit,
            vocab_size,
            plan,
            target_cache=target_cache,
            draft_cache=draft_cache,
        )

    def end() -> Any:
        logits, cache = target.end_prefill(inputs, begun, plan.settings.capacity + plan.gamma)
        state = state_with(cache, None)
        if not plan.parallel:
            return cache, first_token(logits, state, key, plan)
        block = as_block(logits, plan)
        return cache, block if plan.maximal else rule(block, state, None, key, plan)

    def prepare() -> Any:
        _, cache = prepare_draft(draft, inputs, kept, visual, plan)
        if not plan.parallel:
            return cache, None
        state = state_with(None, cache)
        proposal, blocks = propose(draft, state, vocab_size, key, plan)
        return kv.write(cache, blocks, proposed_slot(state, plan)), proposal

    (target_cache, said), (draft_cache, proposal) = roles.side_by_side(end, prepare)
    # Lengths of the caches are known to all, but each branch gave its own only.
    lengths = jnp.asarray(inputs.lengths)
    target_cache = replace(target_cache, prompt_lengths=lengths)
    pruned_lengths = jnp.asarray(pruned_inputs(inputs, kept, plan).lengths)
    draft_cache = replace(draft_cache, prompt_lengths=pruned_lengths - 1)
    state = state_with(target_cache, draft_cache)
    if not plan.parallel:
        return commit_first(state, roles.from_target(said), limit, plan)
    return _exchange(roles, state, said, proposal, limit, key, plan)


def _exchange(
    roles: Roles,
    state: SpeculativeState,
    said: Any,
    proposal: Proposal,
    limit: jax.Array,
    key: jax.Array | None,
    plan: Plan,
) -> SpeculativeState:
    """Behind a parallel round's branches: ids one way, a verdict the other.

    For maximal coupling ``said`` is the target's logits, which stay on its devices: it can rule
    only when it knows the chunk's first token and law.
    """
    proposal = roles.from_draft(proposal)
    if plan.maximal:

        def judge() -> Any:
            return rule(said, state, proposal, key, plan)

        said, _ = roles.side_by_side(judge, lambda: None)
    return follow(state, proposal, roles.from_target(said), limit, plan)


def one_round(
    roles: Roles,
    target: VideoLM,
    draft: VideoLM,
    state: SpeculativeState,
    limit: jax.Array,
    key: jax.Array | None,
    plan: Plan,
) -> SpeculativeState:
    """Parallel: the target verifies the last chunk while the draft makes the next. Sequential: one
    waits for the other."""
    vocab_size = target.config.text.vocab_size

    def make() -> Any:
        return propose(draft, state, vocab_size, key, plan)

    if plan.parallel:

        def check() -> Any:
            logits, blocks = verify(target, state, None, plan)
            return logits if plan.maximal else rule(logits, state, None, key, plan), blocks

        (said, blocks), (proposal, draft_blocks) = roles.side_by_side(check, make)
        moved = _exchange(roles, state, said, proposal, limit, key, plan)
    else:
        _, (proposal, draft_blocks) = roles.side_by_side(lambda: None, make)
        proposal = roles.from_draft(proposal)

        def check_and_rule() -> Any:
            logits, blocks = verify(target, state, proposal.chunk, plan)
            return rule(logits, state, proposal, key, plan), blocks

        (said, blocks), _ = roles.side_by_side(check_and_rule, lambda: None)
        moved = follow(state, proposal, roles.from_target(said), limit, plan)
    assert state.target_cache is not None and state.draft_cache is not None
    return replace(
        moved,
        target_cache=kv.write(state.target_cache, blocks, verified_slot(state)),
        draft_cache=kv.write(state.draft_cache, draft_blocks, proposed_slot(state, plan)),
    )


def advance(
    roles: Roles,
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
        return one_round(roles, target, draft, state, limit, key, plan)

    return rounds_loop(one, state, rounds)
