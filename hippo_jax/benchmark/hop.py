"""What an exchange between draft and target takes where each has devices of its own."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from hippo_jax.architectures.tensor_parallel import on_devices
from hippo_jax.architectures.video_lm import VideoLM
from hippo_jax.benchmark.forwards import milliseconds
from hippo_jax.benchmark.measure import Run
from hippo_jax.inputs.model_inputs import ModelInputs
from hippo_jax.placement.pair import ModelPair
from hippo_jax.scheduling import one_program, two_meshes
from hippo_jax.scheduling.plan import Plan
from hippo_jax.scheduling.state import Proposal, Verdict

EXCHANGES = 64  # of one measurement


def measured_hop(pair: ModelPair, inputs: ModelInputs, limit: Any, plan: Plan) -> Run:
    """What an exchange between the roles takes, in ms.

    In one program: the sums by which both roles hear of each other. On two meshes: a round that
    finds all rows done, so that nothing is left of it but handing programs and words over.
    """
    if not pair.placement.two_meshes:
        return milliseconds(_exchanges(pair, plan), EXCHANGES)
    models = (pair.target, pair.draft)
    target, draft = two_meshes.begin(*models, inputs, limit, None, plan, pair.placement)
    two_meshes.run(target, draft, threads=two_meshes.needs_threads(pair.placement))

    def surplus() -> Any:
        for _ in itertools.islice(two_meshes.rounds(target, draft), EXCHANGES):
            pass
        return target.state, draft.state

    return milliseconds(surplus, EXCHANGES)


def _exchanges(pair: ModelPair, plan: Plan) -> Callable[[], Any]:
    assert pair.target.home is not None and pair.draft.home is not None
    roles = one_program.Roles(pair.target.home, pair.draft.home)

    def local(target: VideoLM, draft: VideoLM, proposal: Proposal, verdict: Verdict) -> Any:
        def once(_: Any, words: tuple[Proposal, Verdict]) -> tuple[Proposal, Verdict]:
            return roles.from_draft(words[0]), roles.from_target(words[1])

        return jax.lax.fori_loop(0, EXCHANGES, once, (proposal, verdict))

    zero = jnp.zeros((1,), jnp.int32)
    words = (Proposal(jnp.zeros((1, plan.gamma), jnp.int32), None), Verdict(zero, zero))
    models = (pair.target, pair.draft)
    program = jax.jit(lambda *all: on_devices(local, all[:2], *all[2:]))
    compiled = program.lower(*models, *words).compile()
    return lambda: compiled(*models, *words)
