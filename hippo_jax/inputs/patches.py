"""From 8-bit frames to the rows of pixels that the vision tower reads.

Values become (x - 255 * mean) / (255 * std) in float32. As x takes 256 values only, this is one
table look-up a value, with the very float32 numbers the formula gives.
"""

import numpy as np

from hippo_jax.errors import HippoError


def patchify(
    frames: np.ndarray,
    *,
    patch_size: int,
    temporal_patch_size: int,
    merge_size: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    rescale: float = 1 / 255,
) -> tuple[np.ndarray, tuple[int, int, int]]:
    """Cuts uint8 frames [F, H, W, C] into normalised patches.

    Returns float32 [t * h * w, C * temporal_patch_size * patch_size**2] and the grid (t, h, w)
    in patches. A row's columns run over channel, time, y, x. Rows run over time, then blocks of
    merge_size x merge_size patches in reading order, then the patches inside a block: the
    patches that become one visual token are neighbours. If F is no multiple of
    temporal_patch_size, the last frame is repeated. H and W must be multiples of
    patch_size * merge_size (HippoError otherwise).
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or len(frames) == 0:
        raise HippoError(
            f"patches need uint8 frames [F, H, W, C] with F > 0, got {frames.dtype} with shape "
            f"{frames.shape}"
        )
    count, height, width, channels = frames.shape
    unit = patch_size * merge_size
    if height % unit or width % unit:
        raise HippoError(
            f"frames of {height}x{width} pixels do not divide into units of {unit}; resize first"
        )
    grid = (-(-count // temporal_patch_size), height // patch_size, width // patch_size)
    table = _normalised_levels(channels, mean, std, rescale)
    patch = (channels, temporal_patch_size, patch_size, patch_size)
    blocks = (height // unit, width // unit, merge_size, merge_size)
    out = np.empty((grid[0], *blocks, *patch), np.float32)
    split = (blocks[0], merge_size, patch_size, blocks[1], merge_size, patch_size, channels)
    for time in range(grid[0]):
        for step in range(temporal_patch_size):
            frame = frames[min(time * temporal_patch_size + step, count - 1)]
            # From (y block, y patch, y, x block, x patch, x, C) to
            # (y block, x block, y patch, x patch, C, y, x).
            ordered = np.ascontiguousarray(frame.reshape(split).transpose(0, 3, 1, 4, 6, 2, 5))
            for channel in range(channels):
                out[time, ..., channel, step, :, :] = table[channel][ordered[..., channel, :, :]]
    return out.reshape(grid[0] * grid[1] * grid[2], -1), grid


def _normalised_levels(
    channels: int, mean: tuple[float, ...], std: tuple[float, ...], rescale: float
) -> np.ndarray:
    """float32 [C, 256]: the normalised value of each 8-bit level."""
    if len(mean) != channels or len(std) != channels:
        raise HippoError(
            f"frames have {channels} channels but the processor's mean and std have "
            f"{len(mean)} and {len(std)} values; give RGB frames"
        )
    # Both products are rounded to float32 first, as the reference does.
    scale = np.float32(1.0 / rescale)
    shift = np.asarray(mean, np.float32)[:, None] * scale
    spread = np.asarray(std, np.float32)[:, None] * scale
    return (np.arange(256, dtype=np.float32) - shift) / spread


def levels(
    values: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...], rescale: float
) -> np.ndarray:
    """Normalised values [..., C] back to 8-bit levels uint8 [..., C]."""
    centre, spread = np.asarray(mean, np.float32), np.asarray(std, np.float32)
    found = (values * spread + centre) / np.float32(rescale)
    return np.clip(np.rint(found), 0, 255).astype(np.uint8)
