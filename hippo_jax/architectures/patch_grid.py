"""Host-made index arrays of towers that read videos as lists of patches (Qwen-VL).

The patches of all videos and images of a batch stand in one list, padded to a bucket. Which of them
attend to each other, and where each stands in its frame, is computed here in numpy and travels to
the device as data: another video of about the same size runs through the same compiled program.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from hippo_jax.architectures.family import Grid
from hippo_jax.inputs.buckets import bucket


def patch_coordinates(grids: Sequence[Grid], merge: int, patches: int) -> np.ndarray:
    """Row and column of every patch in its frame, int32 ``[P, 2]``; zeros behind the last."""
    padded = np.zeros((patches, 2), np.int32)
    found = np.concatenate([_coordinates(grid, merge) for grid in grids])
    padded[: len(found)] = found
    return padded


def _coordinates(grid: Grid, merge: int) -> np.ndarray:
    """Row and column of each patch; the patches of a merge block follow each other."""
    t, h, w = grid
    rows, columns = np.meshgrid(np.arange(h), np.arange(w), indexing="ij")
    blocks = (h // merge, merge, w // merge, merge)
    ordered = [x.reshape(blocks).transpose(0, 2, 1, 3).reshape(-1) for x in (rows, columns)]
    return np.tile(np.stack(ordered, axis=-1), (t, 1)).astype(np.int32)


def temporal_units(grids: Sequence[Grid]) -> Iterator[tuple[int, Grid]]:
    """The first patch of every temporal unit, and the grid it belongs to."""
    start = 0
    for grid in grids:
        for _ in range(grid[0]):
            yield start, grid
            start += grid[1] * grid[2]


def frame_segments(
    grids: Sequence[Grid], patches: int
) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """Segments in which whole frames attend, grouped by size: one large image does not widen all
    frames. For ``segment_attention``."""
    frames = [start + np.arange(h * w) for start, (_, h, w) in temporal_units(grids)]
    return group_segments(frames, patches, [bucket(len(frame), 64) for frame in frames])


def group_segments(
    segments: Sequence[np.ndarray], patches: int, sizes: Sequence[int]
) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """Segments grouped by padded size (ascending), and the place of every patch in the groups.

    Returns int32 ``[S, M]`` a size (-1 where a segment is shorter, or there is none) and int32
    ``[P]``, where each patch stands in the groups, flattened and joined.
    """
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
