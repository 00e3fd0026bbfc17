"""Temporal change and spatial variance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import checks_scoring, tiny

from hippo_jax.errors import HippoError
from hippo_jax.scoring import spatial_variance, temporal_change


def test_temporal_change():
    checks_scoring.check_temporal_change()


def test_spatial_variance():
    checks_scoring.check_spatial_variance()


def test_zero_huge_and_tiny_features():
    checks_scoring.check_odd_features()


def test_still_videos_score_nothing():
    checks_scoring.check_still_video()


def test_a_still_video_through_the_vision_tower():
    """Equal frames have equal features, whatever their place in the batch."""
    video = tiny.media("video", (4, 10, 6), 1.0)
    frame = np.random.default_rng(0).standard_normal((60, 1176), np.float32)
    pixels = np.tile(frame, (4, 1))
    still = type(video)("video", pixels, video.grid, 1.0)
    inputs = tiny.inputs([*tiny.batch_rows()[:2], tiny.prompt(1, still, 2)])
    features = tiny.model().encode_video(inputs)
    change = np.asarray(temporal_change(features, inputs.table))
    own = inputs.table.row == 2
    assert own.sum() == 60
    assert (change[own] == 0).all()
    assert (change[inputs.table.valid & ~own & (inputs.table.frames > 1)] > 0).all()
    assert (np.asarray(spatial_variance(features, inputs.table))[own] > 0).any()


def test_one_frame_and_one_token():
    rows = [
        tiny.prompt(1, tiny.media("video", (1, 6, 4)), 2),
        tiny.prompt(1, tiny.media("video", (3, 2, 2)), 2),
    ]
    inputs = tiny.inputs(rows)
    features = checks_scoring.noise(inputs, 0, 8)
    for neighbour in ("previous", "next", "both"):
        change = np.asarray(temporal_change(features, inputs.table, neighbour=neighbour))
        assert (change[:6] == 0).all()
        assert (change[6:9] > 0).all()
    variance = np.asarray(spatial_variance(features, inputs.table))
    assert (variance[:6] > 0).all()
    assert (variance[6:9] == 0).all()


def test_inside_a_program():
    _, inputs = checks_scoring.prompts(0)
    features = checks_scoring.noise(inputs, 0, 8).astype(jnp.bfloat16)
    for score in (temporal_change, spatial_variance):
        np.testing.assert_array_equal(
            jax.jit(score)(features, inputs.table), score(features, inputs.table)
        )


def test_no_array_over_window_and_width_at_once():
    """The window is walked; at most its distances could lie side by side."""
    _, inputs = checks_scoring.prompts(0)
    lines, dim = checks_scoring.size_of(inputs), 512
    features = jax.ShapeDtypeStruct((lines, dim), jnp.float32)
    compiled = jax.jit(lambda f, t: spatial_variance(f, t, crop=9)).lower(features, inputs.table)
    used = compiled.compile().memory_analysis().temp_size_in_bytes
    assert used < 6 * 4 * lines * dim


@pytest.mark.parametrize("score", [temporal_change, spatial_variance])
def test_features_that_do_not_fit(score):
    _, inputs = checks_scoring.prompts(0)
    for shape in ((3, 8), (checks_scoring.size_of(inputs),)):
        with pytest.raises(HippoError, match="lines of visual tokens; give"):
            score(np.zeros(shape, np.float32), inputs.table)


def test_settings_that_do_not_exist():
    _, inputs = checks_scoring.prompts(0)
    features = checks_scoring.noise(inputs, 0, 8)
    with pytest.raises(HippoError, match="neighbour must be one of"):
        temporal_change(features, inputs.table, neighbour="first")
    with pytest.raises(HippoError, match="crop must be an odd"):
        spatial_variance(features, inputs.table, crop=2)


def test_prompts_without_video():
    inputs = tiny.inputs([tiny.batch_rows()[2]])
    features = np.zeros((0, 8), np.float32)
    assert temporal_change(features, inputs.table).shape == (0,)
    assert spatial_variance(features, inputs.table).shape == (0,)
