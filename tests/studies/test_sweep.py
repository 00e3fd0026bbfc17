"""Ways of decoding are timed in turns and held to the target's own tokens."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hippo_jax.benchmark.acceptance import counters_of, plain_counters
from hippo_jax.benchmark.measure import Once, Summary, directly
from hippo_jax.benchmark.timed import Answers, Decoder
from hippo_jax.decoding.generate import Generation
from hippo_jax.decoding.stats import SpeculationStats, joined
from hippo_jax.errors import HippoError
from hippo_jax.studies.batch import _rate, _row, waiting
from hippo_jax.studies.sweep import PLAIN, Way, measure_ways, point


def counted(rounds: list[int]) -> SpeculationStats:
    own = np.array(rounds)
    return SpeculationStats(
        rounds=own,
        round_tokens=3 * own,
        accepted=2 * own,
        judged=4 * own,
        runs=np.array([[2, -1]] * len(rounds)),
        visual_tokens=own,
        kept_visual_tokens=own,
        kept_indices=own[:, None],
    )


def says(tokens: list[list[int]], turns: list[str], name: str, rounds: list[int] | None = None):
    """A decoder that notes when it is asked."""

    def finish(inputs, state) -> Generation:
        turns.append(name)
        stats = None if rounds is None else counted(rounds)
        return Generation(np.array(tokens), np.array([3, 2]), stats)

    return Decoder(lambda inputs: None, finish, prefilled=0)


def ways(tokens: list[list[int]], turns: list[str], once: Once = directly):
    decoders = {
        PLAIN: says([[1, 2, 3], [4, 5, 9]], turns, PLAIN),
        "other": says(tokens, turns, "other", [2, 1]),
    }
    prompts = {name: [None] for name in decoders}
    plain = {"other": PLAIN}
    return measure_ways(prompts, decoders, plain, 2, lambda line: None, once=once)[0]


def test_ways_take_turns_and_their_counters_are_pooled() -> None:
    turns: list[str] = []
    found = ways([[1, 2, 3], [4, 5, 0]], turns)  # what stands behind the end does not count
    assert turns == [PLAIN, "other"] * 4  # to compile, to warm up, and two that count
    assert found["other"].answers.tokens == [[1, 2, 3], [4, 5]]
    assert found["other"].answers.rounds == 2  # of the slowest row
    assert found["other"].counters == {"acceptance": 50.0, "mat": 2.0, "tokens_per_round": 3.0}
    assert set(found[PLAIN].times) == {"prefill_s", "decode_ms_per_token", "whole_s"}


@pytest.mark.parametrize("tokens", [[[1, 2, 7], [4, 5, 0]], [[1, 2, 3], [4, 6, 0]]])
def test_a_lossy_answer_is_an_error(tokens: list[list[int]]) -> None:
    finished: list[str] = []

    def once(part: str, work: Callable[[], Any]) -> Any:
        found = work()
        finished.append(part)  # here a turn is written down
        return found

    with pytest.raises(HippoError, match=r"not the target's own tokens \(other\)"):
        ways(tokens, [], once)
    assert not finished


def test_a_turn_of_an_earlier_run_is_not_measured_again() -> None:
    times = {"prefill_s": 1.0, "decode_ms_per_token": 2.0, "whole_s": 3.0}
    turns: list[str] = []

    def once(part: str, work: Callable[[], Any]) -> Any:
        return {PLAIN: times, "other": {"whole_s": 7.0}} if part == "turn 1" else work()

    found = ways([[1, 2, 3], [4, 5, 0]], turns, once)
    assert turns == [PLAIN, "other"] * 3  # to compile, to warm up, and the second turn
    assert found["other"].times["whole_s"].high == 7.0 > found["other"].times["whole_s"].low
    assert found["other"].answers.tokens == [[1, 2, 3], [4, 5]]


def test_rows_wait_for_the_slowest_of_their_batch() -> None:
    assert waiting([4, 2, 3, 3], 2) == pytest.approx(1 - 12 / (2 * 4 + 2 * 3))
    assert waiting([4, 2, 3, 3], 1) == 0.0
    assert waiting([0, 0], 2) == 0.0


def test_a_batch_s_figures_hang_together() -> None:
    def way(seconds: float, stats: list[SpeculationStats]) -> Way:
        answers = Answers([[1] * 7, [1] * 3], 4, stats)
        times = {
            "whole_s": Summary(seconds, seconds / 2, 2 * seconds),
            "decode_ms_per_token": Summary(seconds, seconds, seconds),
        }
        return Way(answers, times)

    plain, hippo = way(2.0, []), way(1.0, [counted([4, 2])])
    assert _rate(hippo) == Summary(5.0, 2.5, 10.0)
    found = _row(2, plain, hippo)
    assert found["whole_speedup"] == 2.0
    assert found["plain_waiting"] == pytest.approx(100 * (1 - 8 / 12))
    assert found["hippo_waiting"] == pytest.approx(25.0)
    assert found["tokens_per_round_waiting"] == pytest.approx(3.0 * 0.75)


def test_points_of_a_chart_are_numbers_alone() -> None:
    assert point(Summary(2.0, 1.0, 3.0)) == (2.0, 1.0, 3.0)
    assert point(4) == (4.0, 4.0, 4.0)
    assert point("") is point(None) is None


def test_counters_survive_being_written_down() -> None:
    known = counted([1, 2])
    found = counters_of(json.loads(json.dumps(plain_counters(known))))
    whole = joined([found, found])
    assert (whole.mat, whole.rounds.tolist()) == (known.mat, [1, 2, 1, 2])
    assert whole.acceptance_rate == known.acceptance_rate
    assert whole.tokens_per_round == known.tokens_per_round


def test_counters_of_prompts_of_two_sizes_are_pooled() -> None:
    wide, narrow = counted([1, 2]), counted([3])
    wide = replace(wide, kept_indices=np.array([[0, 3], [1, -1]]), runs=np.array([[2], [1]]))
    whole = joined([wide, narrow])
    assert whole.kept_indices.tolist() == [[0, 3], [1, -1], [3, -1]]
    assert whole.runs.tolist() == [[2, -1], [1, -1], [2, -1]]
    assert (whole.rounds.tolist(), whole.mat) == ([1, 2, 3], 5 / 3)
