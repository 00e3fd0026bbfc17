"""Patches and normalisation against Hugging Face's processors."""

from pathlib import Path

import numpy as np
import pytest
from inputs import golden_cases as cases

from hippo_jax.errors import HippoError
from hippo_jax.inputs.media import encode_media
from hippo_jax.inputs.patches import patchify
from hippo_jax.inputs.processor import ProcessorConfig
from hippo_jax.inputs.video import Video

GOLDENS = Path(__file__).parent / "goldens"
SETTINGS = {"patch_size": 2, "temporal_patch_size": 2, "merge_size": 2}
# One level of 255, in the normalised values of the channel with the smallest deviation.
ONE_LEVEL = 1 / 255 / 0.2613


def check_pixels(got, expected):
    assert got.dtype == np.float32 and got.shape == expected.shape
    difference = np.abs(got - expected)
    assert difference.max() <= 1.01 * ONE_LEVEL
    assert (difference > 1e-6).mean() < 1e-3


@pytest.mark.parametrize("name", cases.VIDEOS)
def test_video_patches_are_those_of_the_reference(name):
    shape, low, high = cases.VIDEOS[name]
    goldens = np.load(GOLDENS / "pixels.npz")
    processor = ProcessorConfig(min_pixels=low, max_pixels=high)
    media = encode_media(Video(cases.frames(*shape), 4.0), processor)
    assert (media.kind, list(media.grid)) == ("video", goldens[f"video_{name}_grid"][0].tolist())
    assert media.seconds_per_grid == 0.5
    check_pixels(media.pixels, goldens[f"video_{name}"])


def test_image_patches_are_those_of_the_reference():
    shape, low, high = cases.IMAGE
    goldens = np.load(GOLDENS / "pixels.npz")
    # The video's bounds are far away: an image must not use them.
    processor = ProcessorConfig(image_min_pixels=low, image_max_pixels=high)
    media = encode_media(cases.frames(*shape)[0], processor)
    assert (media.kind, list(media.grid)) == ("image", goldens["image_grid"][0].tolist())
    check_pixels(media.pixels, goldens["image"])


def test_order_of_rows_and_columns():
    # Values name their place: 3 frames of 4 x 8 pixels, patches of 2 x 2, blocks of 2 x 2 patches.
    frames = np.arange(3 * 4 * 8 * 3, dtype=np.int64).reshape(3, 4, 8, 3) % 251
    frames = frames.astype(np.uint8)
    pixels, grid = patchify(frames, **SETTINGS, mean=(0.0,) * 3, std=(1.0,) * 3)
    assert grid == (2, 2, 4) and pixels.shape == (16, 3 * 2 * 2 * 2)
    rows = iter(np.rint(pixels * 255).astype(int))
    for time in range(2):
        for block in range(2):
            for y in range(2):
                for x in range(2):
                    row = next(rows)
                    cut = [
                        frames[min(2 * time + step, 2), 2 * y : 2 * y + 2, 4 * block + 2 * x :]
                        for step in range(2)
                    ]
                    expected = [
                        cut[step][dy, dx, channel]
                        for channel in range(3)
                        for step in range(2)
                        for dy in range(2)
                        for dx in range(2)
                    ]
                    assert row.tolist() == expected


def test_refusals():
    ones = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
    with pytest.raises(HippoError, match="do not divide"):
        patchify(np.zeros((2, 4, 6, 3), np.uint8), **SETTINGS, **ones)
    with pytest.raises(HippoError, match="4 channels"):
        patchify(np.zeros((2, 4, 4, 4), np.uint8), **SETTINGS, **ones)
    with pytest.raises(HippoError, match="F > 0"):
        patchify(np.zeros((0, 4, 4, 3), np.uint8), **SETTINGS, **ones)
    with pytest.raises(HippoError, match="aspect ratio"):
        encode_media(np.zeros((5, 1010, 3), np.uint8), ProcessorConfig())
    with pytest.raises(HippoError, match="float32"):
        encode_media(np.zeros((50, 50, 3), np.float32), ProcessorConfig())
