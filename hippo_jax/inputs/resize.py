"""Target size of a frame and antialiased bicubic resizing, in numpy.

The size rule is the one Qwen2-VL and Qwen2.5-VL were trained with. The filter is the one image
libraries use for `bicubic, antialias`: Keys' cubic with a = -0.5, widened by the scale when
shrinking, one axis after the other (columns first), on 8-bit values with rounding after each
axis. Weights are rounded to 16-bit integers like torch's 8-bit kernel does, so results agree
with Hugging Face's processors (see tests/inputs/test_resize.py).
"""

import dataclasses
import functools
import math

import numpy as np

from hippo_jax.errors import HippoError

MAX_ASPECT_RATIO = 200
_CUBIC_A = -0.5
# Output pixels of one small matrix product. Larger blocks multiply more zeros.
_PIXELS_PER_BLOCK = 16
# Multiplications of one product. Below 2**18 the usual BLAS stays on one thread: with products
# this small its threads cost more than they bring, seconds instead of milliseconds on a busy
# machine.
_PRODUCT_SIZE = 2**18


def check_frame(height: int, width: int) -> None:
    """Refuses (HippoError) an empty frame, and a side ratio above 200."""
    if height < 1 or width < 1:
        raise HippoError(f"frame of {height}x{width} pixels is empty; give frames with pixels")
    ratio = max(height, width) / min(height, width)
    if ratio > MAX_ASPECT_RATIO:
        raise HippoError(
            f"frame of {height}x{width} pixels (height x width) has an aspect ratio of "
            f"{ratio:.0f}, above {MAX_ASPECT_RATIO}; crop it"
        )


def smart_resize(
    height: int, width: int, *, factor: int, min_pixels: int, max_pixels: int
) -> tuple[int, int]:
    """Size (height, width) a frame is resized to: multiples of `factor`, aspect nearly kept.

    The area lies within [min_pixels, max_pixels] where that is possible with such multiples.
    Raises HippoError for an empty frame and for a side ratio above 200 (which Hugging Face's
    processors refuse too).
    """
    check_frame(height, width)
    # Python rounds halves to even, and the trained rule does the same.
    new_height = round(height / factor) * factor
    new_width = round(width / factor) * factor
    if new_height * new_width > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        new_height = max(factor, math.floor(height / shrink / factor) * factor)
        new_width = max(factor, math.floor(width / shrink / factor) * factor)
    elif new_height * new_width < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        new_height = math.ceil(height * grow / factor) * factor
        new_width = math.ceil(width * grow / factor) * factor
    return new_height, new_width


