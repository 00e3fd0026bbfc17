"""Target sizes and bicubic resizing against Hugging Face's processors."""

from pathlib import Path

import numpy as np
import pytest
from inputs import golden_cases as cases

from hippo_jax.errors import HippoError
from hippo_jax.inputs.resize import resize_frame, resize_frames, smart_resize

GOLDENS = Path(__file__).parent / "goldens"


def test_sizes_are_those_of_the_reference():
    rows = np.load(GOLDENS / "sizes.npz")["rows"].tolist()
    refused = 0
    for height, width, low, high, *expected in rows:
        if expected == [0, 0]:
            refused += 1
            with pytest.raises(HippoError, match="aspect ratio"):
                smart_resize(height, width, factor=28, min_pixels=low, max_pixels=high)
        else:
            got = smart_resize(height, width, factor=28, min_pixels=low, max_pixels=high)
            assert list(got) == expected, (height, width, low, high)
    assert 0 < refused < len(rows) // 2


@pytest.mark.parametrize("size", [(0, 10), (10, 0)])
def test_an_empty_frame_is_refused(size):
    with pytest.raises(HippoError, match="empty"):
        smart_resize(*size, factor=28, min_pixels=784, max_pixels=7840)


@pytest.mark.parametrize("name", cases.RESIZE)
def test_resized_frames_are_those_of_the_reference(name):
    shape, low, high = cases.RESIZE[name]
    source = cases.frames(*shape)
    expected = np.load(GOLDENS / "pixels.npz")[f"resized_{name}"]
    height, width = smart_resize(*source.shape[1:3], factor=28, min_pixels=low, max_pixels=high)
    assert expected.shape == (len(source), height, width, 3)
    difference = np.abs(resize_frames(source, height, width).astype(int) - expected)
    # Equal but for rounding where a sum of float32 products lands on the border of two levels.
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3


def test_any_size_keeps_a_flat_image_flat():
    flat = np.full((61, 47, 3), 137, np.uint8)
    for height, width in [(28, 28), (61, 47), (500, 28), (61, 300), (1, 1)]:
        assert (resize_frame(flat, height, width) == 137).all()


def test_rows_and_columns_are_treated_alike():
    # Middle values, as clipping between the passes makes their order matter at sharp edges.
    image = cases.frames(11, 1, 90, 53)[0] // 4 + 96
    turned = resize_frame(image.transpose(1, 0, 2).copy(), 84, 140).transpose(1, 0, 2)
    difference = np.abs(turned.astype(int) - resize_frame(image, 140, 84))
    assert difference.max() <= 2


def test_only_8_bit_frames_are_resized():
    with pytest.raises(HippoError, match="uint8"):
        resize_frame(np.zeros((28, 28, 3), np.float32), 56, 56)
