"""How a video comes to be read: the part that is asked about, once for all questions."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hippo_jax import resources
from hippo_jax.architectures.video_lm import abstract_model
from hippo_jax.errors import HippoError
from hippo_jax.evaluation.runner import Preparer, Settings
from hippo_jax.evaluation.samples import Sample
from hippo_jax.inputs import prepare
from hippo_jax.inputs.video import read_video
from hippo_jax.weights.checkpoint import read_config

FRAMES, RATE = 12, 3.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Frame k is as bright as 20 k."""
    frames = tmp_path / "frames"
    frames.mkdir()
    for k in range(FRAMES):
        Image.fromarray(np.full((56, 84, 3), 20 * k, np.uint8)).save(frames / f"{k + 1:05d}.png")
    return frames


@pytest.fixture(scope="module")
def preparer() -> Any:
    """Makes preparers for the embedded pair, of which only the files are needed."""
    directory = resources.checkpoint_directory("demo", "target")
    model = abstract_model(read_config(directory))
    model.source = str(directory)
    replicas: Any = SimpleNamespace(
        pair=SimpleNamespace(target=model), size_of=lambda row: len(row.ids)
    )
    return lambda **settings: Preparer(replicas, Settings(**settings))


def brightness(frames: np.ndarray) -> list[int]:
    return [int(frame.mean()) // 20 for frame in frames]


def test_a_folder_of_frames_is_sampled_by_the_rate_they_were_taken_at(folder: Path) -> None:
    video = read_video(folder, folder_fps=RATE, fps=RATE, start=1.0, end=3.0)
    assert video.fps == RATE and brightness(video.frames) == [3, 4, 5, 6, 7, 8]
    fewer = read_video(folder, folder_fps=RATE, num_frames=2, start=1.0, end=3.0)
    assert fewer.fps == 1.0 and brightness(fewer.frames) == [3, 6]
    slower = read_video(folder, folder_fps=RATE, fps=1.0)
    assert slower.fps == 1.0 and brightness(slower.frames) == [0, 3, 6, 9]


def test_frames_with_a_rate_are_sampled_again(folder: Path, preparer: Any) -> None:
    sample = Sample("1", str(folder), "Describe.", start=1.0, end=3.0, frame_rate=RATE)
    found = preparer(num_frames=2)(sample)
    (media,) = found.prompt.media
    assert media.grid[0] == 1  # two frames are one step in time
    # Without a rate the frames are samples already, of which seconds 1 and 2 at 2 a second.
    alone = preparer(fps=2.0)(replace(sample, frame_rate=None))
    assert alone.prompt.media[0].grid[0] == 2
    assert found.size == len(found.prompt.ids) and found.seconds > 0


def test_a_video_is_read_once_for_questions_that_follow_each_other(
    folder: Path, preparer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[Any] = []
    read = prepare.read_video

    def noted(item: Any, **options: Any) -> Any:
        reads.append((Path(item).name, options["start"]))
        return read(item, **options)

    monkeypatch.setattr(prepare, "read_video", noted)
    first = Sample("1", str(folder), "Describe.")
    own = preparer()
    one, other = own(first), own(replace(first, prompt="What happens?"))
    assert reads == [("frames", None)]
    np.testing.assert_array_equal(one.prompt.media[0].pixels, other.prompt.media[0].pixels)
    assert not np.array_equal(one.prompt.ids, other.prompt.ids)
    fresh = preparer()(replace(first, prompt="What happens?"))
    np.testing.assert_array_equal(fresh.prompt.ids, other.prompt.ids)
    own(replace(first, start=1.0))  # another part is another video
    assert reads[-1] == ("frames", 1.0)


def test_what_is_wrong_with_a_video_is_said(preparer: Any, tmp_path: Path) -> None:
    with pytest.raises(HippoError, match="does not exist"):
        preparer()(Sample("1", str(tmp_path / "none.mp4"), "Describe."))
