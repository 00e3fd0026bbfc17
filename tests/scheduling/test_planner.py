"""``plan_schedule`` and ``warmup``."""

import jax
import numpy as np
import pytest
from support.pairs import Shape
from support.placements import PLACES, placed
from support.speculative_cases import Case

import hippo_jax as hj
from hippo_jax.scheduling import planner
from hippo_jax.scheduling import warmup as warming
from hippo_jax.scheduling.hippo import _hippo_generate
from hippo_jax.scheduling.time_model import StepTimes, best


@pytest.fixture(scope="module")
def case() -> Case:
    return Case(Shape("sequential", 3, 2, 0.5), 3)


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> dict:
    """What measuring finds, by placement: the clock has no part in these tests."""
    found: dict = {}
    monkeypatch.setattr(planner, "measure_steps", lambda pair, *_: found[pair.placement.disjoint])
    return found


FAST = StepTimes(0.05, {1: 1.0, 17: 1.1})


@pytest.mark.filterwarnings("ignore:.*is expected to be faster")
def test_the_choice_is_that_of_the_model_of_time(case: Case, times: dict) -> None:
    times[False] = times[True] = FAST
    stats = hj.hippo_generate(
        case.pair,
        case.inputs,
        max_new_tokens=20,
        eos_token_ids=(),
        config=hj.HippoConfig(schedule="sequential"),
    ).stats
    for place in (None, "two meshes, 1 + 1"):
        pair = case.pair if place is None else placed(case.pair, PLACES[place]())
        found = hj.plan_schedule(pair, case.inputs, max_new_tokens=20)
        expected = best(FAST, stats.acceptance_rate, concurrent=place is not None)
        assert (found.schedule, found.gamma) == (expected.schedule, expected.gamma)


@pytest.mark.filterwarnings("ignore:.*is expected to be faster")
def test_what_is_not_on_auto_is_kept(case: Case, times: dict) -> None:
    times[False] = FAST
    config = hj.HippoConfig(gamma=2, keep_ratio=0.5, draft_positions="packed")
    found = hj.plan_schedule(case.pair, case.inputs, config=config, max_new_tokens=8)
    assert found.gamma == 2 and found.keep_ratio == 0.5 and found.draft_positions == "packed"
    config = hj.HippoConfig(gamma="auto", schedule="parallel")
    found = hj.plan_schedule(case.pair, case.inputs, config=config, max_new_tokens=8)
    assert found.schedule == "parallel" and isinstance(found.gamma, int)


def test_a_draft_that_does_not_pay_is_told(case: Case, times: dict) -> None:
    times[False] = StepTimes(5.0, {1: 1.0, 17: 9.0})
    with pytest.warns(UserWarning, match="the target alone is expected to be faster"):
        found = hj.plan_schedule(case.pair, case.inputs, max_new_tokens=8)
    assert found.gamma == 1


def test_the_fair_rival_is_told(case: Case, times: dict) -> None:
    """Both models over all devices beat devices of one's own, where the draft scales well."""
    times[True], times[False] = FAST, StepTimes(0.005, {1: 0.1, 17: 0.1})
    apart, together = placed(case.pair, PLACES["two meshes, 1 + 1"]()), case.pair
    with pytest.warns(UserWarning, match="both models over all devices"):
        hj.plan_schedule(apart, case.inputs, max_new_tokens=8, rival=together)


def test_steps_are_measured_where_the_pair_lives(case: Case) -> None:
    for place in (None, "two meshes, 1 + 1"):
        pair = case.pair if place is None else placed(case.pair, PLACES[place]())
        found = planner.measure_steps(pair, case.inputs)
        assert found.draft_step > 0
        assert [q for q, _ in found.verify] == [1, 2, 4, 8, 16]
        assert all(np.isfinite(t) and t > 0 for _, t in found.verify)


@pytest.mark.filterwarnings("ignore:.*is expected to be faster")
def test_steps_are_measured_behind_what_the_draft_will_see(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list = []

    def note(model, cache, *rest):
        seen.append(np.asarray(cache.prompt_lengths))
        return 1.0

    monkeypatch.setattr(planner, "_seconds", note)
    config = hj.HippoConfig(gamma="auto", keep_ratio=1.0)
    hj.plan_schedule(case.pair, case.inputs, config=config, max_new_tokens=8)
    np.testing.assert_array_equal(seen[0], np.asarray(case.inputs.lengths) - 1)


def test_refusals(case: Case, times: dict) -> None:
    times[False] = FAST
    with pytest.raises(hj.HippoError, match="no draft"):
        hj.plan_schedule(case.pair.target, case.inputs)
    with pytest.raises(hj.HippoError, match="no draft"):
        hj.plan_schedule(case.pair, case.inputs, rival=case.pair.target)
    with pytest.raises(hj.HippoError, match="max_new_tokens of at least 2"):
        hj.plan_schedule(case.pair, case.inputs, max_new_tokens=1)
    with pytest.raises(hj.HippoError, match="inside a jax trace"):
        jax.jit(lambda inputs: hj.plan_schedule(case.pair, inputs).gamma)(case.inputs)
    with pytest.raises(hj.HippoError, match="frames, height, width"):
        hj.warmup(case.pair, [(4, 224)])
    with pytest.raises(hj.HippoError, match="frames, height, width"):
        hj.warmup(case.pair, 4)


def test_warmup_compiles_what_a_call_needs() -> None:
    pair = hj.load_pair("demo")
    arguments = {"capacity": 40, "config": hj.HippoConfig(gamma=2)}
    inputs = hj.prepare_inputs(pair, hj.clip("shapes_1"), "Describe the video.")
    frames = len(np.unique(np.asarray(inputs.table.frame)[np.asarray(inputs.table.valid)])) * 2
    size = 28 * round((int(inputs.visual_tokens[0]) / (frames / 2)) ** 0.5)
    hj.warmup(pair, (frames, size, size), "Say what you see.", max_new_tokens=1, **arguments)
    compiled = _hippo_generate._cache_size()
    hj.hippo_generate(pair, inputs, max_new_tokens=9, **arguments)
    assert _hippo_generate._cache_size() == compiled


def test_three_sizes_are_not_one(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list = []
    monkeypatch.setattr(
        warming, "prepare_inputs", lambda pair, videos, prompts: made.append(videos[0])
    )
    monkeypatch.setattr(warming, "hippo_generate", lambda *_, **__: 0)
    sizes = ((2, 28, 56), (4, 28, 28), (6, 56, 28))
    for given in (sizes, list(sizes)):
        made.clear()
        hj.warmup(None, given)
        assert tuple(video.frames.shape[:3] for video in made) == sizes
