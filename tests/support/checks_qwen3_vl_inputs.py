"""Checks of Qwen3-VL's preprocessing against Hugging Face's, for tests and for mutants."""

import dataclasses
import functools
from pathlib import Path

import numpy as np
import pytest
from inputs import golden_cases as cases

from hippo_jax.architectures.qwen3_vl.processor import Processor
from hippo_jax.errors import HippoError
from hippo_jax.inputs.chat import encode_row, load_tokenizer
from hippo_jax.inputs.media import encode_media
from hippo_jax.inputs.video import Video, read_video

HERE = Path(cases.__file__).parent
ONE_LEVEL = 2 / 255  # of 8-bit pixels, normalised
PROCESSOR = Processor(
    min_pixels=cases.QWEN3_BOUNDS[0],
    max_pixels=cases.QWEN3_BOUNDS[1],
    image_min_pixels=cases.QWEN3_IMAGE_BOUNDS[0],
    image_max_pixels=cases.QWEN3_IMAGE_BOUNDS[1],
)


@functools.cache
def goldens() -> dict[str, np.ndarray]:
    """What the reference made."""
    with np.load(HERE / "goldens" / "qwen3_vl.npz") as stored:
        return dict(stored)


@dataclasses.dataclass(frozen=True)
class Special:
    image_token_id: int
    video_token_id: int
    vision_start_token_id: int
    vision_end_token_id: int


def tokenizer():
    """A byte-level one with the control tokens."""
    return load_tokenizer(HERE / "tokenizer")


def special() -> Special:
    """Their ids."""
    names = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
    return Special(*tokenizer().convert_tokens_to_ids(list(names)))


@functools.cache
def sources() -> dict[str, object]:
    """The media of the chats: a video sampled by default while it is read, and an image."""
    whole = Video(cases.frames(*cases.QWEN3_VIDEOS["long"]), cases.QWEN3_FPS)
    return {
        "video": read_video(whole, limits=PROCESSOR, resize=True),
        "image": cases.frames(*cases.IMAGE[0])[0],
    }


def check_sampling() -> None:
    """Which frames are taken, for many lengths, rates and counts."""
    rows, indices = goldens()["sampling"], goldens()["indices"]
    starts = np.cumsum([0, *rows[:, 4].astype(int)])
    for row, start, stop in zip(rows, starts[:-1], starts[1:], strict=True):
        fps, count = row[2] or None, int(row[3]) or None
        got = Processor().frame_indices(int(row[0]), row[1], fps=fps, num_frames=count)
        assert got.dtype == np.int64
        assert got.tolist() == indices[start:stop].tolist(), row


def check_sizes() -> None:
    """Sizes of frames, for many clips and bounds."""
    refused = 0
    for frames, height, width, low, high, *new in goldens()["sizes"].tolist():
        processor = Processor(min_pixels=low, max_pixels=high)
        if new == [0, 0]:
            refused += 1
            with pytest.raises(HippoError, match="aspect ratio"):
                processor.frame_size(height, width, frames)
        else:
            assert [*processor.frame_size(height, width, frames)] == new, (frames, height, width)
    assert refused > 20


def check_pixels(got: np.ndarray, expected: np.ndarray) -> None:
    """The same up to one level of 8-bit pixels in a few places."""
    assert got.dtype == np.float32 and got.shape == expected.shape
    difference = np.abs(got - expected)
    assert difference.max() <= 1.01 * ONE_LEVEL
    assert (difference > 2e-3).mean() < 1e-3


def check_patches() -> None:
    """Patches and grids of whole videos and of an image."""
    for name, shape in cases.QWEN3_VIDEOS.items():
        media = encode_media(Video(cases.frames(*shape), cases.QWEN3_FPS), PROCESSOR)
        assert (media.kind, [*media.grid]) == ("video", goldens()[f"video_{name}_grid"][0].tolist())
        check_pixels(media.pixels, goldens()[f"video_{name}"])
    media = encode_media(sources()["image"], PROCESSOR)
    assert (media.kind, [*media.grid]) == ("image", goldens()["image_grid"][0].tolist())
    assert media.timestamps == ()
    check_pixels(media.pixels, goldens()["image"])


def check_sampled_video() -> None:
    """Resized while it is read, and no second time: 5 frames count as 4 where bounds are looked
    at, so a second look could find another size."""
    media = encode_media(sources()["video"], PROCESSOR)
    assert [*media.grid] == goldens()["sampled_grid"][0].tolist()
    check_pixels(media.pixels, goldens()["sampled"].astype(np.float32))


def check_chats() -> None:
    """Token ids, timestamps and marks among them."""
    for number, (names, messages) in enumerate(cases.CHATS):
        media = [sources()[name] for name in names]
        row = encode_row(tokenizer(), special(), PROCESSOR, media, messages)
        assert row.ids.tolist() == goldens()[f"ids_{number}"].tolist()
        if "video" in names:
            text = tokenizer().decode(row.ids)
            for second in (0.3, 1.7, 2.7):
                assert f"<{second} seconds><|vision_start|><|video_pad|>" in text


def check_reading() -> None:
    """Resizing while reading gives what resizing afterwards gives."""
    for frames in (1, 2, 3, 5, 7):
        for size in ((20, 30), (64, 96), (200, 400), (1000, 30)):
            video = Video(cases.frames(1, frames, *size), 4.0)
            at_once = encode_media(video, PROCESSOR)
            processor = dataclasses.replace(PROCESSOR, fps=None)
            read = read_video(video, limits=processor, resize=True)
            on_the_way = encode_media(read, processor)
            assert at_once.grid == on_the_way.grid
            np.testing.assert_array_equal(at_once.pixels, on_the_way.pixels)
