"""Host-made index arrays of Qwen2.5-VL: attention windows and frames.

Everything that depends on the sizes of the videos is computed here, in numpy, and travels to the
device as data. Sizes are rounded up to buckets, so that another video of about the same size runs
through the same compiled program.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np

from hippo_jax.architectures.family import Grid
from hippo_jax.architectures.patch_grid import (
    frame_segments,
    group_segments,
    patch_coordinates,
    temporal_units,
)
from hippo_jax.architectures.qwen2_5_vl.config import VisionConfig
from hippo_jax.inputs.model_inputs import Media, VisionInputs
from hippo_jax.inputs.pixels import stack_pixels


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class VisionLayout:
    """How the patches of all videos of a batch lie (P patches, in 2 x 2 merge-block order).

    Attributes:
        coordinates: int32 ``[P, 2]``, row and column of each patch in its frame.
        windows: int32 ``[S, M]`` (one group), patches of each attention window, -1 where it is
            ragged.
        window_place: int32 ``[P]``, place of each patch in the flattened ``windows``.
        frames: int32 ``[S', M']`` a size of frame, patches of each temporal unit, -1 where it is
            smaller. Units are grouped by size, so that one large image does not widen all frames.
        frame_place: int32 ``[P]``, place of each patch in ``frames``, flattened and joined.
    """

    coordinates: np.ndarray
    windows: tuple[np.ndarray, ...]
    window_place: np.ndarray
    frames: tuple[np.ndarray, ...]
    frame_place: np.ndarray


def vision_inputs(
    vision: VisionConfig, media: Sequence[Media], tokens: int, draft: VisionConfig | None
) -> VisionInputs:
    """Pixels and index arrays of a batch with ``tokens`` lines of visual tokens. A draft with
    windows of another size gets index arrays of its own."""
    patches = tokens * vision.merge_size**2
    grids = [item.grid for item in media]
    other = None
    if draft is not None and draft.window_size != vision.window_size:
        other = build_vision_layout(draft, grids, patches)
    return VisionInputs(
        stack_pixels(media, patches, vision.patch_dim),
        build_vision_layout(vision, grids, patches),
        other,
    )


def build_vision_layout(vision: VisionConfig, grids: Sequence[Grid], patches: int) -> VisionLayout:
    """Index arrays for videos of ``grids``, padded to ``patches`` rows."""
    windows: list[np.ndarray] = []
    for start, (_, h, w) in temporal_units(grids):
        windows += [start + members for members in _windows(vision, h, w)]
    size = (vision.window_size // vision.patch_size // vision.merge_size * vision.merge_size) ** 2
    window_members, window_place = group_segments(windows, patches, [size] * len(windows))
    frame_members, frame_place = frame_segments(grids, patches)
    coordinates = patch_coordinates(grids, vision.merge_size, patches)
    return VisionLayout(coordinates, window_members, window_place, frame_members, frame_place)


def _windows(vision: VisionConfig, h: int, w: int) -> list[np.ndarray]:
    """Patch numbers of every window of one frame; windows at the far borders are smaller."""
    merge = vision.merge_size
    side = vision.window_size // merge // vision.patch_size
    tokens = np.arange((h // merge) * (w // merge)).reshape(h // merge, w // merge)
    inside = np.arange(merge * merge)
    return [
        (tokens[y : y + side, x : x + side].reshape(-1, 1) * merge * merge + inside).reshape(-1)
        for y in range(0, h // merge, side)
        for x in range(0, w // merge, side)
    ]
