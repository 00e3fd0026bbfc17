"""What a batch makes a vision tower hold while it runs, for plans of memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hippo_jax.inputs.buckets import bucket

# Index arrays that travel with a patch: its place in the frame and among its segments (int32).
INDEX_BYTES = 24


@dataclass(frozen=True)
class TowerLoad:
    """The widths of a tower's work.

    Attributes:
        pixels: rows of pixels, padding included.
        rows: rows that go through a layer together: patches, padding and class tokens.
        groups: (segments, rows of each) that attend at a time, in the widest layer.
        behind: numbers alive at once behind the last layer (merging, projection, pooling).
        index_bytes: bytes of index arrays.
        copied: numbers of the pixels that are copied to be padded to whole frames.
        chunked: frames go through in chunks, in a loop over the whole tower.
    """

    pixels: int
    rows: int
    groups: tuple[tuple[int, int], ...]
    behind: int
    index_bytes: int = 0
    copied: int = 0
    chunked: bool = False


def patches_in_frames(vision: Any, grids: Sequence[tuple[int, int, int]], tokens: int) -> TowerLoad:
    """Towers that read the patches of all videos as one list (Qwen-VL): every merge block is a
    token, and the widest layers attend inside whole frames.

    Args:
        grids: temporal units, height and width of every video, in patches.
        tokens: lines of the table of visual tokens.
    """
    rows = tokens * vision.merge_size**2
    frames = Counter(bucket(h * w, 64) for t, h, w in grids for _ in range(t))
    return TowerLoad(
        pixels=rows,
        rows=rows,
        groups=tuple((bucket(count, 4), size) for size, count in sorted(frames.items())),
        behind=3 * rows * vision.hidden_size,  # joined blocks; the hidden layer before and after
        index_bytes=INDEX_BYTES * rows,
    )
