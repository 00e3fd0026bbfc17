"""Host-made index arrays of Qwen3-VL: places of patches, frames, and rotary positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np

from hippo_jax.architectures import merge_blocks
from hippo_jax.architectures.config import VideoLMConfig
from hippo_jax.architectures.family import Grid
from hippo_jax.architectures.patch_grid import frame_segments, patch_coordinates
from hippo_jax.architectures.qwen3_vl.config import VisionConfig
from hippo_jax.inputs.model_inputs import Media, VisionInputs
from hippo_jax.inputs.pixels import stack_pixels


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class VisionLayout:
    """How the patches of all videos of a batch lie (P patches, in 2 x 2 merge-block order).

    Attributes:
        coordinates: int32 ``[P, 2]``, row and column of each patch in its frame.
        sizes: int32 ``[P, 2]``, height and width of that frame, in patches.
        frames, frame_place: which patches attend to each other, see ``frame_segments``.
    """

    coordinates: np.ndarray
    sizes: np.ndarray
    frames: tuple[np.ndarray, ...]
    frame_place: np.ndarray


def vision_inputs(
    vision: VisionConfig, media: Sequence[Media], tokens: int, draft: VisionConfig | None
) -> VisionInputs:
    """Pixels and index arrays of a batch with ``tokens`` lines of visual tokens. They are the same
    for towers of any depth and any table of positions."""
    patches = tokens * vision.merge_size**2
    layout = build_vision_layout(vision, [item.grid for item in media], patches)
    return VisionInputs(stack_pixels(media, patches, vision.patch_dim), layout)


def build_vision_layout(vision: VisionConfig, grids: Sequence[Grid], patches: int) -> VisionLayout:
    """Index arrays for videos of ``grids``, padded to ``patches`` rows."""
    sizes = np.ones((patches, 2), np.int32)
    given = np.concatenate([np.tile((h, w), (t * h * w, 1)) for t, h, w in grids])
    sizes[: len(given)] = given
    frames, place = frame_segments(grids, patches)
    coordinates = patch_coordinates(grids, vision.merge_size, patches)
    return VisionLayout(coordinates, sizes, frames, place)


def rope_positions(
    config: VideoLMConfig,
    token_ids: np.ndarray,
    media: Sequence[tuple[str, Grid, float]],
) -> tuple[np.ndarray, int]:
    """M-RoPE positions ``int32 [3, T]`` of one unpadded prompt, and the next token's position.

    Every temporal unit of a video is a group of its own, like an image; time is told by the text
    between them.
    """
    units = [(kind, (1, h, w), seconds) for kind, (t, h, w), seconds in media for _ in range(t)]
    return merge_blocks.rope_positions(config, token_ids, units)
