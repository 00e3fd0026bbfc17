"""Which frames of a video are taken: the rule of Qwen2-VL and Qwen2.5-VL."""

import math
from typing import TYPE_CHECKING

import numpy as np

from hippo_jax.errors import HippoError

if TYPE_CHECKING:
    from hippo_jax.inputs.processor import ProcessorConfig


def check_rates(fps: float | None, num_frames: int | None) -> None:
    """Refuses (HippoError) a sampling rate together with a count, and values that mean nothing."""
    if fps is not None and num_frames is not None:
        raise HippoError("fps and num_frames cannot both be given; give one of them")
    if fps is not None and not (is_number(fps) and fps > 0 and math.isfinite(fps)):
        raise HippoError(f"fps is {fps!r}; give a positive number of frames a second")
    if num_frames is None:
        return
    if not (is_number(num_frames) and float(num_frames).is_integer() and num_frames >= 1):
        raise HippoError(f"num_frames is {num_frames!r}; give a positive integer")


def check_source(total: int, source_fps: float) -> None:
    """Refuses (HippoError) a video without frames or rate."""
    if total < 1:
        raise HippoError("the video has no frames; give one that has")
    if not (source_fps > 0 and math.isfinite(source_fps)):
        raise HippoError(f"the frame rate of the video is {source_fps}; it must be positive")


def frame_indices(
    total: int,
    source_fps: float,
    *,
    fps: float | None = None,
    num_frames: int | None = None,
    limits: "ProcessorConfig",
) -> np.ndarray:
    """Indices (int64, ascending) of the frames to take out of `total` at `source_fps`.

    With `fps`: total / source_fps * fps frames, between limits.min_frames and
    limits.max_frames, not more than there are, rounded down to a multiple of
    limits.temporal_patch_size. With `num_frames`: so many, rounded to such a multiple (halves to
    the even multiple). With neither: at limits.fps if set, else all frames, thinned out evenly
    to limits.max_frames if there are more. A video shorter than one temporal patch is taken whole.
    HippoError: nothing to take, or num_frames above `total`.
    """
    check_rates(fps, num_frames)
    check_source(total, source_fps)
    group = limits.temporal_patch_size
    if fps is None and num_frames is None:
        fps = limits.fps
        if fps is None:
            if total <= limits.max_frames:
                return np.arange(total)
            return spread(total, max(limits.max_frames // group * group, 1))
    if num_frames is not None:
        count = round(num_frames / group) * group
        if count < 1:
            raise HippoError(
                f"num_frames {num_frames} is less than one group of {group} frames; "
                f"give at least {group}"
            )
        if count > total:
            rounded = "" if count == num_frames else f" (rounded to {count}, groups of {group})"
            raise HippoError(
                f"num_frames {num_frames}{rounded} exceeds the {total} frames there are; "
                "give less, or a longer span"
            )
        return spread(total, count)
    assert fps is not None
    # The order of these float64 operations decides the count when the product is near an integer.
    most = min(limits.max_frames, total) // group * group
    wanted = min(max(total / source_fps * fps, limits.min_frames), most, total)
    count = math.floor(wanted / group) * group
    return spread(total, count) if count else np.arange(total)


def spread(total: int, count: int, start: float = 0.0) -> np.ndarray:
    """`count` indices at equal steps, as torch.arange(start, total, step).int() gives them.

    Checkpoints were trained through that rule, so its rounding is kept: values are float32 and
    truncated; full blocks of 16 are made 8 at a time, from a start rounded to float32. Where the
    step makes the rule yield one index more, that one lies behind the last frame (the reference
    fails with an index error) and is left out here.
    """
    step = total / count
    place = np.arange(count)
    values = (start + place * step).astype(np.float32)
    # The length counts the index that is left out: it may complete a block.
    length = math.ceil((total - start) / step)
    in_blocks = place < length // 16 * 16
    first = (start + place // 8 * 8 * step).astype(np.float32).astype(np.float64)
    in_block = (first + place % 8 * step).astype(np.float32)
    return np.where(in_blocks, in_block, values).astype(np.int64)


def is_number(value: object) -> bool:
    """Whether a value is an int or a float (a bool is not)."""
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
