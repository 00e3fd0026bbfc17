"""Normalising within frames, and the weighted sum."""

import jax
import numpy as np
import pytest
from support import checks_scoring, tiny

from hippo_jax.errors import HippoError
from hippo_jax.scoring import holistic_scores
from hippo_jax.scoring.fusion import normalise


def test_normalise():
    checks_scoring.check_normalise()


def test_holistic_scores():
    checks_scoring.check_holistic()


def test_inside_a_program():
    _, inputs = checks_scoring.prompts(0)
    given = [checks_scoring.noise(inputs, seed) for seed in range(3)]
    got = jax.jit(holistic_scores)(*given, inputs.table)
    np.testing.assert_allclose(got, holistic_scores(*given, inputs.table), rtol=1e-6)


def test_a_still_scene_gives_numbers():
    """Scores that are equal everywhere leave the others to decide."""
    _, inputs = checks_scoring.prompts(0)
    flat = np.zeros(checks_scoring.size_of(inputs), np.float32)
    some = checks_scoring.noise(inputs, 0)
    for normaliser in ("minmax", "zscore"):
        got = holistic_scores(flat, some, flat + 0.1, inputs.table, normaliser=normaliser)
        np.testing.assert_allclose(got, normalise(some, inputs.table, normaliser), rtol=1e-6)
        assert (np.asarray(holistic_scores(flat, flat, flat, inputs.table)) == 0).all()


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"weights": (0, 0, 0)}, "all weights are 0"),
        ({"weights": (1, 1, 1)}, "no attention scores are given"),
        ({"weights": (0, 1)}, "weights must be three numbers"),
        ({"weights": (0, -1, 1)}, "the weight of temporal must be a finite number"),
        ({"weights": (0, 0, 1)}, r"spatial scores have shape \(3,\)"),
        ({"weights": (0, 1, 0), "normaliser": "softmax"}, "normaliser must be one of"),
    ],
)
def test_refusals(keywords, words):
    _, inputs = checks_scoring.prompts(0)
    some = checks_scoring.noise(inputs, 0)
    with pytest.raises(HippoError, match=words):
        holistic_scores(None, some, np.zeros(3, np.float32), inputs.table, **keywords)


def test_prompts_without_video():
    inputs = tiny.inputs([tiny.batch_rows()[2]])
    nothing = np.zeros(0, np.float32)
    for normaliser in ("minmax", "zscore", "none"):
        got = holistic_scores(nothing, nothing, nothing, inputs.table, normaliser=normaliser)
        assert got.shape == (0,)
