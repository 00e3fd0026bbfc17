"""The model of time agrees with the real state machine, with chance, and with hand counts."""

import subprocess
import sys
from functools import cache, partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hippo_jax.decoding.arguments import Settings
from hippo_jax.decoding.transition import begin, candidates, commit, transition
from hippo_jax.errors import HippoError
from hippo_jax.scheduling.time_model import (
    Choice,
    Rounds,
    StepTimes,
    best,
    expected_rounds,
    generation_seconds,
    plain_seconds,
    predict_wall,
    prefill_seconds,
    replay,
    round_seconds,
    seconds_per_token,
    tokens_per_round,
)

SCHEDULES = ("sequential", "parallel")
END = 3
NOISE = 4  # ids below it are said where the text is wrong; the end token is one of them
CAPACITY = 40
BATCH = 25

TIMES = StepTimes(
    draft_step=2.0,
    verify={1: 10.0, 3: 11.0, 5: 14.0},
    hop=0.5,
    target_vision=20.0,
    target_prefill=100.0,
    selection=3.0,
    draft_vision=15.0,
    draft_prefill=7.0,
    split=0.9,
)


# ---- recorded patterns against the real state machine


def random_case(rng: np.random.Generator) -> SimpleNamespace:
    """One answer: its tokens, its limit, and where the draft is right."""
    limit = int(rng.integers(0, CAPACITY + 1))
    ends = limit and rng.random() < 0.5
    end = int(rng.integers(0, limit)) if ends else CAPACITY + 50
    truth = rng.integers(100, 200, CAPACITY + 50)  # beyond the end too: chunks reach there
    truth[end : end + 1] = END
    right = rng.random(CAPACITY + 50) < rng.choice([0.0, 0.4, 0.8, 0.95, 1.0])
    return SimpleNamespace(limit=limit, truth=truth, right=right, tokens=min(limit, end + 1))


def propose(case, committed: list[int], pending: list[int], gamma: int, rng) -> list[int]:
    """What the draft says: behind its first wrong token anything, be it right by luck."""
    at = len(committed)
    straight = pending == case.truth[at : at + len(pending)].tolist()
    chunk = []
    for place in range(at + len(pending), at + len(pending) + gamma):
        said, truth = int(rng.integers(0, NOISE)), int(case.truth[place])
        if straight and case.right[place]:
            said = truth
        elif straight:
            said, straight = (said + 1 if said == truth else said), False
        chunk.append(said)
    return chunk


def answer(case, committed: list[int], judged: list[int], width: int, rng) -> list[int]:
    """The target's token at each slot: noise behind a wrong candidate."""
    says, straight = [], True
    for slot in range(width):
        place = len(committed) + slot
        says.append(int(case.truth[place] if straight else rng.integers(0, NOISE)))
        straight = straight and slot < len(judged) and judged[slot] == says[slot]
    return says


