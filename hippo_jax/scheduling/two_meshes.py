"""Draft and target as two programs side by side, each on its own mesh (scheduler B).

The host enqueues a round on both meshes and goes on; what a round decides is decided on the
devices, and the meshes send each other small arrays. The host looks at nothing but a flag that says
whether all rows are done, and that two rounds late, so that it never waits for the round at hand;
this look is also what keeps the queues short.

One thread enqueues for both where dispatch returns at once. A transfer between platforms makes its
thread wait, and a CPU client may run a small program in the thread that dispatches it: there each
role has a thread of its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from hippo_jax.architectures.video_lm import VideoLM
from hippo_jax.decoding.generate import Generation
from hippo_jax.inputs.model_inputs import ModelInputs
from hippo_jax.placement.placement import Placement
from hippo_jax.scheduling import sides
from hippo_jax.scheduling.faults import Trail
from hippo_jax.scheduling.flat import FlatModel
from hippo_jax.scheduling.plan import Plan
from hippo_jax.scheduling.role_threads import Mailbox, run_threads
from hippo_jax.scheduling.roles import prunes
from hippo_jax.scheduling.state import Proposal, SpeculativeState, Verdict, finish

LAG = 2  # rounds between a flag and the host's look at it


@dataclass(frozen=True)
class Call:
    """One generation on two meshes.

    Attributes:
        vocab_size: the target's.
        on_target, on_draft: put a pytree on every device of that mesh, whole; returns at once.
        target_constants, draft_constants: limit and key, on their mesh.
        trail: by which a failure is traced to its role.
    """

    target: FlatModel
    draft: FlatModel
    vocab_size: int
    plan: Plan
    on_target: Callable[[Any], Any]
    on_draft: Callable[[Any], Any]
    target_constants: tuple[Any, Any]
    draft_constants: tuple[Any, Any]
    trail: Trail = field(default_factory=Trail)


class TargetSide:
    """The target's part of a generation: one call of ``step`` a round."""

    def __init__(self, call: Call, state: SpeculativeState, said: Any) -> None:
        self.call, self.state, self.said = call, state, said

    def step(self, proposal: Proposal, send: Callable[[Verdict], None]) -> jax.Array:
        """Take a chunk, say a verdict on it, verify on.

        In the parallel schedule the verdict is said before the forward is enqueued, which may keep
        this thread busy: the draft makes its next chunk meanwhile. What the forward finds is said
        at the next call.

        Args:
            proposal: on the target's mesh.
            send: is given the verdict, on the target's mesh too.

        Returns whether all rows are done, a bool array.
        """
        call, plan = self.call, self.call.plan
        constants = call.target_constants
        counted: tuple[Any, Any] = (None, None)
        if not plan.parallel:
            counted = (proposal, None)
        elif plan.maximal:
            self.state, verdict = sides.target_rules(
                call.target, self.state, self.said, proposal, *constants, plan
            )
            call.trail.note("target", verdict)
            send(verdict)
        else:
            counted = (proposal, self.said)
            send(self.said)
        self.state, self.said, done = sides.target_verifies(
            call.target, self.state, *counted, *constants, plan
        )
        call.trail.note("target", done)
        if not plan.parallel:
            send(self.said)
        return done


class DraftSide:
    """The draft's part of a generation."""

    def __init__(self, call: Call, state: SpeculativeState, proposal: Proposal | None) -> None:
        self.call, self.state, self.proposal = call, state, proposal

    def step(self, verdict: Verdict) -> Proposal:
        """Take the verdict on the last chunk, make the next."""
        call = self.call
        self.state, self.proposal = sides.draft_proposes(
            call.draft,
            self.state,
            self.proposal,
            verdict,
            *call.draft_constants,
            call.plan,
            call.vocab_size,
        )
        call.trail.note("draft", self.proposal)
        return self.proposal


