"""Clips: deterministic, rich enough, and readable by eye and codec."""

import numpy as np
import pytest

from hippo_jax.training import codec, domain
from hippo_jax.training.domain import HELD_OUT, TRAIN, Thing, sample_crowded_scene, sample_scene
from hippo_jax.training.render import NONE, TOKEN, render


def test_a_clip_is_a_function_of_seed_index_and_split():
    scene = sample_scene(3, 5)
    assert sample_scene(3, 5) == scene
    np.testing.assert_array_equal(render(scene)[0], render(scene)[0])
    others = [sample_scene(3, 6), sample_scene(4, 5), sample_scene(3, 5, HELD_OUT)]
    assert all(other.pixel_key != scene.pixel_key for other in others)
    assert not np.array_equal(render(others[2])[0], render(scene)[0])


def test_every_scene_tells_at_least_25_bits():
    assert domain.scene_entropy_bits(2) >= 25
    assert domain.scene_entropy_bits(2) < domain.scene_entropy_bits() < domain.scene_entropy_bits(3)
    scenes = [sample_scene(0, i) for i in range(2000)]
    assert {len(s.things) for s in scenes} == {2, 3}


def test_measured_frequencies_are_those_of_the_entropy():
    scenes = [sample_scene(1, i) for i in range(4000)]
    three = np.mean([len(s.things) == 3 for s in scenes])
    events = np.bincount([t.event for s in scenes for t in s.things], minlength=4)
    colours = np.bincount([t.colour for s in scenes for t in s.things], minlength=8)
    assert three == pytest.approx(0.4, abs=0.03)
    np.testing.assert_allclose(events / events.sum(), domain.EVENT_PROBABILITIES, atol=0.02)
    np.testing.assert_allclose(colours / colours.sum(), 1 / 8, atol=0.015)


@pytest.mark.parametrize("split", [TRAIN, HELD_OUT])
def test_one_object_a_column_and_colours_of_turns_are_apart(split):
    for index in range(200):
        scene = sample_scene(0, index, split)
        columns = [t.column for t in scene.things]
        assert len(set(columns)) == len(columns)
        for thing in scene.things:
            assert thing.colour_in_half(0) < len(domain.COLOURS)


@pytest.mark.parametrize("motion", range(5))
@pytest.mark.parametrize("shape", range(4))
def test_objects_never_leave_their_cell(motion, shape):
    """The renderer clips at the cell border: nothing of an object may be on it."""
    thing = Thing(1, 1, 0, shape, motion, 0, 0)
    for index in range(10):
        scene = domain.Scene(0, 0, (thing,), (9, index))
        from hippo_jax.training.render import _object_masks

        mask = _object_masks(scene, np.random.default_rng(index))[0]
        border = [mask[:, 0], mask[:, -1], mask[:, :, 0], mask[:, :, -1]]
        assert max(edge.max() for edge in border) < 1
        assert mask.max() == 1


def test_labels_follow_the_objects():
    scene = domain.Scene(
        0,
        0,
        (
            Thing(0, 2, 3, 0, 0, domain.EVENTS.index("vanishes"), 0),
            Thing(2, 0, 1, 2, 2, domain.EVENTS.index("turns"), 1),
        ),
        (1, 2),
    )
    frames, labels = render(scene)
    assert frames.shape == (8, 252, 252, 3) and frames.dtype == np.uint8
    assert labels.colour.shape == (4, 9, 9)
    low_left = labels.colour[:, 6:, :3]
    assert (low_left[:2] == 3).any() and (low_left[2:] == NONE).all()
    high_right = labels.colour[:, :3, 6:]
    assert set(np.unique(high_right[:2])) == {NONE, 1}
    assert set(np.unique(high_right[2:])) == {NONE, len(domain.COLOURS) + 1}
    assert (labels.colour[:, 3:6] == NONE).all()
    g, y, x = np.argwhere(labels.colour[2:] == 9)[0]
    token = frames[(g + 2) * 2, y * TOKEN : (y + 1) * TOKEN, x * TOKEN : (x + 1) * TOKEN]
    assert token.min() < 25  # a black pixel is really there


def test_crowded_scenes_fill_most_cells():
    counts = [len(sample_crowded_scene(0, i).things) for i in range(100)]
    assert 6 < np.mean(counts) < 8.5
    render(sample_crowded_scene(0, 0))


def test_a_written_clip_keeps_its_size_and_pixels(tmp_path):
    frames, _ = render(sample_scene(0, 0))
    decoded = codec.through_codec(frames, tmp_path)
    assert decoded.shape == frames.shape
    assert np.abs(decoded.astype(int) - frames).mean() < 6
    assert not list(tmp_path.iterdir())


def test_the_imitation_is_near_the_codec(tmp_path):
    frames, _ = render(sample_scene(0, 1))
    real = codec.through_codec(frames, tmp_path).astype(float)
    imitated = codec.imitate_codec(frames, np.random.default_rng(0)).astype(float)
    assert np.abs(imitated - real).mean() < 8
