"""Checks of the state machine against plain Python."""

import jax
import jax.numpy as jnp
import numpy as np

from hippo_jax.decoding.arguments import Settings
from hippo_jax.decoding.transition import begin, candidates, transition


class OneRow:
    """The state machine of one row in plain Python."""

    def __init__(self, schedule: str, gamma: int, limit: int, eos: tuple[int, ...]) -> None:
        self.parallel, self.gamma, self.limit, self.eos = schedule == "parallel", gamma, limit, eos
        self.tokens: list[int] = []
        self.pending: list[int] = []
        self.runs: list[int] = []
        self.run = self.rounds = self.accepted = self.judged = 0

    @property
    def done(self) -> bool:
        ended = bool(self.tokens) and self.tokens[-1] in self.eos
        return ended or len(self.tokens) >= self.limit

    def judged_now(self, chunk: list[int]) -> list[int]:
        """Candidates of this round."""
        return [*self.pending, chunk[0]] if self.parallel else chunk

    def round(self, chunk: list[int], says: list[int], agrees: list[bool]) -> None:
        """``says``: the target's token at each slot."""
        if self.done:
            return
        self.rounds += 1
        if not self.parallel:
            self.run = 0
        waiting = self.judged_now(chunk)
        self.pending = []
        for slot in range(len(waiting)):
            self.tokens.append(says[slot])
            if not agrees[slot]:
                self.judged += 1
                self.runs.append(self.run)
                self.run = 0
                return
            self.accepted, self.judged, self.run = self.accepted + 1, self.judged + 1, self.run + 1
            if self.done:
                return
        if self.parallel:
            self.pending = chunk[1:]
        else:
            self.tokens.append(says[len(waiting)])
            self.runs.append(self.run)


def check_transition() -> None:
    """Random verdicts through ``transition`` and through plain Python, state by state."""
    for schedule in ("sequential", "parallel"):
        for gamma in (1, 2, 5):
            _check_transition(schedule, gamma)


def _check_transition(schedule: str, gamma: int) -> None:
    parallel = schedule == "parallel"
    batch, eos, width = 100, (3, 4), gamma if parallel else gamma + 1
    settings = Settings(capacity=30, eos=eos)
    rng = np.random.default_rng(gamma)
    # Rows have one limit in a call; here each gets its own, for variety.
    limits = rng.integers(1, 30, batch)
    rows = [OneRow(schedule, gamma, int(limit), eos) for limit in limits]
    state = begin(batch, gamma, jnp.asarray(limits), settings)
    step = jax.jit(lambda *args: transition(*args, settings, parallel=parallel))
    for _ in range(32):
        chunk = rng.integers(5, 40, (batch, gamma))
        chunk = np.where(rng.random(chunk.shape) < 0.05, 3, chunk)
        agree = rng.random((batch, width)) < rng.choice([0.3, 0.9, 1.0], (batch, 1))
        says = rng.integers(40, 80, (batch, width))
        says = np.where(rng.random(says.shape) < 0.05, 4, says)
        for b, row in enumerate(rows):
            waiting = row.judged_now(chunk[b].tolist())
            agree[b, len(waiting) :] &= parallel  # slots without a candidate may say anything
            says[b, : len(waiting)] = np.where(
                agree[b, : len(waiting)], waiting, says[b, : len(waiting)]
            )
        if parallel:
            cands, judged = candidates(state, jnp.asarray(chunk))
            for b, row in enumerate(rows):
                if not row.done:
                    waiting = row.judged_now(chunk[b].tolist())
                    assert np.asarray(cands)[b, : int(judged[b])].tolist() == waiting
        else:
            judged = jnp.full(batch, gamma)
        state = step(
            state,
            jnp.asarray(chunk, jnp.int32),
            judged,
            jnp.asarray(says, jnp.int32),
            jnp.asarray(agree),
            jnp.asarray(limits),
        )
        for b, row in enumerate(rows):
            row.round(chunk[b].tolist(), says[b].tolist(), agree[b].tolist())
        found = jax.device_get(state)
        for b, row in enumerate(rows):
            assert found.tokens[b, : found.lengths[b]].tolist() == row.tokens
            assert bool(found.done[b]) == row.done
            assert [r for r in found.runs[b] if r >= 0] == row.runs
            for name in ("rounds", "accepted", "judged"):
                assert int(getattr(found, name)[b]) == getattr(row, name), name
            if not row.done:
                assert found.pending[b, : found.pending_count[b]].tolist() == row.pending
    assert found.done.all() and sum(len(row.tokens) < row.limit for row in rows) > 10
