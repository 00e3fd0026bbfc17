"""Acceptance is counted over the target's own text, by what the draft sees."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import hippo_jax as hj
from hippo_jax import resources
from hippo_jax.benchmark import acceptance
from hippo_jax.benchmark.acceptance import Setting, as_table, measure_acceptance, row
from hippo_jax.benchmark.ratios import paired_difference, ratio_error

PROMPT = "Describe the video."
ALL = Setting("all tokens", 1.0)
RANDOM = Setting("random", 0.05, hj.ScoringConfig(selector="random"))
HOLISTIC = Setting("holistic", 0.05)
NONE = Setting("no visual token", 0.0)


@pytest.fixture(scope="module")
def pair() -> hj.ModelPair:
    return hj.load_pair("demo")


@pytest.fixture(scope="module")
def clips() -> list[Path]:
    return [resources.clip(name) for name in resources.clip_names()]


@pytest.fixture(scope="module")
def outcome(pair, clips) -> dict:
    """Three clips in batches of two: the last batch is filled up."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(acceptance, "BATCH", 2)
        patch.setattr(acceptance, "SCHEDULES", ("parallel",))
        return measure_acceptance(pair, clips, [PROMPT] * 3, settings=(ALL, RANDOM, NONE))


@pytest.mark.slow
def test_what_the_draft_sees_decides(outcome: dict) -> None:
    assert [found["kept_visual_tokens"] for found in outcome["settings"]] == [324, 17, 0]
    rates = [found["parallel"]["acceptance_rate"] for found in outcome["settings"]]
    assert rates[0] >= rates[1] >= rates[2], rates
    assert rates[0] > rates[2] > 0, rates


@pytest.mark.slow
def test_clips_that_fill_up_a_batch_do_not_count(outcome: dict, pair, clips) -> None:
    texts = [acceptance.generate(pair.target, inputs) for inputs in each(pair, clips)]
    assert outcome["tokens"] == sum(int(text.lengths[0]) for text in texts)
    assert outcome["clips"] == 3


def each(pair, clips):
    return [hj.prepare_inputs(pair, clip, PROMPT) for clip in clips]


def test_other_tokens_are_an_error(pair, clips, monkeypatch: pytest.MonkeyPatch) -> None:
    def misheard(self, pair, inputs, gamma, schedule):
        out = hj.generate(pair.target, inputs, max_new_tokens=acceptance.NEW_TOKENS)
        return replace(out, tokens=out.tokens.at[0, 3].add(1))

    monkeypatch.setattr(Setting, "decode", misheard)
    with pytest.raises(hj.HippoError, match="not the target's own tokens"):
        measure_acceptance(pair, clips[:2], [PROMPT] * 2, settings=[RANDOM])


def test_all_settings_are_those_of_the_study() -> None:
    settings = acceptance.all_settings()
    assert len(settings) == len(set(settings)) == 2 + 8 * 4
    assert (settings[0].keep_ratio, settings[-1].keep_ratio) == (1.0, 0.0)


def counters(accepted: list[int], judged: list[int], runs: list[list[int]], kept: int):
    """Of two clips with 100 visual tokens."""
    return hj.SpeculationStats(
        rounds=np.array([4, 4]),
        round_tokens=np.array([10, 14]),
        accepted=np.array(accepted),
        judged=np.array(judged),
        runs=np.array(runs),
        visual_tokens=np.array([100, 100]),
        kept_visual_tokens=np.array([kept, kept]),
        kept_indices=np.zeros((2, 1), np.int32),
    )


def test_figures_are_pooled_and_compared_with_the_holistic_scores() -> None:
    good = counters([9, 9], [10, 10], [[4, 5], [9, -1]], 5)
    poor = counters([4, 8], [10, 10], [[2, 2], [8, -1]], 5)
    still = counters([0, 0], [0, 0], [[-1, -1], [-1, -1]], 100)  # nothing was judged
    whole = {(HOLISTIC, s): good for s in acceptance.SCHEDULES}
    whole |= {(RANDOM, s): poor for s in acceptance.SCHEDULES}
    whole |= {(ALL, s): still for s in acceptance.SCHEDULES}
    first, second, third = (row(setting, whole) for setting in (HOLISTIC, RANDOM, ALL))
    found = second["parallel"]
    assert found["acceptance_rate"] == 0.6 and found["tokens_per_round"] == 3.0
    assert found["mat"] == 4.0 and found["mat_with_correction"] == 5.0
    assert found["acceptance_error"] == pytest.approx(2**0.5 * (2**2 + 2**2) ** 0.5 / 20)
    assert second["minus_holistic"] == pytest.approx(0.6 - 0.9)
    assert "minus_holistic" not in first and "minus_holistic" not in third
    assert third["parallel"]["acceptance_rate"] is third["parallel"]["mat"] is None
    outcome = {"clips": 2, "tokens": 24, "gamma": 5, "visual_tokens": 100.0}
    outcome["settings"] = [first, second, third]
    json.dumps(outcome, allow_nan=False)
    lines = [line for line in as_table(outcome).splitlines() if line.startswith("|")]
    assert len(lines) == 5 and {line.count("|") for line in lines} == {10}
    assert lines[3].startswith("| random | 5 of 100 | 60.0 (20.0) | 60.0 (20.0) | -30.0 (")
    assert lines[4].startswith("| all tokens | 100 of 100 | ? (?) |")


def test_errors_of_ratios_are_those_of_many_draws() -> None:
    rng = np.random.default_rng(0)
    clips, draws = 50, 4000
    of = rng.integers(20, 60, (draws, clips))
    easy = rng.uniform(0.6, 1.0, (draws, clips))  # a clip is easy or hard for both
    first, second = rng.binomial(of, easy), rng.binomial(of, easy - 0.1)
    rates = [x.sum(axis=1) / of.sum(axis=1) for x in (first, second)]
    errors = [ratio_error(a, n) for a, n in zip(first, of, strict=True)]
    assert np.mean(errors) == pytest.approx(rates[0].std(), rel=0.05)
    pairs = [paired_difference((a, n), (b, n)) for a, b, n in zip(first, second, of, strict=True)]
    apart, error = np.mean(pairs, axis=0)
    assert apart == pytest.approx((rates[0] - rates[1]).mean())
    assert error == pytest.approx((rates[0] - rates[1]).std(), rel=0.05)
    assert error < 0.9 * np.mean(errors) * 2**0.5  # clip by clip is sharper
    assert np.isnan(ratio_error([3], [4]))
