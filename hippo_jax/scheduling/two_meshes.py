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

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from hippo_jax.architectures.video_lm import VideoLM
from hippo_jax.decoding.generate import Generation
from hippo_jax.errors import HippoError
from hippo_jax.inputs.model_inputs import ModelInputs
from hippo_jax.placement.placement import Placement
from hippo_jax.scheduling import sides
from hippo_jax.scheduling.plan import Plan
from hippo_jax.scheduling.roles import prunes
from hippo_jax.scheduling.state import Proposal, SpeculativeState, Verdict, finish

LAG = 2  # rounds between a flag and the host's look at it


@dataclass(frozen=True)
class Call:
    """One generation on two meshes.

    Attributes:
        on_target, on_draft: put a pytree on every device of that mesh, whole; returns at once.
        target_constants, draft_constants: limit and key, on their mesh.
    """

    target: VideoLM
    draft: VideoLM
    plan: Plan
    on_target: Callable[[Any], Any]
    on_draft: Callable[[Any], Any]
    target_constants: tuple[Any, Any]
    draft_constants: tuple[Any, Any]

    @property
    def vocab_size(self) -> int:
        """The target's."""
        return self.target.config.text.vocab_size


class TargetSide:
    """The target's part of a generation: one call of ``step`` a round."""

    def __init__(self, call: Call, state: SpeculativeState, said: Any) -> None:
        self.call, self.state, self.said = call, state, said

    def step(self, proposal: Proposal) -> tuple[Verdict, jax.Array]:
        """Take a chunk, say a verdict, verify on. Returns the verdict, on the target's mesh, and
        whether all rows are done (bool array). In the parallel schedule the forward runs while the
        draft makes the next chunk; what it finds is said at the next call."""
        call, plan = self.call, self.call.plan
        if not plan.parallel:
            self.state, verdict, done = sides.target_verifies(
                call.target, self.state, proposal, None, *call.target_constants, plan
            )
            return verdict, done
        if plan.maximal:
            self.state, verdict = sides.target_rules(
                call.target, self.state, self.said, proposal, *call.target_constants, plan
            )
            self.state, self.said, done = sides.target_verifies(
                call.target, self.state, None, None, *call.target_constants, plan
            )
            return verdict, done
        verdict = self.said
        self.state, self.said, done = sides.target_verifies(
            call.target, self.state, proposal, verdict, *call.target_constants, plan
        )
        return verdict, done


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
    """
    assert placement.target is not None and placement.draft is not None
    on_target, on_draft = _put(placement.target), _put(placement.draft)
    constants = (np.int32(limit) if isinstance(limit, int) else limit, key)
    call = Call(target, draft, plan, on_target, on_draft, on_target(constants), on_draft(constants))
    target_inputs, draft_inputs = on_target(inputs), on_draft(inputs)
    begun, chosen = sides.target_reads(target, target_inputs, plan)
    visual, own_choice = sides.draft_looks(draft, draft_inputs, plan)
    kept = own_choice if chosen is None else on_draft(chosen)
    draft_state, proposal = sides.draft_starts(
        draft, draft_inputs, kept, visual, *call.draft_constants, plan, call.vocab_size
    )
    target_state, said = sides.target_starts(
        target, target_inputs, begun, chosen, *call.target_constants, plan
    )
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
    sides_ = begin(target, draft, inputs, limit, key, plan, placement)
    state = run(*sides_, threads=needs_threads(placement))
    return Generation(*_finish(state, plan))


_finish = partial(jax.jit, static_argnames="plan")(finish)


def _put(mesh: Mesh) -> Callable[[Any], Any]:
    everywhere = NamedSharding(mesh, P())
    return lambda tree: jax.tree.map(lambda x: jax.device_put(x, everywhere), tree)


def first_chunk(target: TargetSide, draft: DraftSide) -> Proposal:
    """The chunk that begins the rounds, on the draft's mesh."""
    if draft.proposal is not None:
        return draft.proposal
    return draft.step(draft.call.on_draft(target.said))


def rounds(target: TargetSide, draft: DraftSide) -> Iterator[jax.Array]:
    """Enqueue rounds from one thread, without end; each gives its done flag.

    ``target.state`` is then the state behind that round; the next round uses up its arrays.
    """
    call = target.call
    proposal = first_chunk(target, draft)
    while True:
        verdict, done = target.step(call.on_target(proposal))
        yield done
        proposal = draft.step(call.on_draft(verdict))


def run(target: TargetSide, draft: DraftSide, *, threads: bool) -> SpeculativeState:
    """All rounds; the target's final state."""
    if threads:
        _run_threads(target, draft)
    else:
        flags: deque[jax.Array] = deque()
        for done in rounds(target, draft):
            if _late_look(flags, done):
                break
    return target.state


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


class _Stopped(Exception):
    """The other role has ended."""


def _run_threads(target: TargetSide, draft: DraftSide) -> None:
    """Each role in a thread. They hand each other arrays that may not be computed yet."""
    call = target.call
    chunks: queue.Queue[Any] = queue.Queue()
    verdicts: queue.Queue[Any] = queue.Queue()
    stop = threading.Event()
    failures: list[tuple[str, BaseException]] = []

    def take(source: queue.Queue[Any]) -> Any:
        while not stop.is_set():
            try:
                return source.get(timeout=0.1)
            except queue.Empty:
                continue
        raise _Stopped

    def target_rounds() -> None:
        flags: deque[jax.Array] = deque()
        while True:
            verdict, done = target.step(take(chunks))
            verdicts.put(call.on_draft(verdict))
            if _late_look(flags, done):
                return

    def draft_rounds() -> None:
        chunks.put(call.on_target(first_chunk(target, draft)))
        while True:
            chunks.put(call.on_target(draft.step(take(verdicts))))

    def guarded(role: str, function: Callable[[], None]) -> None:
        try:
            function()
        except _Stopped:
            pass
        except BaseException as error:
            failures.append((role, error))
        finally:
            stop.set()

    workers = [
        threading.Thread(target=guarded, args=job, name=f"hippo {job[0]}", daemon=True)
        for job in (("target", target_rounds), ("draft", draft_rounds))
    ]
    for worker in workers:
        worker.start()
    try:
        for worker in workers:
            while worker.is_alive():  # short waits, so that Ctrl-C gets through
                worker.join(timeout=0.1)
    finally:
        stop.set()
    if failures:
        role, error = failures[0]
        raise RoleError(role, error) from error


class RoleError(HippoError):
    """The program of one role failed; ``__cause__`` is its error."""

    def __init__(self, role: str, error: BaseException) -> None:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:300]
        super().__init__(f"the {role}'s program failed: {reason}")
        self.role = role