@pytest.mark.parametrize("gamma", range(1, 9))
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_replay_is_the_state_machine(schedule: str, gamma: int) -> None:
    """25 answers each, row by row: rounds, what each commits, modes, counters and runs."""
    parallel, rng = schedule == "parallel", np.random.default_rng(gamma)
    cases = [random_case(rng) for _ in range(BATCH)]
    settings = Settings(capacity=CAPACITY, eos=(END,))
    limits = jnp.array([case.limit for case in cases], jnp.int32)
    width = gamma if parallel else gamma + 1
    step = jax.jit(partial(transition, settings=settings, parallel=parallel))
    state = begin(BATCH, gamma, limits, settings)
    if not parallel:
        first = jnp.array([[case.truth[0]] for case in cases], jnp.int32)
        state, _ = commit(state, first, jnp.ones(BATCH, jnp.int32), limits, settings)
    commits, modes = [[] for _ in cases], [[] for _ in cases]
    while not np.all(state.done):
        now = jax.device_get(state)
        chunks, judged, says, agrees = [], [], [], []
        for b, case in enumerate(cases):
            committed = now.tokens[b, : now.lengths[b]].tolist()
            pending = now.pending[b, : now.pending_count[b]].tolist() if parallel else []
            chunk = propose(case, committed, pending, gamma, rng)
            waiting = [*pending, chunk[0]] if parallel else chunk
            said = answer(case, committed, waiting, width, rng)
            chunks.append(chunk)
            judged.append(len(waiting))
            says.append(said)
            padded = [*waiting, *said[len(waiting) :]]  # beyond: agreement must not count
            agrees.append([x == y for x, y in zip(padded, said, strict=True)])
            if not now.done[b]:
                kind = "optimistic" if pending else "conservative"
                modes[b].append(kind if parallel else "sequential")
        chunk = jnp.array(chunks, jnp.int32)
        if parallel:
            assert candidates(state, chunk)[1].tolist() == judged
        state = step(
            state,
            chunk,
            jnp.array(judged, jnp.int32),
            jnp.array(says, jnp.int32),
            jnp.array(agrees),
            limits,
        )
        for b in range(BATCH):
            if not now.done[b]:
                commits[b].append(int(state.lengths[b] - now.lengths[b]))
    found = jax.device_get(state)
    for b, case in enumerate(cases):
        assert found.tokens[b, : found.lengths[b]].tolist() == case.truth[: case.tokens].tolist()
        rounds = replay(case.right, gamma, schedule, case.tokens)
        assert rounds == Rounds(
            schedule=schedule,
            gamma=gamma,
            tokens=int(found.lengths[b]),
            commits=tuple(commits[b]),
            modes=tuple(modes[b]),
            runs=tuple(found.runs[b][found.runs[b] >= 0].tolist()),
            accepted=int(found.accepted[b]),
            judged=int(found.judged[b]),
        )
        assert rounds.rounds == found.rounds[b] and rounds.round_tokens == found.round_tokens[b]
    ended = sum(case.tokens < case.limit for case in cases)
    assert 3 < ended < BATCH - 3 and max(len(case) for case in commits) > 5


def test_replay_by_hand() -> None:
    pattern = [True, True, True, True, True, False, True, True, True, True]
    # Prefill's verdict on 0; then 1, 2, 3; then 4 and the correction 5; 6; then 7, 8, 9.
    parallel = replay(pattern, 3, "parallel")
    assert parallel.commits == (1, 3, 2, 1, 3)
    modes = ("conservative", "optimistic", "optimistic", "conservative", "optimistic")
    assert parallel.modes == modes
    assert (parallel.runs, parallel.accepted, parallel.judged) == ((5,), 9, 10)
    # 0 from the prefill; 1, 2, 3 and the target's 4; the correction 5; 6, 7, 8 and the target's 9.
    sequential = replay(pattern, 3, "sequential")
    assert sequential.commits == (4, 1, 4)
    assert (sequential.runs, sequential.accepted, sequential.judged) == ((3, 0, 3), 6, 7)
    assert replay(pattern, 3, "sequential", 9).runs == (3, 0)  # cut short: not a run
    assert replay([], 3, "parallel").rounds == replay([True], 3, "sequential").rounds == 0


# ---- closed forms


def test_the_known_numbers() -> None:
    known = {(0.8, 3): (1.89, 2.95), (0.8, 7): (2.48, 4.16)}
    known |= {(0.92, 3): (2.42, 3.55), (0.92, 7): (4.06, 6.08)}
    for (acceptance, gamma), (parallel, sequential) in known.items():
        assert tokens_per_round(acceptance, gamma, "parallel") == pytest.approx(parallel, abs=5e-3)
        found = tokens_per_round(acceptance, gamma, "sequential")
        assert found == pytest.approx(sequential, abs=6e-3)


