"""Host-made index arrays of Qwen2.5-VL: attention windows, frames, and rotary positions.

Everything that depends on the sizes of the videos is computed here, in numpy, and travels to the
device as data. Sizes are rounded up to buckets, so that another video of about the same size runs
through the same compiled program.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np

from hippo_jax.architectures.config import VideoLMConfig
from hippo_jax.architectures.qwen2_5_vl.config import VisionConfig
from hippo_jax.errors import HippoError
from hippo_jax.inputs.buckets import bucket

Grid = tuple[int, int, int]
"""Temporal units, height and width of one video or image, in patches (not merged)."""


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


def merged_tokens(vision: VisionConfig, grid: Grid) -> int:
    """Visual tokens of one video after merging."""
    return grid[0] * (grid[1] // vision.merge_size) * (grid[2] // vision.merge_size)


def build_vision_layout(vision: VisionConfig, grids: Sequence[Grid], patches: int) -> VisionLayout:
    """Index arrays for videos of ``grids``, padded to ``patches`` rows."""
    coordinates = [_coordinates(grid, vision.merge_size) for grid in grids]
    windows: list[np.ndarray] = []
    frames: list[np.ndarray] = []
    start = 0
    for grid in grids:
        t, h, w = grid
        in_frame = np.arange(h * w)
        frame_windows = _windows(vision, h, w)
        for unit in range(t):
            offset = start + unit * h * w
            frames.append(offset + in_frame)
            windows += [offset + members for members in frame_windows]
        start += t * h * w
    size = (vision.window_size // vision.patch_size // vision.merge_size * vision.merge_size) ** 2
    window_members, window_place = _segments(windows, patches, [size] * len(windows))
    sizes = [bucket(len(frame), 64) for frame in frames]
    frame_members, frame_place = _segments(frames, patches, sizes)
    padded = np.zeros((patches, 2), np.int32)
    padded[:start] = np.concatenate(coordinates)
    return VisionLayout(padded, window_members, window_place, frame_members, frame_place)


def _coordinates(grid: Grid, merge: int) -> np.ndarray:
    """Row and column of each patch; the patches of a merge block follow each other."""
    t, h, w = grid
    rows, columns = np.meshgrid(np.arange(h), np.arange(w), indexing="ij")
    blocks = (h // merge, merge, w // merge, merge)
    ordered = [x.reshape(blocks).transpose(0, 2, 1, 3).reshape(-1) for x in (rows, columns)]
    return np.tile(np.stack(ordered, axis=-1), (t, 1)).astype(np.int32)


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


def _segments(
    segments: Sequence[np.ndarray], patches: int, sizes: Sequence[int]
) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """Segments grouped by padded size (ascending), and the place of every patch in the groups."""
    groups = []
    place = np.zeros(patches, np.int32)
    start = 0
    for size in sorted(set(sizes)):
        own = [segment for segment, s in zip(segments, sizes, strict=True) if s == size]
        members = np.full((bucket(len(own), 4), size), -1, np.int32)
        for index, group in enumerate(own):
            members[index, : len(group)] = group
            place[group] = start + index * size + np.arange(len(group))
        start += members.size
        groups.append(members)
    return tuple(groups), place


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
