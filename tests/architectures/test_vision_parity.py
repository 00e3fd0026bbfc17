"""The Qwen2.5-VL vision tower, module by module, against transformers."""

import numpy as np
import pytest
from support import checks_vision, tiny

from hippo_jax.architectures.qwen2_5_vl.layout import build_vision_layout


@pytest.mark.parametrize(
    "check",
    [
        checks_vision.check_patch_embedding,
        checks_vision.check_vision_blocks,
        checks_vision.check_visual_tokens,
        checks_vision.check_merger,
        checks_vision.check_norms,
    ],
)
def test_parity(check):
    check()


@pytest.mark.parametrize("grid", [(1, 2, 2), (3, 10, 6), (2, 8, 8), (1, 4, 14)])
def test_segments_hold_every_patch_once(grid):
    """Windows and frames are partitions, and places point back at their patch."""
    vision = tiny.model().config.vision
    count = int(np.prod(grid))
    layout = build_vision_layout(vision, [grid, (1, 6, 4)], count + 24 + 8)
    for members, place in (
        (layout.windows, layout.window_place),
        (layout.frames, layout.frame_place),
    ):
        flat = np.concatenate([group.reshape(-1) for group in members])
        np.testing.assert_array_equal(np.sort(flat[flat >= 0]), np.arange(count + 24))
        np.testing.assert_array_equal(flat[place[: count + 24]], np.arange(count + 24))
    units = np.concatenate([np.arange(count) // (grid[1] * grid[2]), np.full(24, grid[0])])
    for segment in [s for group in (*layout.windows, *layout.frames) for s in group]:
        assert len(set(units[segment[segment >= 0]])) <= 1  # never across temporal units


def test_one_large_image_does_not_widen_all_frames():
    """Memory of a long small video and a large image is about that of the two by themselves."""
    vision = tiny.model().config.vision
    video, image = (64, 8, 8), (1, 64, 64)
    sizes = {
        name: sum(group.size for group in build_vision_layout(vision, grids, 8192).frames)
        for name, grids in (("video", [video]), ("image", [image]), ("both", [video, image]))
    }
    assert sizes["both"] <= sizes["video"] + sizes["image"]
