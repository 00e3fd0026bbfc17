"""Clips to and from H.264 files, and a cheap imitation of what the codec does to pixels."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from hippo_jax.inputs.ffmpeg_process import no_fork_warning
from hippo_jax.training.domain import FPS

QUALITY = 8  # of imageio-ffmpeg, 0 to 10: nearly transparent, about 100 kB a clip


def write_clip(path: str | Path, frames: np.ndarray, fps: float = FPS) -> None:
    """Writes frames uint8 `[F, H, W, 3]` as an H.264 mp4 of exactly that size."""
    import imageio_ffmpeg

    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    height, width = frames.shape[1:3]
    writer = imageio_ffmpeg.write_frames(
        str(temporary), (width, height), fps=fps, quality=QUALITY, macro_block_size=1
    )
    with no_fork_warning():
        writer.send(None)
    for frame in frames:
        writer.send(np.ascontiguousarray(frame))
    writer.close()
    os.replace(temporary, path)


def read_clip(path: str | Path) -> np.ndarray:
    """All frames of a file, uint8 `[F, H, W, 3]`."""
    import imageio_ffmpeg

    reader = imageio_ffmpeg.read_frames(str(path))
    with no_fork_warning():
        width, height = next(reader)["size"]
    frames = [np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in reader]
    return np.stack(frames)


def through_codec(frames: np.ndarray, directory: str | Path) -> np.ndarray:
    """The frames after a round trip through a temporary file in `directory`."""
    path = Path(directory) / f"round_trip_{os.getpid()}.mp4"
    write_clip(path, frames)
    try:
        return read_clip(path)
    finally:
        path.unlink()


def imitate_codec(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Chroma at half resolution and coarse luma steps: H.264 4:2:0 without a codec."""
    count, height, width, _ = frames.shape
    step = int(rng.integers(1, 5))
    luma = _luma(frames)
    luma = luma // step * step + step // 2
    pairs = frames.reshape(count, height // 2, 2, width // 2, 2, 3)
    small = (
        pairs[:, :, 0, :, 0].astype(np.int16)
        + pairs[:, :, 0, :, 1]
        + pairs[:, :, 1, :, 0]
        + pairs[:, :, 1, :, 1]
    ) >> 2
    chroma = small - _luma(small)[..., None]
    full = luma.reshape(count, height // 2, 2, width // 2, 2, 1) + chroma[:, :, None, :, None]
    return np.clip(full, 0, 255).astype(np.uint8).reshape(frames.shape)


def _luma(rgb: np.ndarray) -> np.ndarray:
    red, green, blue = (rgb[..., i].astype(np.int32) for i in range(3))
    return ((77 * red + 150 * green + 29 * blue) >> 8).astype(np.int16)
