"""The model of time is fed with what was measured, and its rounds are those that were taken."""

import json
from dataclasses import replace

import numpy as np
import pytest
from support import pairs

from hippo_jax.benchmark import parts, schedules
from hippo_jax.benchmark.measure import Summary
from hippo_jax.benchmark.parts import PREFILL, SCORED, step_times, without_scores
from hippo_jax.benchmark.schedules import ONE, PARALLEL, PLAIN, SEQUENTIAL, Way, predict
from hippo_jax.cli import main as program
from hippo_jax.decoding.generate import Generation
from hippo_jax.decoding.stats import SpeculationStats
from hippo_jax.errors import HippoError
from hippo_jax.placement.pair import ModelPair
from hippo_jax.placement.placement import Placement
from hippo_jax.scheduling.time_model import predict_wall, replay
from hippo_jax.weights.load import place_model

NEW_TOKENS, GAMMA = 9, 3

MS = {
    "target, video": 20.0,
    PREFILL: 100.0,
    SCORED: 110.0,
    "choice of tokens": 3.0,
    "target, 1 token": 10.0,
    "target, 4 tokens": 13.0,
    "draft, video": 15.0,
    "draft, pruned prompt": 7.0,
    "draft, 1 token": 2.0,
}
PARTS = {name: {"ms": Summary(ms, 0.0, 1e9)} for name, ms in MS.items()}


# ---- from measurements to predictions


def test_times_are_the_medians_in_seconds() -> None:
    times = step_times(PARTS, hop_ms=0.5)
    assert (times.draft_step, times.hop) == (0.002, 0.0005)
    assert times.verify == ((1, 0.010), (4, 0.013)) and times.verify_time(2) == 0.011
    assert (times.target_vision, times.target_prefill, times.selection) == (0.02, 0.11, 0.003)
    assert (times.draft_vision, times.draft_prefill, times.split) == (0.015, 0.007, 1.0)
    assert without_scores(times, PARTS).target_prefill == 0.1


def test_predictions_are_those_of_the_model() -> None:
    patterns = [[True] * 7, [True, False, True, True, True]]
    pair = ModelPair(None, None)

    def found(schedule, concurrent=False, hop=0.0):
        way = Way("way", schedule, pair, concurrent=concurrent)
        return predict(way, step_times(PARTS, hop), PARTS, patterns, GAMMA)

    # By hand: 20 + 100 for the prefill, then 6 and 4 forwards of one token.
    assert found(None) == (pytest.approx(0.120 + (6 + 4) / 2 * 0.010), 0)
    # 155 ms of both prefills; a round is 3 * 2 + 13. 1 + 4 + 2 tokens, and 1 + 3 (two right and
    # the target's own) + 1, of which the first comes with the prefill.
    sequential = found("sequential")
    assert sequential[1] == 4 and sequential[0] == pytest.approx(0.155 + 2 * 0.019)
    # The first round of each has its chunk, 6 ms, and no forward; 1, 3, 3 and 1, 1, 1, 2 tokens.
    parallel = found("parallel")
    assert parallel[1] == 7 and parallel[0] == pytest.approx(0.161 + 2.5 * (0.006 + 0.012))
    # Side by side a round is the target's 12 and a hop.
    times = step_times(PARTS, 0.5)
    expected = [predict_wall(times, replay(p, GAMMA, "parallel"), True) for p in patterns]
    assert found("parallel", True, 0.5)[0] == pytest.approx(np.mean(expected))
    assert expected[0] - predict_wall(times, replay([True] * 4, GAMMA, "parallel"), True) == (
        pytest.approx(0.0125)
    )


# ---- the benchmark


def canned(schedule: str, pattern: list[bool]) -> Generation:
    """An answer of a pair that is right where the pattern says so."""
    took = replay(pattern, GAMMA, schedule)
    some = np.zeros(1, np.int32)
    stats = SpeculationStats(
        rounds=np.array([took.rounds]),
        round_tokens=np.array([took.round_tokens]),
        accepted=np.array([took.accepted]),
        judged=np.array([took.judged]),
        runs=np.array([[*took.runs, -1]]),
        visual_tokens=some,
        kept_visual_tokens=some,
        kept_indices=some[None],
    )
    return Generation(np.arange(NEW_TOKENS)[None], np.array([len(pattern)]), stats)


def compared(monkeypatch: pytest.MonkeyPatch, **keywords) -> dict:
    """A small random pair of one layer: one prompt with two frames for each of the embedded
    clips."""
    config = pairs.config()
    config = replace(config, text=replace(config.text, num_layers=1))
    weights = pairs.weights(1, config)
    target = pairs.build(weights, config)
    draft = pairs.build(pairs.noisy(weights, 0.1, 2, config), config)

    def load(name: str, placement: Placement | None = None) -> ModelPair:
        placement = placement or Placement()
        homes = placement.homes()
        return ModelPair(place_model(target, homes[0]), place_model(draft, homes[1]), placement)

    prompts = iter([pairs.prompts(np.random.default_rng(seed), 1) for seed in range(3)])
    monkeypatch.setattr(schedules, "load_pair", load)
    monkeypatch.setattr(schedules, "prepare_inputs", lambda *_: next(prompts))
    return schedules.compare_schedules(
        pair="tiny", new_tokens=NEW_TOKENS, repeats=1, gamma=GAMMA, **keywords
    )


