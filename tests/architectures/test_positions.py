"""Rotary positions of prompts with videos, under both rules."""

import numpy as np
import pytest
from support import checks_vision, tiny

from hippo_jax.errors import HippoError
from hippo_jax.inputs.model_inputs import Row


def test_extent_is_transformers_5():
    checks_vision.check_positions_extent()


def test_largest_is_transformers_4():
    checks_vision.check_positions_largest()


@pytest.mark.parametrize(
    ("media", "same"),
    [
        (tiny.media("image", (1, 6, 4)), True),  # no time: both resume past the larger side
        (tiny.media("video", (2, 8, 8), 1.0), True),  # t ids 0, 2 stay below the side of 4
        (tiny.media("video", (3, 8, 8), 1.0), False),  # t ids 0, 2, 4: one more
        (tiny.media("video", (6, 4, 4), 2.0), False),
    ],
)
def test_the_rules_differ_once_time_outgrows_space(media, same):
    row = tiny.prompt(1, 2, media, 3, 4)
    extent, extent_next = checks_vision.our_positions(row, "extent")
    largest, largest_next = checks_vision.our_positions(row, "largest")
    visual = np.isin(row.ids, (tiny.VIDEO, tiny.IMAGE))
    np.testing.assert_array_equal(extent[:, visual], largest[:, visual])
    assert (extent_next == largest_next) is same
    assert np.array_equal(extent, largest) is same


def test_text_alone_counts_up():
    positions, following = checks_vision.our_positions(tiny.batch_rows()[2], "largest")
    np.testing.assert_array_equal(positions, np.tile(np.arange(5), (3, 1)))
    assert following == 5


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda ids: np.append(ids, tiny.VIDEO), "more visual placeholders"),
        (lambda ids: np.delete(ids, 5), "has only 44 placeholders"),
        (lambda ids: ids[ids != tiny.VIDEO], "fewer visual placeholders"),
        (lambda ids: np.where(np.arange(len(ids)) == 9, tiny.IMAGE, ids), "placeholders"),
    ],
)
def test_placeholders_that_do_not_fit(change, words):
    row = tiny.video_row()
    with pytest.raises(HippoError, match=words):
        tiny.inputs([Row(change(row.ids).astype(np.int32), row.media)])
