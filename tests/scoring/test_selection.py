"""From scores to kept tokens."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import checks_scoring, tiny
from support import scoring_oracles as slow
from support.checks_scoring import kept_rows

from hippo_jax.errors import HippoError
from hippo_jax.inputs import model_inputs
from hippo_jax.scoring import select_tokens
from hippo_jax.scoring.selection import kept_counts, sortable


def test_kept_counts():
    checks_scoring.check_kept_counts()


def test_select_tokens():
    checks_scoring.check_select_tokens()


def test_order_of_scores():
    """NaN and minus infinity lowest, above only what is not a row's own; the zeros are equal."""
    top = float(np.finfo(np.float32).max)
    rising = [-np.inf, -top, -1.5, -1.0, -1e-30, 0.0, 1e-30, 1.0, 1.5, top, np.inf]
    ranks = np.asarray(sortable(jnp.asarray(rising, jnp.float32), jnp.ones(11, bool)))
    assert (np.diff(ranks.astype(np.int64)) > 0).all()
    same = sortable(jnp.array([np.nan, -np.nan, -np.inf, -0.0, 0.0]), jnp.ones(5, bool))
    assert len(set(same[:3].tolist())) == len(set(same[3:].tolist())) == 1
    other = sortable(jnp.array([np.inf]), jnp.zeros(1, bool))
    assert int(other[0]) < int(same[0])


@pytest.mark.parametrize("scope", ["global", "per_frame"])
def test_inside_a_program(scope):
    _, inputs = checks_scoring.prompts(0)
    scores = checks_scoring.noise(inputs, 4)
    expected = select_tokens(scores, inputs, 0.3, scope=scope)
    got = jax.jit(lambda s, i: select_tokens(s, i, 0.3, scope=scope))(scores, inputs)
    np.testing.assert_array_equal(got, expected)
    for dtype in (jnp.bfloat16, jnp.float16):
        rounded = jnp.asarray(scores).astype(dtype)
        wide = select_tokens(rounded.astype(jnp.float32), inputs, 0.3, scope=scope)
        np.testing.assert_array_equal(select_tokens(rounded, inputs, 0.3, scope=scope), wide)


@pytest.mark.parametrize("scope", ["global", "per_frame"])
def test_larger_buckets_change_nothing(monkeypatch, scope):
    rows = tiny.batch_rows()
    inputs = tiny.inputs(rows)
    scores = checks_scoring.noise(inputs, 4, levels=3)
    count = len(slow.places(rows))
    plain = model_inputs.bucket
    monkeypatch.setattr(model_inputs, "bucket", lambda size, minimum=16: 3 * plain(size, minimum))
    larger = tiny.inputs(rows)
    assert checks_scoring.size_of(larger) > checks_scoring.size_of(inputs)
    padded = np.full(checks_scoring.size_of(larger), np.inf, np.float32)
    padded[:count] = scores[:count]
    for ratio in checks_scoring.RATIOS:
        few = kept_rows(select_tokens(scores, inputs, ratio, scope=scope))
        assert kept_rows(select_tokens(padded, larger, ratio, scope=scope)) == few


@pytest.mark.parametrize("scope", ["global", "per_frame"])
def test_batch_mates_change_nothing(scope):
    rows, inputs = checks_scoring.prompts(0)
    scores = checks_scoring.noise(inputs, 4, levels=3)
    together = kept_rows(select_tokens(scores, inputs, 0.4, scope=scope))
    for b, row in enumerate(rows):
        alone = tiny.inputs([row])
        own = np.zeros(checks_scoring.size_of(alone), np.float32)
        index = slow.of_row(rows, b)
        own[: len(index)] = scores[index]
        assert kept_rows(select_tokens(own, alone, 0.4, scope=scope)) == [together[b]]


def test_per_frame_shares_out_the_budget():
    """Eleven of 36 over three frames of 12: three, four, four; all best tokens in one frame."""
    inputs = tiny.inputs([tiny.prompt(1, tiny.media("video", (3, 6, 8)), 2)])
    scores = np.zeros(checks_scoring.size_of(inputs), np.float32)
    scores[24:36] = 1 + np.arange(12)
    (kept,) = kept_rows(select_tokens(scores, inputs, 0.3, scope="per_frame"))
    assert kept == [0, 1, 2, 12, 13, 14, 15, 32, 33, 34, 35]
    (kept,) = kept_rows(select_tokens(scores, inputs, 0.3))
    assert kept == list(range(25, 36))


def test_a_very_long_video_does_not_overflow():
    """131072 tokens: the product of budget and place needs 34 bits."""
    frames, side = 128, 32
    count = frames * side * side
    frame, y, x = np.indices((frames, side, side)).reshape(3, -1).astype(np.int32)

    def all_of(value):
        return np.full(count, value, np.int32)

    table = model_inputs.VisualTable(
        row=all_of(0),
        slot=np.arange(count, dtype=np.int32),
        video=all_of(0),
        frame=frame,
        y=y,
        x=x,
        frames=all_of(frames),
        height=all_of(side),
        width=all_of(side),
        valid=np.ones(count, bool),
    )
    empty = np.zeros((1, count), np.int32)
    one = np.zeros(1, np.int32)
    inputs = model_inputs.ModelInputs(
        empty, one, empty, one, empty, table, empty, empty, None, one, np.int32(count)
    )
    scores = np.zeros(count, np.float32)
    (kept,) = kept_rows(select_tokens(scores, inputs, 0.9, scope="per_frame"))
    budget = int(kept_counts(0.9, count)[-1])
    quota = np.diff([budget * end // frames for end in range(frames + 1)])
    expected = np.concatenate([1024 * f + np.arange(q) for f, q in enumerate(quota)])
    assert kept == expected.tolist()


@pytest.mark.parametrize("ratio", [0, -0.1, 1.01, float("nan"), True, "0.1", None, 1j])
def test_ratios_that_cannot_be(ratio):
    _, inputs = checks_scoring.prompts(0)
    scores = checks_scoring.noise(inputs, 0)
    with pytest.raises(HippoError, match="keep_ratio must be a number above 0 and at most 1"):
        select_tokens(scores, inputs, ratio)
    with pytest.raises(HippoError, match="keep_ratio"):
        kept_counts(ratio, 3)


def test_ratios_of_numpy():
    assert kept_counts(np.float32(0.5), 4).tolist() == kept_counts(0.5, 4).tolist()


def test_other_arguments_that_do_not_fit():
    _, inputs = checks_scoring.prompts(0)
    with pytest.raises(HippoError, match=r"scores have shape \(2,\)"):
        select_tokens(np.zeros(2, np.float32), inputs, 0.1)
    with pytest.raises(HippoError, match="scope must be one of"):
        select_tokens(checks_scoring.noise(inputs, 0), inputs, 0.1, scope="row")


@pytest.mark.parametrize("scope", ["global", "per_frame"])
def test_prompts_without_video(scope):
    inputs = tiny.inputs([tiny.batch_rows()[2]] * 2)
    got = select_tokens(np.zeros(0, np.float32), inputs, 0.1, scope=scope)
    assert got.shape == (2, 0)
    assert got.dtype == jnp.int32