def test_the_extremes() -> None:
    for gamma in (1, 2, 8):
        assert tokens_per_round(0.0, gamma, "parallel") == 1
        assert tokens_per_round(0.0, gamma, "sequential") == 1
        assert tokens_per_round(1.0, gamma, "parallel") == gamma
        assert tokens_per_round(1.0, gamma, "sequential") == gamma + 1
    assert tokens_per_round(0.7, 1, "parallel") == pytest.approx(1)
    assert tokens_per_round(0.7, 1, "sequential") == pytest.approx(1.7)
    assert tokens_per_round(0.9, 500, "parallel") == pytest.approx(1 / (1 - 0.9**2))
    assert tokens_per_round(0.9, 500, "sequential") == pytest.approx(1 / (1 - 0.9))
    assert expected_rounds(1.0, 4, "parallel", 9) == 3  # 1, 4, 4
    assert expected_rounds(1.0, 4, "sequential", 11) == 2  # behind the prefill's: 5, 5
    assert expected_rounds(0.0, 4, "parallel", 9) == 9
    assert expected_rounds(0.0, 4, "sequential", 9) == 8
    for schedule in SCHEDULES:
        assert expected_rounds(0.5, 4, schedule, 0) == 0


@cache
def luck(acceptance: float, length: int, seed: int = 0) -> list[bool]:
    return (np.random.default_rng(seed).random(length) < acceptance).tolist()


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_closed_forms_are_what_chance_gives(schedule: str) -> None:
    for acceptance in (0.3, 0.8, 0.95):
        for gamma in (1, 2, 3, 7):
            rounds = replay(luck(acceptance, 60_000), gamma, schedule)
            found = rounds.round_tokens / rounds.rounds
            expected = tokens_per_round(acceptance, gamma, schedule)
            assert found == pytest.approx(expected, rel=0.02), (acceptance, gamma)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_expected_rounds_of_short_answers(schedule: str) -> None:
    """Mean over 2000 answers within four standard errors."""
    for acceptance, gamma, tokens in ((0.5, 1, 6), (0.8, 3, 10), (0.92, 7, 20), (0.92, 16, 9)):
        pattern = luck(acceptance, 2000 * tokens)
        rows = [pattern[i : i + tokens] for i in range(0, len(pattern), tokens)]
        counts = [replay(row, gamma, schedule).rounds for row in rows]
        error = np.std(counts) / np.sqrt(len(counts))
        found = expected_rounds(acceptance, gamma, schedule, tokens)
        assert abs(found - np.mean(counts)) < 4 * error + 1e-9
    grows = expected_rounds(0.8, 4, schedule, 401) - expected_rounds(0.8, 4, schedule, 400)
    assert 1 / grows == pytest.approx(tokens_per_round(0.8, 4, schedule), rel=1e-6)


# ---- seconds


def test_verify_time_follows_what_was_measured() -> None:
    assert [TIMES.verify_time(q) for q in (1, 2, 3, 4, 5, 7)] == [10, 10.5, 11, 12.5, 14, 17]
    assert StepTimes(1.0, ((4, 6.0), (2, 5.0))).verify == ((2, 5.0), (4, 6.0))
    assert StepTimes(1.0, ((4, 6.0), (2, 5.0))).verify_time(1) == 5.0
    assert StepTimes(1.0, {3: 6.0}).verify_time(9) == 6.0
    noisy = StepTimes(1.0, {1: 5.0, 3: 6.0, 5: 4.0})
    assert (noisy.verify_time(4), noisy.verify_time(50)) == (5.0, 4.0)
    assert hash(TIMES) == hash(StepTimes(**vars(TIMES)))


def test_rounds_by_hand() -> None:
    assert round_seconds(TIMES, 3, "parallel", True) == 11.5  # the target is slower
    assert round_seconds(TIMES, 7, "parallel", True) == 17.5
    assert round_seconds(StepTimes(3.0, {1: 10.0}, hop=0.5), 7, "parallel", True) == 21.5
    assert round_seconds(TIMES, 3, "parallel", False) == 17.0
    assert round_seconds(TIMES, 3, "sequential", True) == 19.5  # 6 + 12.5 + two messages
    assert round_seconds(TIMES, 3, "sequential", False) == 18.5
    one = seconds_per_token(TIMES, 0.8, 3, "parallel", True)
    assert one == pytest.approx(11.5 / 1.8944099)


