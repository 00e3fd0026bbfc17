"""What the Qwen families share on the host: videos as merge blocks of patches.

Their vision configs have ``patch_size``, ``temporal_patch_size``, ``merge_size``, ``in_channels``
and ``patch_dim``; a medium's grid counts patches, ``merge_size`` squared of them are a token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hippo_jax.architectures.config import VideoLMConfig
from hippo_jax.architectures.family import Grid
from hippo_jax.errors import HippoError
from hippo_jax.inputs.from_hf import Arrays, deal_media, grid_media
from hippo_jax.inputs.model_inputs import Media
from hippo_jax.inputs.protocol import MediaTokens


def media_tokens(config: VideoLMConfig, media: Media) -> MediaTokens:
    """Every merge block is a scored token."""
    merge = config.vision.merge_size
    t, h, w = media.grid
    return MediaTokens((t, h // merge, w // merge))


def media_from_hf(
    config: VideoLMConfig, rows: Sequence[np.ndarray], arrays: Arrays
) -> list[list[Media]]:
    """Patches and grids of videos and of images, and seconds per temporal unit."""
    merge = config.vision.merge_size
    videos = grid_media(
        arrays, "video", "pixel_values_videos", "video_grid_thw", merge, "second_per_grid_ts"
    )
    images = grid_media(arrays, "image", "pixel_values", "image_grid_thw", merge)
    return deal_media(config, rows, videos, images, lambda item: media_tokens(config, item).count)


def shared(config: VideoLMConfig) -> Mapping[str, Any]:
    """Marks, positions and patches."""
    own = (
        "vision_start_token_id",
        "vision_end_token_id",
        "tokens_per_second",
        "text_position_rule",
    )
    vision = ("patch_size", "temporal_patch_size", "merge_size", "in_channels")
    return {
        **{name: getattr(config, name) for name in own},
        **{name: getattr(config.vision, name) for name in vision},
    }


def rope_positions(
    config: VideoLMConfig,
    token_ids: np.ndarray,
    media: Sequence[tuple[str, Grid, float]],
) -> tuple[np.ndarray, int]:
    """M-RoPE positions ``int32 [3, T]`` of one unpadded prompt, and the next token's position.

    Args:
        media: kind (``"video"`` or ``"image"``), grid and seconds per temporal unit of each video
            and image, in prompt order.

    Text advances all three axes together. A visual token stands at its block's start plus its
    (time, row, column); time counts ``floor(unit * tokens_per_second * seconds)``. Where text
    resumes is ``config.text_position_rule``.
    """
    merge = config.vision.merge_size
    length = len(token_ids)
    positions = np.zeros((3, length), np.int32)
    waiting = list(media)
    at, position = 0, 0
    while at < length:
        if token_ids[at] not in (config.video_token_id, config.image_token_id):
            positions[:, at] = position
            at, position = at + 1, position + 1
            continue
        if not waiting:
            raise HippoError("the prompt has more visual placeholders than videos and images")
        kind, (t, h, w), seconds = waiting.pop(0)
        rows, columns = h // merge, w // merge
        count = t * rows * columns
        run = token_ids[at : at + count]
        if len(run) < count or not np.all(run == token_ids[at]):
            raise HippoError(
                f"a {kind} of {count} visual tokens has only "
                f"{int(np.sum(run == token_ids[at]))} placeholders in the prompt"
            )
        per_unit = np.float32(config.tokens_per_second) * np.float32(seconds)
        if not 0 <= t * float(per_unit) < 2**30:
            raise HippoError(
                f"a {kind} of {t} temporal units, {seconds} seconds each, is beyond any position; "
                "check its frame rate"
            )
        time = np.arange(t, dtype=np.float32) * (per_unit if kind == "video" else np.float32(0))
        grid = np.meshgrid(
            time.astype(np.int32), np.arange(rows), np.arange(columns), indexing="ij"
        )
        positions[:, at : at + count] = position + np.stack(grid).reshape(3, -1)
        if config.text_position_rule == "largest":
            position = int(positions[:, at : at + count].max()) + 1
        else:
            position += max(rows, columns)
        at += count
    if waiting:
        raise HippoError("the prompt has fewer visual placeholders than videos and images")
    return positions, position