def begin(
    target: VideoLM,
    draft: VideoLM,
    inputs: ModelInputs,
    limit: Any,
    key: Any,
    plan: Plan,
    placement: Placement,
) -> tuple[TargetSide, DraftSide]:
    """Enqueue both prefills.

    The draft's vision tower starts with the target; as soon as the score layers have chosen the
    visual tokens, the draft reads its prompt and makes its first chunk, while the target finishes
    the other layers (all on ``score_layers=None``, where nothing of the prompt is left by then).

    Raises:
        HippoError: devices of another process.
        RoleError: a program failed.
    """
    placement.require_own_devices()
    assert placement.target is not None and placement.draft is not None
    on_target, on_draft = _put(placement.target), _put(placement.draft)
    constants = (np.int32(limit) if isinstance(limit, int) else limit, key)
    call = Call(
        FlatModel.of(target),
        FlatModel.of(draft),
        target.config.text.vocab_size,
        plan,
        on_target,
        on_draft,
        on_target(constants),
        on_draft(constants),
    )
    trail = call.trail
    with trail.of("target"):
        target_inputs = on_target(inputs)
        begun, chosen = sides.target_reads(call.target, target_inputs, plan)
        trail.note("target", chosen)
    with trail.of("draft"):
        draft_inputs = on_draft(inputs)
        visual, own_choice = sides.draft_looks(call.draft, draft_inputs, plan)
    # Before the chosen tokens go over: between platforms the host waits for them.
    with trail.of("target"):
        target_state, said = sides.target_starts(
            call.target, target_inputs, begun, chosen, *call.target_constants, plan
        )
        trail.note("target", said)
    with trail.of("draft"):
        kept = own_choice if chosen is None else on_draft(chosen)
        draft_state, proposal = sides.draft_starts(
            call.draft, draft_inputs, kept, visual, *call.draft_constants, plan, call.vocab_size
        )
        trail.note("draft", proposal)
    if prunes(inputs, plan) and chosen is None:
        target_state = replace(target_state, kept=on_target(own_choice))
    return TargetSide(call, target_state, said), DraftSide(call, draft_state, proposal)


def on_two_meshes(
    target: VideoLM,
    draft: VideoLM,
    inputs: ModelInputs,
    limit: Any,
    key: Any,
    plan: Plan,
    placement: Placement,
) -> Generation:
    """A generation from prompt to end; the result lies on the target's mesh."""
    return complete(*begin(target, draft, inputs, limit, key, plan, placement), placement)


def complete(target: TargetSide, draft: DraftSide, placement: Placement) -> Generation:
    """All rounds behind ``begin``; the result lies on the target's mesh."""
    state = run(target, draft, threads=needs_threads(placement))
    return Generation(*_finish(state, target.call.plan))


_finish = partial(jax.jit, static_argnames="plan")(finish)


def _put(mesh: Mesh) -> Callable[[Any], Any]:
    everywhere = NamedSharding(mesh, P())
    return lambda tree: jax.device_put(tree, everywhere)


def first_chunk(target: TargetSide, draft: DraftSide) -> Proposal:
    """The chunk that begins the rounds, on the draft's mesh."""
    if draft.proposal is not None:
        return draft.proposal
    return draft.step(draft.call.on_draft(target.said))


def rounds(target: TargetSide, draft: DraftSide) -> Iterator[jax.Array]:
    """Enqueue rounds from one thread, without end; each gives its done flag.

    ``target.state`` is then the state behind that round; the next round uses up its arrays. The
    draft has been told to go on by then: who waits for the round lets both work meanwhile.
    """
    call = target.call
    with call.trail.of("draft"):
        proposal = first_chunk(target, draft)
    while True:
        with call.trail.of("target"):
            said: list[Verdict] = []
            done = target.step(call.on_target(proposal), said.append)
        with call.trail.of("draft"):
            proposal = draft.step(call.on_draft(said[0]))
        yield done


def run(target: TargetSide, draft: DraftSide, *, threads: bool) -> SpeculativeState:
    """All rounds; the target's final state, computed.

    Raises:
        RoleError: a program failed, when it was enqueued or while it ran.
    """
    with target.call.trail.of("target"):
        if threads:
            _run_threads(target, draft)
        else:
            flags: deque[jax.Array] = deque()
            for done in rounds(target, draft):
                if _late_look(flags, done):
                    break
        # Behind the look there are surplus rounds, which cost next to nothing: a failure there
        # would else come to light in the caller's hands.
        return jax.block_until_ready(target.state)


def _late_look(flags: deque[jax.Array], done: jax.Array) -> bool:
    """Whether the flag of ``LAG`` rounds ago was set."""
    done.copy_to_host_async()
    flags.append(done)
    return len(flags) > LAG and bool(flags.popleft())


def needs_threads(placement: Placement) -> bool:
    """Whether each role should have a thread of its own."""
    assert placement.target is not None and placement.draft is not None
    kinds = {mesh.devices.flat[0].platform for mesh in (placement.target, placement.draft)}
    return len(kinds) > 1 or kinds == {"cpu"}


def _run_threads(target: TargetSide, draft: DraftSide) -> None:
    """Each role in a thread. They hand each other arrays that may not be computed yet."""
    call = target.call
    chunks, verdicts = Mailbox(), Mailbox()

    def send(verdict: Verdict) -> None:
        verdicts.put(call.on_draft(verdict))

    def target_rounds() -> None:
        flags: deque[jax.Array] = deque()
        with call.trail.of("target"):
            while True:
                if _late_look(flags, target.step(chunks.take(), send)):
                    return

    def draft_rounds() -> None:
        with call.trail.of("draft"):
            chunks.put(call.on_target(first_chunk(target, draft)))
            while True:
                chunks.put(call.on_target(draft.step(verdicts.take())))

    run_threads({"target": target_rounds, "draft": draft_rounds}, (chunks, verdicts))