def test_prefill_by_hand() -> None:
    parts = 20 + 100 + 3 + 15 + 7
    assert prefill_seconds(TIMES, "sequential", 4, False) == parts
    assert prefill_seconds(TIMES, "parallel", 4, False) == parts + 4 * 2
    # Scores at 20 + 90, kept tokens at 113.5, the draft done at 120.5: the target's 120 hides
    # all but half a second, and a hop follows. A chunk of 4 takes 8 more.
    assert prefill_seconds(TIMES, "sequential", 4, True) == 121
    assert prefill_seconds(TIMES, "parallel", 4, True) == 129
    early = StepTimes(**{**vars(TIMES), "split": 0.5})
    assert prefill_seconds(early, "parallel", 4, True) == 120.5  # the draft's side is hidden
    # A slow tower of the draft: kept tokens wait for it, the target does not.
    slow = StepTimes(**{**vars(early), "draft_vision": 90.0})
    assert prefill_seconds(slow, "parallel", 4, True) == 120.5
    slower = StepTimes(**{**vars(early), "draft_vision": 118.0})
    assert prefill_seconds(slower, "parallel", 4, True) == 118 + 7 + 8 + 0.5


def test_prefill_is_the_published_formula_where_the_scores_come_last() -> None:
    """max(Tvis_d, Tvis_t + k/L Tpre) + max((1 - k/L) Tpre, Tsel + Tpre_d + gamma Td)."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        vision, prefill, select, tower, pruned, step, split = rng.random(7)
        tower *= vision + split * prefill
        times = StepTimes(step, {1: 1.0}, 0.0, vision, prefill, select, tower, pruned, split)
        scores = max(tower, vision + split * prefill)
        expected = scores + max((1 - split) * prefill, select + pruned + 3 * step)
        assert prefill_seconds(times, "parallel", 3, True) == pytest.approx(expected)


def test_whole_answers_by_hand() -> None:
    pattern = [True, True, True, True, True, False, True, True, True, True]
    parallel, sequential = (replay(pattern, 3, s) for s in ("parallel", "sequential"))
    # The prefill's verdict is no round of its own: four more rounds in parallel.
    assert predict_wall(TIMES, parallel, True) == 127 + 4 * 11.5
    assert predict_wall(TIMES, parallel, False) == 151 + 4 * 17
    assert predict_wall(TIMES, sequential, False) == 145 + 3 * 18.5
    assert plain_seconds(TIMES, 10) == 20 + 100 + 9 * 10
    assert plain_seconds(TIMES, 1) == plain_seconds(TIMES, 0) == 120


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_generation_is_the_mean_of_replays(schedule: str) -> None:
    pattern = luck(0.8, 40_000)
    rows = [pattern[i : i + 20] for i in range(0, len(pattern), 20)]
    for concurrent in (True, False):
        walls = [predict_wall(TIMES, replay(row, 4, schedule), concurrent) for row in rows]
        expected = generation_seconds(TIMES, 0.8, 4, schedule, concurrent, 20)
        assert abs(np.mean(walls) - expected) < 4 * np.std(walls) / np.sqrt(len(walls))


# ---- the choice


@cache
def simulated_rounds(acceptance: float, gamma: int, schedule: str) -> float:
    """Rounds a token over one long pattern."""
    rounds = replay(luck(acceptance, 6000, seed=1), gamma, schedule)
    return rounds.rounds / rounds.round_tokens


def simulated(times: StepTimes, acceptance: float, concurrent: bool) -> dict:
    """Seconds a token of every fixed way to decode in a simulation, its rounds timed anew."""
    found = {("autoregressive", 0): times.verify_time(1)}
    for gamma in range(1, 17):
        draft, verify = gamma * times.draft_step, times.verify_time
        taking_turns = draft + verify(gamma + 1)
        lasts = {"sequential": taking_turns, "parallel": draft + verify(gamma)}
        if concurrent:
            lasts = {
                "sequential": taking_turns + 2 * times.hop,
                "parallel": max(draft, verify(gamma)) + times.hop,
            }
        for schedule, seconds in lasts.items():
            found[schedule, gamma] = seconds * simulated_rounds(acceptance, gamma, schedule)
    return found


def test_the_choice_is_nearly_the_best_of_all_fixed_ones() -> None:
    """Within 10 %, over cost ratios, targets that batch well or badly, and acceptances."""
    chosen, losses = set(), []
    for ratio in (3, 7, 20):
        for growth in (0.0, 0.12):
            verify = {q: 1 + growth * (q - 1) for q in (1, 2, 4, 8, 16)}
            times = StepTimes(1 / ratio, verify, hop=0.02)
            for acceptance in (0.1, 0.6, 0.8, 0.92):
                for concurrent in (True, False):
                    choice = best(times, acceptance, concurrent=concurrent)
                    seconds = simulated(times, acceptance, concurrent)
                    found = seconds[choice.schedule, choice.gamma]
                    assert found <= 1.1 * min(seconds.values())
                    assert found == pytest.approx(choice.seconds_per_token, rel=0.1)
                    chosen.add((choice.schedule, concurrent))
                    losses.append(max(seconds.values()) / found)
    both = {("autoregressive", True), ("parallel", True), ("sequential", True)}
    assert chosen == both | {("autoregressive", False), ("sequential", False)}
    assert min(losses) > 1.3  # there was always something to lose


def test_the_rival_that_shares_all_devices() -> None:
    """One draft device and n for the target: tokens in the time of one target forward (a .876,
    Tv / Td 7); tensor parallelism keeps a share of its ideal gain, for the target and the draft."""
    for n, keeps, expected in (
        (1, (1.0, 1.0), 5.27),
        (1, (0.8, 0.5), 4.32),
        (1, (0.8, 0.0), 3.48),
        (7, (1.0, 1.0), 6.21),
        (7, (0.8, 0.5), 5.19),
        (7, (0.8, 0.0), 2.78),
    ):
        target = 1 + keeps[0] / n  # n devices -> n + 1
        draft = 1 + keeps[1] * n  # 1 device -> n + 1
        own = StepTimes(1 / 7, {1: 1.0})
        shared = StepTimes(1 / 7 / draft, {1: 1 / target})
        alone = best(own, 0.876, concurrent=True)
        assert (alone.schedule, alone.gamma, alone.shared) == ("parallel", 7, False)
        assert 1 / alone.seconds_per_token == pytest.approx(3.29, abs=5e-3)
        choice = best(own, 0.876, concurrent=True, shared=shared)
        if expected < 3.29:
            assert choice == alone
        else:
            assert (choice.schedule, choice.shared) == ("sequential", True)
            assert 1 / choice.seconds_per_token == pytest.approx(expected, abs=8e-3)
    nothing_accepted = best(own, 0.0, concurrent=True, shared=shared)
    assert nothing_accepted == Choice("autoregressive", 0, 1 / target, shared=True)
    assert best(own, 0.9, (3,), concurrent=True).gamma == 3


# ---- what is refused


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: tokens_per_round(1.2, 3, "parallel"), "acceptance"),
        (lambda: tokens_per_round(float("nan"), 3, "parallel"), "acceptance"),
        (lambda: best(TIMES, -0.1, (), concurrent=True), "acceptance"),
        (lambda: tokens_per_round(0.5, 0, "parallel"), "gamma"),
        (lambda: replay([True], 1, "auto"), "schedule"),
        (lambda: replay([True], 1, "parallel", 2), "pattern"),
        (lambda: StepTimes(1.0, {}), "verify"),
        (lambda: StepTimes(1.0, {1: 0.0}), "verify"),
        (lambda: StepTimes(1.0, {0: 1.0}), "verify"),
        (lambda: StepTimes(-1.0, {1: 1.0}), "draft_step"),
        (lambda: StepTimes(1.0, {1: 1.0}, draft_vision=float("nan")), "draft_vision"),
        (lambda: StepTimes(1.0, {1: 1.0}, split=1.1), "split"),
    ],
)
def test_nonsense_is_refused(call, says: str) -> None:
    with pytest.raises(HippoError, match=says):
        call()


def test_the_model_of_time_needs_no_jax() -> None:
    code = "import sys, hippo_jax.scheduling.time_model; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
