"""Seconds that a schedule takes, from the times of its parts and how often the draft is right.

Two views of the draft's luck: every token is accepted with the same probability a, independently
(closed forms), or a recorded pattern says for each place of the answer whether the draft's token
is the target's (``replay``). The schedules are those of ``decoding.transition``. Times are seconds
of one device step or of the devices that a model is spread over; no device is touched here.

Parallel decoding's chain (PEARL, arXiv 2408.11850): a conservative round commits one token and is
followed by an optimistic one with probability a; an optimistic round commits S = 1 + a + ... +
a^(gamma-1) on average and is followed by another with probability a^gamma. Weighing both by how
often they occur gives S / (1 + a - a^gamma) tokens a round. It tends to 1 / (1 - a^2) for long
chunks, while a sequential round tends to 1 / (1 - a) but takes the two models' times together.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from hippo_jax.errors import HippoError

Schedule = Literal["sequential", "parallel"]
Mode = Literal["sequential", "conservative", "optimistic"]

_PREFILL = ("target_vision", "target_prefill", "selection", "draft_vision", "draft_prefill")


@dataclass(frozen=True)
class StepTimes:
    """What the parts of a call take, in seconds.

    Attributes:
        draft_step: one token of the draft.
        verify: q -> a forward of the target over q tokens, above 0; a mapping or pairs. What was
            measured suffices, see ``verify_time``.
        hop: from the end of the slower model's work until the other has its message.
        target_vision, draft_vision: the vision towers, all frames.
        target_prefill: all layers of the target over the whole prompt.
        draft_prefill: the draft over its pruned prompt.
        selection: from the scores to the kept visual tokens.
        split: share k / L of the target's layers that the scores need: 1 if all, 0 if the target's
            visual features suffice.
    """

    draft_step: float
    verify: Mapping[int, float] | tuple[tuple[int, float], ...]
    hop: float = 0.0
    target_vision: float = 0.0
    target_prefill: float = 0.0
    selection: float = 0.0
    draft_vision: float = 0.0
    draft_prefill: float = 0.0
    split: float = 1.0

    def __post_init__(self) -> None:
        points = tuple(sorted(dict(self.verify).items()))
        object.__setattr__(self, "verify", points)
        if not points or not all(q >= 1 and 0 < t < math.inf for q, t in points):
            raise HippoError(f"verify needs seconds above 0 for some q from 1 on, got {points}")
        for name in ("draft_step", "hop", *_PREFILL):
            if not 0 <= getattr(self, name) < math.inf:
                raise HippoError(f"{name} must be seconds, got {getattr(self, name)!r}")
        if not 0 <= self.split <= 1:
            raise HippoError(f"split must be from 0 to 1, got {self.split!r}")

    def verify_time(self, q: int) -> float:
        """Seconds of a forward over ``q`` tokens: on the line between the measured neighbours.

        Above the largest measured q the line of the last two goes on, but never falls (more tokens
        do not get cheaper; noise may say so). Below the smallest its time holds: reading the
        weights costs the same.
        """
        points = tuple(dict(self.verify).items())
        if q <= points[0][0] or len(points) == 1:
            return points[0][1]
        above = next((i for i, (size, _) in enumerate(points) if size >= q), len(points) - 1)
        (q0, t0), (q1, t1) = points[above - 1], points[above]
        slope = (t1 - t0) / (q1 - q0)
        return t1 + (slope if q <= q1 else max(slope, 0.0)) * (q - q1)


def tokens_per_round(acceptance: float, gamma: int, schedule: Schedule) -> float:
    """Mean tokens a round in the long run, if each is accepted with probability ``acceptance``.

    Sequential: 1 + a + ... + a^gamma (Leviathan et al., arXiv 2211.17192). Parallel: see the
    module's text.

    Raises:
        HippoError: an acceptance outside 0 to 1, gamma below 1, or an unknown schedule.
    """
    _check(gamma, schedule, acceptance)
    powers = [acceptance**k for k in range(gamma + 1)]
    if schedule == "sequential":
        return sum(powers)
    return sum(powers[:-1]) / (1 + acceptance - powers[-1])


def expected_rounds(acceptance: float, gamma: int, schedule: Schedule, tokens: int) -> float:
    """Mean rounds of an answer of ``tokens``, counted as in ``SpeculationStats.rounds``.

    Exact for independent acceptance: unlike ``tokens / tokens_per_round`` it knows that parallel
    decoding begins conservatively and that the last round may be cut short.

    Raises:
        HippoError: as ``tokens_per_round``.
    """
    _check(gamma, schedule, acceptance)
    parallel = schedule == "parallel"
    powers = [acceptance**k for k in range(gamma + 1)]
    most = gamma if parallel else gamma + 1  # tokens of a fully accepted round
    # Rounds to come by tokens to come, where a whole chunk is judged next, and after a rejection.
    chunk = [0.0]
    rejected = [0.0] if parallel else chunk
    for left in range(1, tokens + 1):
        if parallel:
            accept = acceptance * chunk[left - 1]
            rejected.append(1 + accept + (1 - acceptance) * rejected[left - 1])
        after = sum(powers[i] * rejected[left - 1 - i] for i in range(min(gamma, left)))
        onward = powers[-1] * chunk[max(left - most, 0)]
        chunk.append(1 + (1 - acceptance) * after + onward)
    return rejected[tokens] if parallel else chunk[max(tokens - 1, 0)]


def round_seconds(times: StepTimes, gamma: int, schedule: Schedule, concurrent: bool) -> float:
    """Seconds of one round.

    The parallel target is fed gamma tokens in either mode, the sequential one also the last of
    the chunk. ``concurrent``: draft and target have devices of their own; then a parallel round
    lasts as long as the slower of them and one exchange, and a sequential one needs two, for the
    chunk and for the verdict. On one device the models take turns and nothing is sent.
    """
    _check(gamma, schedule)
    draft = gamma * times.draft_step
    if schedule == "sequential":
        return draft + times.verify_time(gamma + 1) + (2 * times.hop if concurrent else 0.0)
    target = times.verify_time(gamma)
    return max(draft, target) + times.hop if concurrent else draft + target


def seconds_per_token(
    times: StepTimes, acceptance: float, gamma: int, schedule: Schedule, concurrent: bool
) -> float:
    """Seconds a token in the long run, without the prefill; see ``round_seconds``."""
    tokens = tokens_per_round(acceptance, gamma, schedule)
    return round_seconds(times, gamma, schedule, concurrent) / tokens


def prefill_seconds(times: StepTimes, schedule: Schedule, gamma: int, concurrent: bool) -> float:
    """Seconds until the first token is committed and the next round may begin.

    In the parallel schedule that includes the first chunk, which the prefill's logits judge.
    ``concurrent``: the draft's vision tower runs beside the target; its prefill waits for the kept
    tokens, that is for the scores of the target's first layers, and runs beside the others. The
    selection is taken as not holding up those. On one device all of it adds up.
    """
    _check(gamma, schedule)
    first_chunk = gamma * times.draft_step if schedule == "parallel" else 0.0
    if not concurrent:
        parts: list[float] = [getattr(times, name) for name in _PREFILL]
        return sum(parts) + first_chunk
    target = times.target_vision + times.target_prefill
    scores = times.target_vision + times.split * times.target_prefill
    kept = scores + times.selection + times.hop
    draft = max(times.draft_vision, kept) + times.draft_prefill + first_chunk
    return max(target, draft) + times.hop


def generation_seconds(
    times: StepTimes,
    acceptance: float,
    gamma: int,
    schedule: Schedule,
    concurrent: bool,
    tokens: int,
) -> float:
    """Mean seconds of an answer of ``tokens``, prefill included."""
    rounds = expected_rounds(acceptance, gamma, schedule, tokens)
    return _wall(times, rounds, gamma, schedule, concurrent)


def plain_seconds(times: StepTimes, tokens: int) -> float:
    """Seconds of an answer of ``tokens`` by the target alone: its prefill gives the first."""
    return times.target_vision + times.target_prefill + max(tokens - 1, 0) * times.verify_time(1)


@dataclass(frozen=True)
class Rounds:
    """What a schedule makes of a recorded pattern; counted as in ``SpeculationStats``, one row.

    Attributes:
        schedule, gamma: what was replayed.
        tokens: length of the answer.
        commits: tokens that each round committed.
        modes: each round's mode (at gamma 1 nothing is ever pending: always conservative).
        runs: accepted tokens of each finished run.
        accepted, judged: draft tokens.
    """

    schedule: Schedule
    gamma: int
    tokens: int
    commits: tuple[int, ...]
    modes: tuple[Mode, ...]
    runs: tuple[int, ...]
    accepted: int
    judged: int

    @property
    def rounds(self) -> int:
        """Verdicts of the target."""
        return len(self.commits)

    @property
    def round_tokens(self) -> int:
        """Tokens committed in rounds: all, but for the first of the sequential schedule."""
        return sum(self.commits)


def replay(
    accepted: Sequence[bool], gamma: int, schedule: Schedule, tokens: int | None = None
) -> Rounds:
    """Run a schedule over a recorded pattern.

    Args:
        accepted: entry i says whether the draft, given the answer up to place i, proposes the
            target's token for it. That is all there is to know where the target's tokens are fixed
            (greedy, Gumbel coupling): what a chunk says behind its first wrong token is never
            judged. In the sequential schedule entry 0 is not read, as the prefill gives that
            token, nor are the places of the target's own token behind a fully accepted chunk.
        gamma: tokens of a chunk.
        schedule: the state machine.
        tokens: length of the answer, its end token included; ``None``: of the pattern.

    Raises:
        HippoError: a pattern shorter than the answer, or as ``tokens_per_round``.
    """
    _check(gamma, schedule)
    tokens = len(accepted) if tokens is None else tokens
    if not 0 <= tokens <= len(accepted):
        raise HippoError(f"an answer of {tokens} tokens needs a pattern of at least as many")
    parallel = schedule == "parallel"
    committed = 0 if parallel else 1
    pending = run = right_in_all = wrong_in_all = 0
    commits: list[int] = []
    modes: list[Mode] = []
    runs: list[int] = []
    while committed < tokens:
        candidates = pending + 1 if parallel else gamma
        room = tokens - committed
        window = accepted[committed : committed + min(candidates, room)]
        right = next((i for i, good in enumerate(window) if not good), len(window))
        rejected = right < len(window)
        # The target's own token: in place of a rejected one, and in the sequential schedule behind
        # a fully accepted chunk too, where there is room.
        own = rejected or (not parallel and right < room)
        modes.append(_mode(parallel, pending))
        commits.append(right + own)
        committed += right + own
        right_in_all += right
        wrong_in_all += rejected
        run += right
        if own:
            runs.append(run)
            run = 0
        pending = gamma - 1 if parallel and not rejected else 0
    return Rounds(
        schedule=schedule,
        gamma=gamma,
        tokens=tokens,
        commits=tuple(commits),
        modes=tuple(modes),
        runs=tuple(runs),
        accepted=right_in_all,
        judged=right_in_all + wrong_in_all,
    )


def predict_wall(times: StepTimes, rounds: Rounds, concurrent: bool) -> float:
    """Seconds of a replayed answer, prefill included."""
    return _wall(times, rounds.rounds, rounds.gamma, rounds.schedule, concurrent)


@dataclass(frozen=True)
class Choice:
    """How to decode.

    Attributes:
        schedule: ``"autoregressive"`` is the target alone.
        gamma: tokens of a chunk, 0 where there are none.
        seconds_per_token: expected, without the prefill.
        shared: whether the models are spread over all devices together.
    """

    schedule: Literal["autoregressive", "sequential", "parallel"]
    gamma: int
    seconds_per_token: float
    shared: bool = False


def best(
    times: StepTimes,
    acceptance: float,
    gammas: Iterable[int] = range(1, 17),
    *,
    concurrent: bool,
    schedules: Iterable[Schedule] = ("sequential", "parallel"),
    shared: StepTimes | None = None,
) -> Choice:
    """The fastest way to decode in the long run; of equals the simplest.

    Args:
        times: draft and target as they are placed.
        acceptance: probability that a draft token is accepted (accepted / judged).
        gammas: chunk sizes to consider.
        concurrent: whether draft and target have devices of their own.
        schedules: those to consider.
        shared: times with both models tensor-parallel over all devices, which take turns there:
            the rival that parallel decoding must beat. Plain decoding counts there too.

    Raises:
        HippoError: as ``tokens_per_round``.
    """
    _check(1, "parallel", acceptance)
    gammas = tuple(gammas)
    choices = [Choice("autoregressive", 0, times.verify_time(1))]
    for schedule in schedules:
        for gamma in gammas:
            seconds = seconds_per_token(times, acceptance, gamma, schedule, concurrent)
            choices.append(Choice(schedule, gamma, seconds))
    if shared is not None:
        choices.append(Choice("autoregressive", 0, shared.verify_time(1), shared=True))
        for gamma in gammas:
            seconds = seconds_per_token(shared, acceptance, gamma, "sequential", False)
            choices.append(Choice("sequential", gamma, seconds, shared=True))
    return min(choices, key=lambda choice: choice.seconds_per_token)


def _wall(
    times: StepTimes, rounds: float, gamma: int, schedule: Schedule, concurrent: bool
) -> float:
    # The parallel schedule's first round is part of the prefill: its chunk is counted there, and
    # its verdict takes no forward.
    own = max(rounds - 1, 0) if schedule == "parallel" else rounds
    first = prefill_seconds(times, schedule, gamma, concurrent)
    return first + own * round_seconds(times, gamma, schedule, concurrent)


def _mode(parallel: bool, pending: int) -> Mode:
    if not parallel:
        return "sequential"
    return "optimistic" if pending else "conservative"


def _check(gamma: int, schedule: str, acceptance: float = 0.0) -> None:
    if schedule not in ("sequential", "parallel"):
        raise HippoError(f'schedule must be "sequential" or "parallel", got {schedule!r}')
    if gamma < 1:
        raise HippoError(f"gamma must be at least 1, got {gamma!r}")
    if not 0 <= acceptance <= 1:
        raise HippoError(f"acceptance must be from 0 to 1, got {acceptance!r}")
