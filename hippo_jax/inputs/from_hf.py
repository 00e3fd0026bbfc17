"""Videos and images out of the arrays of a Hugging Face processor: what families share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from hippo_jax.errors import HippoError
from hippo_jax.inputs.model_inputs import Media

Arrays = Mapping[str, np.ndarray]


def pixel_array(arrays: Arrays, key: str) -> np.ndarray:
    """``arrays[key]`` as float32."""
    given = arrays[key]
    if given.dtype.kind not in "fiu" and given.dtype.name != "bfloat16":
        raise HippoError(f"{key} must be numbers, got {given.dtype}")
    return given.astype(np.float32)


def deal_media(
    config: Any,
    rows: Sequence[np.ndarray],
    videos: Sequence[Media],
    images: Sequence[Media],
    placeholders: Callable[[Media], int],
) -> list[list[Media]]:
    """Media to the rows of unpadded ids whose placeholders they fill, in order.

    Args:
        placeholders: how many a medium has. Text may stand between them.

    Raises:
        HippoError: too many or too few media.
    """
    waiting = {config.video_token_id: list(videos), config.image_token_id: list(images)}
    dealt = []
    for ids in rows:
        visual = ids[np.isin(ids, list(waiting))]
        media: list[Media] = []
        at = 0
        while at < len(visual):
            queue = waiting[int(visual[at])]
            if not queue:
                raise HippoError("input_ids hold more placeholders than pixels were given for")
            media.append(queue.pop(0))
            at += placeholders(media[-1])
        dealt.append(media)
    left = [len(waiting[token]) for token in (config.video_token_id, config.image_token_id)]
    if any(left):
        raise HippoError(f"{left[0]} videos and {left[1]} images have no placeholders in input_ids")
    return dealt


def grid_media(
    arrays: Arrays, kind: str, pixels: str, grids: str, merge: int, seconds_key: str | None = None
) -> list[Media]:
    """Media of the Qwen families: flattened patches ``[rows, patch_dim]`` under ``pixels``, and
    grids (t, h, w) in patches under ``grids``."""
    if grids not in arrays and pixels not in arrays:
        return []
    if grids not in arrays or pixels not in arrays:
        raise HippoError(f"{pixels} and {grids} go together; the mapping has only one of them")
    table = arrays[grids]
    if table.ndim != 2 or table.shape[1] != 3 or table.dtype.kind not in "iu" or table.min() < 1:
        raise HippoError(f"{grids} must be positive whole numbers [n, 3] (t, h, w in patches)")
    if (table[:, 1:] % merge).any():
        raise HippoError(f"{grids} has heights or widths that {merge} does not divide")
    found = [(int(t), int(h), int(w)) for t, h, w in table]
    counts = [t * h * w for t, h, w in found]
    given = pixel_array(arrays, pixels)
    if given.ndim != 2 or sum(counts) != len(given):
        raise HippoError(f"{pixels} has shape {given.shape}, {grids} asks for {sum(counts)} rows")
    seconds = np.ones(len(found))
    if seconds_key is not None and seconds_key in arrays:
        seconds = arrays[seconds_key].astype(np.float64)
    if seconds.shape != (len(found),) or not ((seconds > 0) & (seconds < 1e6)).all():
        raise HippoError(f"{seconds_key} must be one positive number of seconds a video")
    parts = np.split(given, np.cumsum(counts)[:-1])
    return [
        Media(kind, part, grid, float(second))
        for part, grid, second in zip(parts, found, seconds, strict=True)
    ]
