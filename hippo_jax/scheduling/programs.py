"""The parts of a generation as functions to compile, wherever the pair lives."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from hippo_jax.architectures.tensor_parallel import on_devices
from hippo_jax.architectures.video_lm import VideoLM
from hippo_jax.decoding.generate import Generation
from hippo_jax.inputs.model_inputs import ModelInputs
from hippo_jax.scheduling import one_device, one_program
from hippo_jax.scheduling.plan import Plan
from hippo_jax.scheduling.state import SpeculativeState, finish, state_specs

ALL_ROUNDS = 2**30


def start(
    target: VideoLM,
    draft: VideoLM,
    inputs: ModelInputs,
    limit: jax.Array,
    key: jax.Array | None,
    plan: Plan,
) -> SpeculativeState:
    """Both prefills, the choice of visual tokens, and the first tokens."""
    roles = _roles(target, draft)

    def local(
        target: VideoLM,
        draft: VideoLM,
        inputs: ModelInputs,
        limit: jax.Array,
        key: jax.Array | None,
    ) -> SpeculativeState:
        if roles is None:
            return one_device.start(target, draft, inputs, limit, key, plan)
        return one_program.start(roles, target, draft, inputs, limit, key, plan)

    return on_devices(local, (target, draft), inputs, limit, key, outputs=state_specs)


start_alone = partial(jax.jit, static_argnames="plan")(start)
"""``start`` as a program of its own."""


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
    roles = _roles(target, draft)

    def local(
        target: VideoLM,
        draft: VideoLM,
        state: SpeculativeState,
        limit: jax.Array,
        key: jax.Array | None,
        rounds: jax.Array,
    ) -> SpeculativeState:
        if roles is None:
            return one_device.advance(target, draft, state, limit, key, rounds, plan)
        return one_program.advance(roles, target, draft, state, limit, key, rounds, plan)

    return on_devices(local, (target, draft), state, limit, key, rounds, outputs=state_specs)


def whole(
    target: VideoLM,
    draft: VideoLM,
    inputs: ModelInputs,
    limit: jax.Array,
    key: jax.Array | None,
    plan: Plan,
) -> Generation:
    """A generation from prompt to end, on one device or in one program over many."""
    roles = _roles(target, draft)

    def local(
        target: VideoLM,
        draft: VideoLM,
        inputs: ModelInputs,
        limit: jax.Array,
        key: jax.Array | None,
    ) -> Generation:
        rounds = jnp.int32(ALL_ROUNDS)
        if roles is None:
            state = one_device.start(target, draft, inputs, limit, key, plan)
            state = one_device.advance(target, draft, state, limit, key, rounds, plan)
        else:
            state = one_program.start(roles, target, draft, inputs, limit, key, plan)
            state = one_program.advance(roles, target, draft, state, limit, key, rounds, plan)
        return Generation(*finish(state, plan))

    return on_devices(local, (target, draft), inputs, limit, key)


def _roles(target: VideoLM, draft: VideoLM) -> one_program.Roles | None:
    """The roles of a program's devices, ``None`` where every device does both."""
    if target.home is None or draft.home is None or not target.home.has_roles:
        return None
    return one_program.Roles(target.home, draft.home)
