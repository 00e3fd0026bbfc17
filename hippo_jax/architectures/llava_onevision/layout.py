"""Frames, visual tokens and the newline of LLaVA-OneVision, on the host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np

from hippo_jax.architectures.config import VideoLMConfig
from hippo_jax.architectures.family import Grid
from hippo_jax.architectures.llava_onevision.config import VisionConfig
from hippo_jax.architectures.llava_onevision.processor import refuse_images
from hippo_jax.architectures.tower_load import TowerLoad
from hippo_jax.errors import HippoError
from hippo_jax.inputs.from_hf import Arrays, deal_media, pixel_array
from hippo_jax.inputs.model_inputs import Media, VisionInputs
from hippo_jax.inputs.pixels import stack_pixels
from hippo_jax.inputs.protocol import MediaTokens


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class VisionLayout:
    """``lines``: int32 ``[N]``, for each line of the table of visual tokens the tower's own row.
    Frames are whole, so the tower makes a few rows more than the table has lines."""

    lines: np.ndarray


def media_tokens(config: VideoLMConfig, media: Media) -> MediaTokens:
    """The pooled tokens of each frame, and behind the last one the newline."""
    side = config.vision.pooled_side
    frames = media.grid[0]
    extra = np.full(frames * side**2 + 1, -1)
    extra[-1] = 0
    return MediaTokens((frames, side, side), extra)


def vision_inputs(
    vision: VisionConfig, media: Sequence[Media], tokens: int, draft: VisionConfig | None
) -> VisionInputs:
    """Patches of all frames, padded to whole frames for ``tokens`` lines. A draft reads the same
    frames in the same way, whatever the width of its tower."""
    frames = -(-tokens // vision.pooled_side**2)
    pixels = stack_pixels(media, frames * vision.side**2, vision.patch_dim)
    return VisionInputs(pixels, VisionLayout(np.arange(tokens, dtype=np.int32)))


def tower_load(vision: VisionConfig, grids: Sequence[Grid], tokens: int) -> TowerLoad:
    """Whole frames, projected before they are pooled."""
    frames = -(-tokens // vision.pooled_side**2)
    rows = frames * vision.side**2
    return TowerLoad(
        pixels=rows,
        rows=rows,
        groups=((frames, vision.side**2),),
        behind=3 * rows * vision.out_hidden_size,
        index_bytes=4 * tokens,
    )


def media_from_hf(
    config: VideoLMConfig, rows: Sequence[np.ndarray], arrays: Arrays
) -> list[list[Media]]:
    """``pixel_values_videos`` ``[videos, frames, 3, side, side]``."""
    if "pixel_values" in arrays:
        refuse_images()
    vision, videos = config.vision, []
    if "pixel_values_videos" in arrays:
        given = pixel_array(arrays, "pixel_values_videos")
        square = (vision.in_channels, vision.image_size, vision.image_size)
        if given.ndim != 5 or given.shape[2:] != square or 0 in given.shape:
            raise HippoError(
                f"pixel_values_videos has shape {given.shape}, the model takes "
                f"[videos, frames, {', '.join(map(str, square))}]"
            )
        videos = [_media(vision, frames) for frames in given]
    return deal_media(config, rows, videos, [], lambda item: media_tokens(config, item).count)


def _media(vision: VisionConfig, frames: np.ndarray) -> Media:
    """Preprocessed frames ``[F, 3, side, side]`` cut into patches in reading order."""
    side, patch = vision.side, vision.patch_size
    seen = frames[:, :, : side * patch, : side * patch]
    split = seen.reshape(len(frames), -1, side, patch, side, patch)
    pixels = split.transpose(0, 2, 4, 1, 3, 5).reshape(-1, vision.patch_dim)
    return Media("video", pixels, (len(frames), side, side))
