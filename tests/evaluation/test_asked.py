"""Questions, captions of their videos, or both, those of one video together."""

import pytest

from hippo_jax.errors import HippoError
from hippo_jax.evaluation.asked import asked, captions
from hippo_jax.evaluation.samples import Sample

QUESTIONS = [
    Sample(str(i), video, "Which?", "choice", ("a", "b"), "A")
    for i, video in enumerate(("1.mp4", "2.mp4", "1.mp4"))
]


def kinds(samples: list[Sample]) -> list[tuple[str, str]]:
    return [(one.kind, one.video) for one in samples]


def test_what_is_asked_about_one_video_stands_together() -> None:
    assert kinds(asked(QUESTIONS, "both")) == [
        ("choice", "1.mp4"),
        ("choice", "1.mp4"),
        ("caption", "1.mp4"),
        ("choice", "2.mp4"),
        ("caption", "2.mp4"),
    ]
    assert [one.id for one in asked(QUESTIONS, "questions")] == ["0", "2", "1"]
    assert kinds(asked(QUESTIONS, "captions")) == [("caption", "1.mp4"), ("caption", "2.mp4")]


def test_a_video_with_a_caption_of_its_own_is_not_described_again() -> None:
    own = Sample("mine", "1.mp4", "Say what happens.")
    assert [one.id for one in asked([*QUESTIONS, own], "captions")] == ["mine", "caption of 1"]
    with pytest.raises(HippoError, match="there are no questions among the samples"):
        asked([own], "questions")


def test_each_part_of_a_video_is_described_once() -> None:
    asked = [
        Sample("1", "a.mp4", "x", "choice", ("p", "q"), "A"),
        Sample("2", "a.mp4", "y", "choice", ("p", "q"), "B"),
        Sample("3", "a.mp4", "z", "choice", ("p", "q"), "B", start=1.0, frame_rate=3.0),
    ]
    first, second = captions(asked, "Say it.")
    assert first == Sample("caption of 1", "a.mp4", "Say it.")
    assert second == Sample("caption of 3", "a.mp4", "Say it.", start=1.0, frame_rate=3.0)