def check(outcome: dict, names: list[str]) -> None:
    json.dumps(outcome, allow_nan=False)
    assert list(outcome["schedules"]) == names
    patterns = outcome["patterns"]
    assert outcome["tokens"] == sum(map(len, patterns))
    assert outcome["acceptance"] == pytest.approx(np.mean([x for p in patterns for x in p]))
    for name, row in outcome["schedules"].items():
        # The recorded pattern gives the very rounds that were taken.
        assert row["modelled_rounds"] == row["rounds"] and (row["rounds"] > 0) == (name != PLAIN)
        error = 100 * (row["modelled_s"] / row["measured_s"]["median"] - 1)
        assert row["error_percent"] == pytest.approx(error)
    table = schedules.as_table(outcome)
    for name in (*outcome["schedules"], *outcome["parts_ms"]):
        assert f"| {name} |" in table
    assert "modelled" in table and outcome["machine"]["device"] in table


def test_every_part_is_measured_and_every_way_predicted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The parts are measured; the answers are made up, and take no time."""
    patterns = [[True] * 9, [True, False, True, True, True], [False, False, True]]
    said: list[str] = []

    def decode(way: Way, *_) -> Generation:
        said.append(way.name)
        pattern = patterns[said.count(way.name) % 3 - 1]
        answer = canned(way.schedule or "sequential", pattern)
        return answer if way.schedule else replace(answer, stats=None)

    monkeypatch.setattr(Way, "decode", decode)
    monkeypatch.setattr(parts, "WIDTHS", (1, 4))
    outcome = compared(monkeypatch)
    check(outcome, [PLAIN, SEQUENTIAL, PARALLEL])
    assert outcome["patterns"] == patterns
    assert set(outcome["parts_ms"]) == {f"{ONE}: {name}" for name in MS}
    found = {
        name.removeprefix(f"{ONE}: "): {"ms": Summary(**part["ms"])}
        for name, part in outcome["parts_ms"].items()
    }
    times = step_times(found)
    for name, schedule in ((SEQUENTIAL, "sequential"), (PARALLEL, "parallel")):
        walls = [predict_wall(times, replay(p, GAMMA, schedule), False) for p in patterns]
        assert outcome["schedules"][name]["modelled_s"] == pytest.approx(np.mean(walls))


def test_other_tokens_are_told_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(way: Way, *_) -> Generation:
        answer = canned("parallel", [True] * 9)
        return replace(answer, tokens=answer.tokens + (way.schedule == "sequential"))

    monkeypatch.setattr(Way, "decode", decode)
    monkeypatch.setattr(schedules, "measured_parts", lambda *_: {})
    with pytest.raises(HippoError, match="sequential: not the target's own tokens"):
        compared(monkeypatch)


@pytest.mark.slow
def test_a_small_pair_on_devices_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "WIDTHS", (1, 4))
    outcome = compared(monkeypatch, devices=(2, 1))
    names = [
        "parallel, two meshes, 2 + 1 devices",
        "parallel, one program, 2 + 1 devices",
        "sequential, both models over 3 devices",
    ]
    check(outcome, [PLAIN, SEQUENTIAL, PARALLEL, *names])
    assert [len(pattern) for pattern in outcome["patterns"]] == [NEW_TOKENS] * 3
    assert 0 < outcome["acceptance"] < 1
    for name in names[:2]:
        assert f"{name}: hop" in outcome["parts_ms"]
    assert "2 + 1 devices: draft, 1 token" in outcome["parts_ms"]
    assert "share these cores" in schedules.as_table(outcome)


# ---- the command


@pytest.mark.parametrize(
    "words",
    [
        ["--devices", "1", "1"],
        ["--model", "--devices", "9", "9"],
        ["--model", "--pair", "nobody"],
        ["--model", "--gamma", "0"],
        ["--model", "--new-tokens", "9"],
        ["--model", "--overlap"],
    ],
)
def test_what_cannot_be_measured_is_one_line(capsys, words: list[str]) -> None:
    assert program.main(["bench", *words]) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said and "error: " in said


@pytest.mark.slow
def test_the_embedded_pair(capsys) -> None:
    assert program.main(["bench", "--model", "--repeats", "1", "--json"]) == 0
    outcome = json.loads(capsys.readouterr().out)
    assert outcome["clips"] == 3 and list(outcome["schedules"]) == [PLAIN, SEQUENTIAL, PARALLEL]
    for row in outcome["schedules"].values():
        assert row["modelled_rounds"] == row["rounds"]
