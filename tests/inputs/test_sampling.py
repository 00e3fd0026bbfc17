"""Which frames are taken: the reference's rule, exactly."""

from pathlib import Path

import numpy as np
import pytest

from hippo_jax.errors import HippoError
from hippo_jax.inputs.processor import ProcessorConfig
from hippo_jax.inputs.sampling import frame_indices

GOLDENS = Path(__file__).parent / "goldens"
LIMITS = ProcessorConfig()


def test_indices_are_those_of_the_reference():
    goldens = np.load(GOLDENS / "sampling.npz")
    cases, indices = goldens["cases"], goldens["indices"]
    starts = np.cumsum([0, *cases[:, 4].astype(int)])
    refused = beyond = 0
    for case, start, stop in zip(cases, starts[:-1], starts[1:], strict=True):
        total, source, fps, count = int(case[0]), case[1], case[2] or None, int(case[3]) or None
        expected = indices[start:stop]
        if len(expected) == 0:
            refused += 1
            with pytest.raises(HippoError, match=r"num_frames .* exceeds"):
                frame_indices(total, source, fps=fps, num_frames=count, limits=LIMITS)
            continue
        # Where float rounding makes the reference ask for a frame behind the last, it fails.
        beyond += expected[-1] == total
        got = frame_indices(total, source, fps=fps, num_frames=count, limits=LIMITS)
        assert got.tolist() == expected[expected < total].tolist(), case
    assert refused > 5 and beyond > 5


def test_default_is_the_processors_rate_else_all_frames():
    assert frame_indices(11, 10.0, limits=LIMITS).tolist() == list(range(11))
    at_two = ProcessorConfig(fps=2.0)
    assert frame_indices(40, 10.0, limits=at_two).tolist() == list(range(0, 40, 5))
    assert frame_indices(40, 10.0, fps=1.0, limits=at_two).tolist() == [0, 10, 20, 30]
    assert frame_indices(40, 10.0, num_frames=2, limits=at_two).tolist() == [0, 20]


def test_all_frames_are_thinned_out_to_the_maximum():
    few = ProcessorConfig(max_frames=9)
    assert frame_indices(9, 10.0, limits=few).tolist() == list(range(9))
    assert frame_indices(16, 10.0, limits=few).tolist() == list(range(0, 16, 2))


@pytest.mark.parametrize("total", [1, 2, 3])
def test_a_very_short_video_is_taken_at_any_rate(total):
    # The reference divides by zero for a single frame.
    assert frame_indices(total, 30.0, fps=2.0, limits=LIMITS).tolist() == [0, 1][:total]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fps": 2.0, "num_frames": 4}, "both"),
        ({"fps": 0}, "fps is 0"),
        ({"fps": -1.0}, "fps is -1"),
        ({"fps": float("nan")}, "fps is nan"),
        ({"fps": float("inf")}, "fps is inf"),
        ({"fps": "2"}, "fps is '2'"),
        ({"fps": True}, "fps is True"),
        ({"num_frames": 0}, "num_frames is 0"),
        ({"num_frames": 2.5}, "num_frames is 2.5"),
        ({"num_frames": 1}, "less than one group"),
        ({"num_frames": 12}, "exceeds the 10 frames"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(HippoError, match=message):
        frame_indices(10, 10.0, **arguments, limits=LIMITS)


def test_no_frames_and_no_rate_are_refused():
    with pytest.raises(HippoError, match="no frames"):
        frame_indices(0, 10.0, limits=LIMITS)
    with pytest.raises(HippoError, match="frame rate"):
        frame_indices(5, 0.0, limits=LIMITS)
