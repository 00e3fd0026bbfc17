"""Rounds of one role alone: its program of a round, again and again, on its mesh."""

from __future__ import annotations

from collections.abc import Callable

import jax

from hippo_jax.scheduling import sides
from hippo_jax.scheduling.two_meshes import DraftSide, TargetSide


def target_alone(target: TargetSide, draft: DraftSide, rounds: int) -> Callable[[], None]:
    """Runs the target's program of a round. It hears the same chunk each time: that makes other
    tokens and the same work. Uses up the target's state."""
    call, chunk = target.call, target.call.on_target(draft.proposal)
    jax.block_until_ready((target.state, target.said, chunk))

    def go() -> None:
        state = target.state
        for _ in range(rounds):
            state, _, _ = sides.target_verifies(
                call.target, state, chunk, target.said, *call.target_constants, call.plan
            )
        jax.block_until_ready(state)

    return go


def draft_alone(target: TargetSide, draft: DraftSide, rounds: int) -> Callable[[], None]:
    """The same for the draft, which hears the same verdict each time."""
    call, said = draft.call, draft.call.on_draft(target.said)
    jax.block_until_ready((draft.state, draft.proposal, said))

    def go() -> None:
        state = draft.state
        for _ in range(rounds):
            state, _ = sides.draft_proposes(
                call.draft,
                state,
                draft.proposal,
                said,
                *call.draft_constants,
                call.plan,
                call.vocab_size,
            )
        jax.block_until_ready(state)

    return go
