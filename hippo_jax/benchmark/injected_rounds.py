"""Rounds of the injected pair: one role alone, both by turns, in one program, on two meshes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from hippo_jax.architectures.sharding import TENSOR_AXIS
from hippo_jax.benchmark import role_rounds
from hippo_jax.benchmark.injected import Work, injected_pair, tiny_prompt
from hippo_jax.decoding.config import HippoConfig
from hippo_jax.inputs.model_inputs import ModelInputs
from hippo_jax.placement.pair import ModelPair
from hippo_jax.placement.placement import Placement
from hippo_jax.scheduling import programs, two_meshes
from hippo_jax.scheduling.plan import Plan, make_plan

Answer = tuple[list[int], int]
"""Tokens, and how many rounds had forwards."""

_advance = partial(jax.jit, static_argnames="plan")(programs.advance)
ADVANCE, VERIFIES, PROPOSES = "jit_advance", "jit_target_verifies", "jit_draft_proposes"


@dataclass(frozen=True)
class InjectedRounds:
    """The pair on one device, in one program over two, and on two meshes, and how it decodes.

    Each method below does what comes before the rounds and returns a function for these.
    """

    single: ModelPair
    program: ModelPair
    meshes: ModelPair
    inputs: ModelInputs
    limit: np.int32
    plan: Plan
    rounds: int

    @staticmethod
    def of(
        works: tuple[Work, Work], devices: Sequence[jax.Device], gamma: int, rounds: int
    ) -> InjectedRounds:
        """
        Args:
            works: of a target forward and of a draft forward.
            devices: the target's and the draft's.
            rounds: with a forward of each role.
        """
        first, second = devices
        alone = Mesh(np.array([first]), (TENSOR_AXIS,))
        single = injected_pair(*works, Placement(target=alone, draft=alone))
        inputs = tiny_prompt(single.target)
        # The prefill's verdict commits one token, that of each round with forwards gamma.
        tokens = 1 + gamma * rounds
        config = HippoConfig(schedule="parallel", gamma=gamma, keep_ratio=1.0)
        plan, limit = make_plan(single, inputs, tokens, None, None, None, (), config)
        return InjectedRounds(
            single=single,
            program=injected_pair(*works, Placement.on([first], [second], one_program=True)),
            meshes=injected_pair(*works, Placement.on([first], [second])),
            inputs=inputs,
            limit=np.int32(limit),
            plan=plan,
            rounds=rounds,
        )

    def by_turns(self) -> Callable[[], Answer]:
        """One role after the other, on one device."""
        return self._advance(self.single)

    def in_one_program(self) -> Callable[[], Answer]:
        """Scheduler A."""
        return self._advance(self.program)

    def _advance(self, pair: ModelPair) -> Callable[[], Answer]:
        models = (pair.target, pair.draft)
        state = programs.start_alone(*models, self.inputs, self.limit, None, plan=self.plan)
        jax.block_until_ready(state)
        every = np.int32(programs.ALL_ROUNDS)
        return lambda: _answer(_advance(*models, state, self.limit, None, every, plan=self.plan))

    def on_two_meshes(self) -> Callable[[], Answer]:
        """Scheduler B."""
        target, draft = self._sides()
        threads = two_meshes.needs_threads(self.meshes.placement)
        return lambda: _answer(two_meshes.run(target, draft, threads=threads))

    def target_alone(self) -> Callable[[], None]:
        """The target's program of a round, again and again."""
        return role_rounds.target_alone(*self._sides(), self.rounds)

    def draft_alone(self) -> Callable[[], None]:
        """The draft's."""
        return role_rounds.draft_alone(*self._sides(), self.rounds)

    def _sides(self) -> tuple[two_meshes.TargetSide, two_meshes.DraftSide]:
        pair = self.meshes
        target, draft = two_meshes.begin(
            pair.target, pair.draft, self.inputs, self.limit, None, self.plan, pair.placement
        )
        jax.block_until_ready((target.state, target.said, draft.state, draft.proposal))
        return target, draft


def _answer(state: Any) -> Answer:
    progress = jax.device_get(state.progress)
    # The first verdict is the prefill's: it needs no forward.
    return progress.tokens[0].tolist(), int(progress.rounds[0]) - 1
