"""The named selectors, one interface."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import checks_scoring, tiny
from support import scoring_oracles as slow
from support.checks_scoring import kept_rows, noise, prompts, ranked, size_of

from hippo_jax.errors import HippoError
from hippo_jax.inputs import model_inputs
from hippo_jax.scoring import select_tokens
from hippo_jax.scoring.config import ScoringConfig
from hippo_jax.scoring.selectors import SelectionContext, selector_scores

SELECTORS = ("holistic", "draft", "random", "uniform", "specvlm")


def test_uniform():
    checks_scoring.check_uniform()


def test_random():
    checks_scoring.check_random()


def test_specvlm():
    checks_scoring.check_specvlm()


def test_holistic():
    checks_scoring.check_holistic_selector()


def test_uniform_by_hand():
    """Three of ten: the tokens where a third of the way is passed."""
    inputs = tiny.inputs([tiny.prompt(1, tiny.media("video", (5, 2, 4)), 2)])
    got = np.flatnonzero(ranked(inputs, 0.3, selector="uniform"))
    assert got.tolist() == [3, 6, 9]


def test_specvlm_by_hand():
    """Budget 5 of 10: 0.4 of the mass lies in tokens 7 and 2; of the other eight, three."""
    inputs = tiny.inputs([tiny.prompt(1, tiny.media("video", (5, 2, 4)), 2)])
    relevance = np.zeros(size_of(inputs), np.float32)
    relevance[:10] = [4, 4, 7, 4, 4, 4, 4, 9, 4, 4]  # 16 of 48
    relevance[10:] = 100
    got = ranked(inputs, 0.5, relevance, selector="specvlm", specvlm_mass=1 / 3)
    # Left over: 0 1 3 4 5 6 8 9, of which the first, the fourth and the last.
    assert np.asarray(got)[:10].tolist() == [1, 0, 2, 0, 1, 0, 0, 2, 0, 1]
    got = ranked(inputs, 0.3, relevance, selector="specvlm", specvlm_mass=1 / 3)
    assert np.flatnonzero(got).tolist() == [0, 2, 7]
    got = ranked(inputs, 0.1, relevance, selector="specvlm")
    assert np.flatnonzero(got).tolist() == [7]


def test_seeds_differ():
    rows, inputs = prompts(0)
    first, second = (np.asarray(ranked(inputs, 0.1, selector="random", seed=s)) for s in (0, 1))
    count = len(slow.places(rows))
    assert (first[:count] != second[:count]).all()
    assert len(set(first[:count].tolist())) == count
    assert ranked(inputs, 0.1, selector="random", seed=2**32 - 1).shape == first.shape


@pytest.mark.parametrize("selector", SELECTORS)
def test_inside_a_program(selector):
    _, inputs = prompts(0)
    relevance, features = noise(inputs, 1), noise(inputs, 2, 8)
    expected = ranked(inputs, 0.3, relevance, features, selector=selector)
    got = jax.jit(lambda i, r, f: ranked(i, 0.3, r, f, selector=selector))(
        inputs, relevance, features
    )
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    assert got.dtype == jnp.float32


def shown(context: SelectionContext):
    assert context.keep_ratio == 0.3
    return jnp.asarray(context.relevance).astype(jnp.bfloat16) + context.features[:, 0]


def test_a_selector_of_ones_own():
    _, inputs = prompts(0)
    relevance, features = noise(inputs, 1), noise(inputs, 2, 8)
    got = ranked(inputs, 0.3, relevance, features, selector=shown)
    wide = relevance.astype(jnp.bfloat16).astype(np.float32)
    expected = np.where(inputs.table.valid, wide + features[:, 0], 0)
    np.testing.assert_allclose(got, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (lambda context: None, "returned NoneType"),
        (lambda context: [1.0], "returned list"),
        (lambda context: np.zeros(3, np.float32), r"returned float32\[3\]"),
        (lambda context: np.zeros((size_of(context.inputs), 1), np.float32), "of shape"),
        (lambda context: np.zeros(size_of(context.inputs), np.int32), "returned int32"),
    ],
)
def test_a_selector_that_returns_something_else(given, words):
    _, inputs = prompts(0)
    with pytest.raises(HippoError, match=words):
        ranked(inputs, 0.3, noise(inputs, 1), noise(inputs, 2, 8), selector=given)


def test_what_is_missing():
    _, inputs = prompts(0)
    for selector in ("holistic", "draft", "specvlm"):
        with pytest.raises(HippoError, match=f"{selector}' needs the attention relevance"):
            ranked(inputs, 0.3, None, noise(inputs, 2, 8), selector=selector)
    with pytest.raises(HippoError, match="needs visual features"):
        ranked(inputs, 0.3, noise(inputs, 1), None, selector="holistic")


@pytest.mark.parametrize("selector", [*SELECTORS, shown])
def test_prompts_without_video(selector):
    inputs = tiny.inputs([tiny.batch_rows()[2]])
    context = SelectionContext(inputs, 0.3, None, None, ScoringConfig(selector=selector))
    assert selector_scores(context).shape == (0,)


def test_batch_mates_and_buckets_change_nothing(monkeypatch):
    """Everything from pixels to kept tokens: in company, alone, and in larger buckets."""
    rows = tiny.batch_rows()
    together = tiny.inputs(rows)
    expected = checks_scoring.everything(together)
    count = len(slow.places(rows))
    for name, scores in expected.items():
        assert np.isfinite(scores).all(), name

    def compare(inputs, mine: list[int], kept: slice) -> None:
        got = checks_scoring.everything(inputs)
        for name, scores in got.items():
            ours, theirs = np.asarray(scores)[: len(mine)], np.asarray(expected[name])[mine]
            np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=2e-5, err_msg=name)
            before = kept_rows(select_tokens(expected[name], together, 0.3))[kept]
            assert kept_rows(select_tokens(scores, inputs, 0.3)) == before, name

    compare(tiny.inputs(rows[:1]), slow.of_row(rows, 0), slice(0, 1))
    plain = model_inputs.bucket
    monkeypatch.setattr(model_inputs, "bucket", lambda size, minimum=16: 2 * plain(size, minimum))
    compare(tiny.inputs(rows), list(range(count)), slice(None))
