"""The picture shows the intervals where and as long as they were."""

import numpy as np
import pytest

from hippo_jax.benchmark import timeline
from hippo_jax.benchmark.intervals import Interval, Round


def columns(image, colour: tuple[int, int, int]) -> np.ndarray:
    """Which columns of pixels have a colour somewhere."""
    return np.flatnonzero((np.asarray(image) == colour).all(axis=-1).any(axis=0))


def test_bars_are_to_scale() -> None:
    rounds = [
        Round(target=Interval(0.0, 40.0), draft=Interval(10.0, 30.0)),
        Round(target=Interval(50.0, 75.0), draft=Interval(60.0, 100.0)),
    ]
    image = timeline.timeline("title", "where", [timeline.Panel("A", rounds)])
    target = columns(image, timeline.BUSY["target"])
    draft = columns(image, timeline.BUSY["draft"])
    pixels = (draft[-1] - target[0]) / 100.0  # a millisecond, from the first start to the last end
    for found, role in ((target, "target"), (draft, "draft")):
        bars = np.split(found, np.flatnonzero(np.diff(found) > 2) + 1)
        assert len(bars) == 2
        for bar, one in zip(bars, rounds, strict=True):
            interval = getattr(one, role)
            at = target[0] + pixels * np.array([interval.start, interval.end])
            np.testing.assert_allclose([bar[0], bar[-1]], at, atol=2)


def test_lanes_do_not_share_lines_and_panels_share_the_scale() -> None:
    short = [Round(Interval(0.0, 10.0), Interval(0.0, 8.0))]
    long = [Round(Interval(0.0, 40.0), Interval(0.0, 8.0))]
    panels = [timeline.Panel("A", short), timeline.Panel("B", long)]
    pixels = np.asarray(timeline.timeline("title", "where", panels))
    lines = {
        role: np.flatnonzero((pixels == colour).all(axis=-1).any(axis=1))
        for role, colour in timeline.BUSY.items()
    }
    assert not set(lines["target"]) & set(lines["draft"])
    widths = (pixels == timeline.BUSY["target"]).all(axis=-1).sum(axis=1)
    first, second = np.split(lines["target"], np.flatnonzero(np.diff(lines["target"]) > 1) + 1)
    assert widths[second[1]] / widths[first[1]] == pytest.approx(4, rel=0.02)


@pytest.mark.parametrize("end", [0.7, 9.0, 216.0, 5000.0])
def test_marks_of_the_axis_can_be_read(end: float) -> None:
    scale = timeline.Scale(end)
    marks = list(scale.marks())
    places = [scale.x(mark) for mark in marks]
    assert marks[0] == 0 and marks[-1] <= end and len(marks) >= 3
    assert timeline.TICKS - 1 <= min(np.diff(places)) <= 2.5 * timeline.TICKS + 1
    assert all(len(f"{mark:g}") <= 4 for mark in marks)
