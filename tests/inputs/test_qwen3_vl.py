"""Qwen3-VL's preprocessing: what Hugging Face's processors give, and what is refused."""

import copy
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from inputs import golden_cases as cases
from support import checks_qwen3_vl_inputs as checks
from support.checks_qwen3_vl_inputs import PROCESSOR, goldens, sources, special, tokenizer

from hippo_jax.architectures.qwen3_vl.processor import Processor
from hippo_jax.errors import HippoError
from hippo_jax.inputs.chat import encode_row
from hippo_jax.inputs.media import encode_media
from hippo_jax.inputs.video import Video


@pytest.mark.parametrize(
    "check",
    [
        checks.check_sampling,
        checks.check_sizes,
        checks.check_patches,
        checks.check_sampled_video,
        checks.check_chats,
        checks.check_reading,
    ],
)
def test_against_the_reference(check) -> None:
    check()


def test_timestamps_are_the_middles_of_the_temporal_units() -> None:
    np.testing.assert_allclose(sources()["video"].times, np.array([0, 4, 8, 12, 16]) / 6)
    media = encode_media(sources()["video"], PROCESSOR)
    np.testing.assert_allclose(media.timestamps, [2 / 6, 10 / 6, 16 / 6])


def test_a_template_without_marks_around_the_placeholder() -> None:
    bare = copy.deepcopy(tokenizer())
    marks = "<|vision_start|><|video_pad|><|vision_end|>"
    assert marks in bare.chat_template
    bare.chat_template = bare.chat_template.replace(marks, "<|video_pad|>")
    row = encode_row(bare, special(), PROCESSOR, [sources()["video"]], cases.CHATS[0][1])
    assert row.ids.tolist() == goldens()["ids_0"].tolist()


def test_max_pixels_bounds_each_frame() -> None:
    few = PROCESSOR.with_max_pixels(32 * 32)
    assert few.frame_size(60, 90, 5) == (32, 32)
    assert encode_media(sources()["image"], few).grid == (1, 2, 2)
    wide = PROCESSOR.with_max_pixels(10**6)
    assert wide.frame_size(60, 90, 5) == PROCESSOR.frame_size(60, 90, 5)
    with pytest.raises(HippoError, match="less than one visual token"):
        PROCESSOR.with_max_pixels(1023)


def test_frames_that_are_samples_already_are_all_taken() -> None:
    processor = dataclasses.replace(PROCESSOR, fps=None)
    assert processor.frame_indices(7, 30.0).tolist() == list(range(7))
    few = dataclasses.replace(processor, max_frames=4)
    assert few.frame_indices(7, 30.0).tolist() == [0, 2, 4, 6]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fps": 2.0, "num_frames": 4}, "both"),
        ({"fps": 0}, "fps is 0"),
        ({"num_frames": 41}, "exceeds the 40 frames"),
    ],
)
def test_refused_rates(settings, message) -> None:
    with pytest.raises(HippoError, match=message):
        Processor().frame_indices(40, 10.0, **settings)


def test_other_refusals() -> None:
    with pytest.raises(HippoError, match="empty"):
        PROCESSOR.frame_size(0, 5, 2)
    with pytest.raises(HippoError, match="timestamps"):
        media = dataclasses.replace(
            encode_media(Video(np.zeros((2, 32, 32, 3), np.uint8), 1.0), PROCESSOR), timestamps=()
        )
        encode_row(tokenizer(), special(), PROCESSOR, [media], "What?")


HUB_VIDEO = {
    "size": {"longest_edge": 25165824, "shortest_edge": 4096},
    "patch_size": 16,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "processor_class": "Qwen3VLProcessor",
    "video_processor_type": "Qwen3VLVideoProcessor",
}
HUB_IMAGE = {**HUB_VIDEO, "size": {"longest_edge": 16777216, "shortest_edge": 65536}}


def written(folder: Path, **video: object) -> Path:
    (folder / "preprocessor_config.json").write_text(json.dumps(HUB_IMAGE))
    (folder / "video_preprocessor_config.json").write_text(json.dumps({**HUB_VIDEO, **video}))
    return folder


def test_files_as_published(tmp_path) -> None:
    found = Processor.from_directory(written(tmp_path))
    assert found == Processor(min_pixels=4096, max_pixels=25165824) and found.fps == 2.0


def test_files_that_say_otherwise(tmp_path) -> None:
    assert Processor.from_directory(written(tmp_path, fps=1)).fps == 1.0
    assert Processor.from_directory(written(tmp_path, do_sample_frames=False)).fps is None
    assert Processor.from_directory(written(tmp_path, fps=None)).fps is None
    assert Processor.from_directory(written(tmp_path, max_frames=9)).max_frames == 9
    for name, value in (("cap_pixels_per_frame", True), ("num_frames", 8), ("resample", 2)):
        with pytest.raises(HippoError, match=name) as caught:
            Processor.from_directory(written(tmp_path, **{name: value}))
        assert "\n" not in str(caught.value)
