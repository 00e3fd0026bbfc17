"""Host-made index arrays of Qwen2-VL: places of patches, frames, and rotary positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np

from hippo_jax.architectures import merge_blocks
from hippo_jax.architectures.config import VideoLMConfig
from hippo_jax.architectures.family import Grid
from hippo_jax.architectures.patch_grid import frame_segments, patch_coordinates
from hippo_jax.architectures.qwen2_vl.config import VisionConfig
from hippo_jax.inputs.model_inputs import Media, VisionInputs
from hippo_jax.inputs.pixels import stack_pixels


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class VisionLayout:
    """How the patches of all videos of a batch lie (P patches, in 2 x 2 merge-block order).

    Attributes:
        coordinates: int32 ``[P, 2]``, row and column of each patch in its frame.
        frames, frame_place: which patches attend to each other, see ``frame_segments``.
    """

    coordinates: np.ndarray
    frames: tuple[np.ndarray, ...]
    frame_place: np.ndarray


def vision_inputs(
    vision: VisionConfig, media: Sequence[Media], tokens: int, draft: VisionConfig | None
) -> VisionInputs:
    """Pixels and index arrays of a batch with ``tokens`` lines of visual tokens, the same for
    towers of any depth and width."""
    patches, grids = tokens * vision.merge_size**2, [item.grid for item in media]
    coordinates = patch_coordinates(grids, vision.merge_size, patches)
    layout = VisionLayout(coordinates, *frame_segments(grids, patches))
    return VisionInputs(stack_pixels(media, patches, vision.patch_dim), layout)


def rope_positions(
    config: VideoLMConfig, token_ids: np.ndarray, media: Sequence[tuple[str, Grid, float]]
) -> tuple[np.ndarray, int]:
    """M-RoPE positions ``int32 [3, T]`` of one unpadded prompt, and the next token's position: a
    temporal unit is one step, however long it lasts."""
    steps = [(kind, grid, 1.0) for kind, grid, _ in media]
    return merge_blocks.rope_positions(config, token_ids, steps)