def resize_frames(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes uint8 frames [F, H, W, C] to uint8 [F, height, width, C]."""
    out = np.empty((len(frames), height, width, frames.shape[3]), np.uint8)
    for frame, target in zip(frames, out, strict=True):
        target[...] = resize_frame(frame, height, width)
    return out


def resize_frame(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes one uint8 frame [H, W, C] to uint8 [height, width, C]."""
    if frame.dtype != np.uint8 or frame.ndim != 3:
        raise HippoError(
            f"resize needs uint8 [H, W, C], got {frame.dtype} with shape {frame.shape}"
        )
    old_height, old_width, channels = frame.shape
    if (old_height, old_width) == (height, width):
        return frame
    values = frame.reshape(old_height, old_width * channels).astype(np.float32)
    if old_width != width:
        result = np.empty((old_height, width * channels), np.float32)
        for block in _column_blocks(old_width, width, channels):
            source = values[:, block.low : block.high]
            _multiply_strips(source, block.weights, result[:, block.start : block.stop])
        values = _round_to_levels(result)
    if old_height != height:
        result = np.empty((height, width * channels), np.float32)
        for block in _row_blocks(old_height, height):
            source = values[block.low : block.high]
            # The product of the transposed views is the transposed product.
            _multiply_strips(source.T, block.weights, result[block.start : block.stop].T)
        values = _round_to_levels(result)
    return values.astype(np.uint8).reshape(height, width, channels)


def _multiply_strips(source: np.ndarray, weights: np.ndarray, out: np.ndarray) -> None:
    """out = source @ weights for [n, k] @ [k, m], in equal strips of few rows."""
    rows = len(source)
    strips = -(-rows * weights.size // _PRODUCT_SIZE)
    length = -(-rows // strips)
    whole = rows // length * length
    np.matmul(_strips(source, length), weights, out=_strips(out, length))
    if whole < rows:
        np.matmul(source[whole:], weights, out=out[whole:])


def _strips(array: np.ndarray, length: int) -> np.ndarray:
    """View [n // length, length, m] of an array [n, m]."""
    return np.lib.stride_tricks.as_strided(
        array,
        (len(array) // length, length, array.shape[1]),
        (array.strides[0] * length, *array.strides),
    )


def _round_to_levels(values: np.ndarray) -> np.ndarray:
    """Rounds halves up and clips to 0..255, in place; values stay float32."""
    values += np.float32(0.5)
    np.floor(values, out=values)
    return np.clip(values, 0, 255, out=values)


def _cubic(x: np.ndarray) -> np.ndarray:
    x = np.abs(x)
    near = ((_CUBIC_A + 2) * x - (_CUBIC_A + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * _CUBIC_A
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _taps(old: int, new: int) -> tuple[np.ndarray, np.ndarray]:
    """First source index [new] and weights float64 [new, taps] of each output pixel of an axis."""
    scale = old / new
    filter_scale = max(scale, 1.0)
    support = 2 * filter_scale
    centre = (np.arange(new) + 0.5) * scale
    first = np.maximum((centre - support + 0.5).astype(np.int64), 0)
    last = np.minimum((centre + support + 0.5).astype(np.int64), old)
    offsets = np.arange(int((last - first).max()))
    source = first[:, None] + offsets
    weights = _cubic((source - centre[:, None] + 0.5) / filter_scale)
    weights[source >= last[:, None]] = 0.0
    weights /= weights.sum(axis=1, keepdims=True)
    # Fixed point with as many bits as keep the largest weight below 2**15.
    bits = 0
    while bits < 22 and int(0.5 + weights.max() * 2 ** (bits + 1)) < 2**15:
        bits += 1
    rounded = np.trunc(weights * 2**bits + np.where(weights < 0, -0.5, 0.5))
    return first, rounded / 2**bits


@dataclasses.dataclass(frozen=True)
class _Block:
    """Outputs start..stop of an axis = inputs low..high times weights [high-low, stop-start]."""

    start: int
    stop: int
    low: int
    high: int
    weights: np.ndarray


def _blocks(old: int, new: int, channels: int) -> list[_Block]:
    """Cuts an axis of interleaved channels into small dense matrices."""
    first, weights = _taps(old, new)
    blocks = []
    for start in range(0, new, _PIXELS_PER_BLOCK):
        stop = min(start + _PIXELS_PER_BLOCK, new)
        low = int(first[start])
        high = min(int(first[start:stop].max()) + weights.shape[1], old)
        matrix = np.zeros((high - low, stop - start), np.float32)
        for pixel in range(start, stop):
            begin = int(first[pixel]) - low
            count = min(weights.shape[1], high - low - begin)
            matrix[begin : begin + count, pixel - start] = weights[pixel, :count]
        # Each weight becomes weight * identity(channels).
        matrix = np.kron(matrix, np.eye(channels, dtype=np.float32))
        blocks.append(
            _Block(start * channels, stop * channels, low * channels, high * channels, matrix)
        )
    return blocks


@functools.lru_cache(maxsize=32)
def _column_blocks(old: int, new: int, channels: int) -> list[_Block]:
    return _blocks(old, new, channels)


@functools.lru_cache(maxsize=32)
def _row_blocks(old: int, new: int) -> list[_Block]:
    return _blocks(old, new, 1)
