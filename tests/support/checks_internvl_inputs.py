"""Checks of InternVL's processor against goldens of Hugging Face's, for tests and for mutants."""

import functools
import tempfile
from pathlib import Path

import numpy as np
import pytest
from inputs import golden_cases_internvl as cases
from inputs.golden_cases import frames

from hippo_jax.architectures.internvl.processor import InternVLProcessor
from hippo_jax.errors import HippoError
from hippo_jax.inputs.chat import encode_row, load_tokenizer
from hippo_jax.inputs.model_inputs import Media
from hippo_jax.inputs.video import Video

FOLDER = Path(cases.__file__).parent
PROCESSOR = InternVLProcessor(side=cases.SIDE)


@functools.cache
def golden(name: str) -> dict[str, np.ndarray]:
    """Arrays of ``internvl_{name}.npz``."""
    return dict(np.load(FOLDER / "goldens" / f"internvl_{name}.npz"))


def check_sampling() -> None:
    """Exactly the frames of the reference; where it refuses, all frames or a refusal."""
    rows, indices = (golden("sampling")[name] for name in ("cases", "indices"))
    at = compared = 0
    for total, source, fps, count, length in rows:
        expected = indices[at : at + int(length)]
        at += int(length)
        asked = {"fps": float(fps)} if fps else {"num_frames": int(count)}
        if len(expected):
            got = PROCESSOR.frame_indices(int(total), float(source), **asked)
            np.testing.assert_array_equal(got, expected, err_msg=f"{total} {source} {asked}")
            compared += 1
        elif not fps:
            with pytest.raises(HippoError, match="exceeds"):
                PROCESSOR.frame_indices(int(total), float(source), **asked)
        else:  # a rate above the video's own takes all frames, one too low a frame takes one
            got = PROCESSOR.frame_indices(int(total), float(source), **asked)
            assert len(got) == (total if fps > source else 1) and got[-1] < total
    assert compared >= 900


def _as_frames(media: Media) -> np.ndarray:
    """``[F, 3, side, side]`` out of patches."""
    side = media.grid[1]
    split = media.pixels.reshape(-1, side, side, 3, 14, 14).transpose(0, 3, 1, 4, 2, 5)
    return split.reshape(-1, 3, 14 * side, 14 * side)


def _compare(got: np.ndarray, expected: np.ndarray) -> None:
    """Two 8-bit levels apart at most, and nearly nowhere: another filter rounds otherwise."""
    assert got.shape == expected.shape
    level = 1 / 255 / np.array(cases.STD, np.float32)[:, None, None]
    apart = np.abs(got - expected) / level
    assert apart.max() < 2.01 and (apart > 0.01).mean() < 0.02


def check_pixels() -> None:
    """Frames of videos that are grown and shrunk, and an image as one tile."""
    for name, shape in cases.VIDEOS.items():
        raw = frames(*shape)
        media = PROCESSOR.encode_video(Video(raw, 4.0))
        assert media.kind == "video" and media.grid == (len(raw), 6, 6)
        assert media.seconds_per_grid == 0.25
        _compare(_as_frames(media), golden("chats")[f"video_{name}"])
    media = PROCESSOR.encode_image(frames(*cases.IMAGE)[0])
    assert media.kind == "image" and media.grid == (1, 6, 6)
    _compare(_as_frames(media), golden("chats")["image_and_video"][:1])


class Special:
    """The ids of a model's config."""

    def __init__(self) -> None:
        self.image_token_id = tokenizer().convert_tokens_to_ids("<IMG_CONTEXT>")
        self.video_token_id = self.image_token_id


@functools.cache
def tokenizer():
    """The little tokenizer with InternVL's tokens."""
    with tempfile.TemporaryDirectory() as directory:
        cases.save_tokenizer(FOLDER / "tokenizer", directory)
        return load_tokenizer(directory)


def row_of(kinds, prompt):
    """A prompt with its media."""
    video = Video(frames(*cases.VIDEOS["small"]), 4.0)
    media = [video if kind == "video" else frames(*cases.IMAGE)[0] for kind in kinds]
    return encode_row(tokenizer(), Special(), PROCESSOR, media, prompt)


def check_ids() -> None:
    """Frames with their numbers, images, system prompts, text without any: the very ids."""
    for number, (kinds, messages) in enumerate(cases.CHATS):
        np.testing.assert_array_equal(row_of(kinds, messages).ids, golden("chats")[f"ids_{number}"])
