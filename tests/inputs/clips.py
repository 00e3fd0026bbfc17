"""Small video files whose frames carry their number, written by ffmpeg for the tests."""

import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np

BITS = 8


def barcode(number: int, height: int, width: int) -> np.ndarray:
    """uint8 [height, width, 3]: bright bars for the bits of `number`, the top row all bright.

    The bars fill the lower two thirds; the upper third is red on the left, blue on the right, so
    that turned or mirrored frames show.
    """
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 3, : width // 2, 0] = 230
    image[: height // 3, width // 2 :, 2] = 230
    for bit in range(BITS):
        left, right = bit * width // BITS, (bit + 1) * width // BITS
        image[height // 3 :, left:right] = 230 if number >> bit & 1 else 20
    return image


def number(image: np.ndarray) -> int:
    """The number of a barcode frame."""
    height, width = image.shape[:2]
    low = image[height // 2 : height * 5 // 6].astype(float).mean(axis=(0, 2))
    centres = [(2 * bit + 1) * width // (2 * BITS) for bit in range(BITS)]
    return sum(1 << bit for bit, x in enumerate(centres) if low[x] > 125)


def numbers(frames: np.ndarray) -> list[int]:
    """The numbers of barcode frames."""
    return [number(frame) for frame in frames]


def upright(image: np.ndarray) -> bool:
    """Whether red is at the top left and blue at the top right."""
    height, width = image.shape[:2]
    left, right = image[height // 6, width // 4], image[height // 6, width * 3 // 4]
    return bool(left[0] > 120 > left[2] and right[2] > 120 > right[0])


def ffmpeg(*arguments: str | Path, stdin: bytes | None = None) -> None:
    """Runs ffmpeg, quietly; fails loudly."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", *map(str, arguments)]
    subprocess.run(command, input=stdin, check=True, timeout=120, stdout=subprocess.DEVNULL)


def write(
    path: Path, count: int, *options: str, fps: str = "10", size: tuple[int, int] = (48, 64)
) -> Path:
    """Writes `count` barcode frames of (height, width) `size` with ffmpeg's output `options`."""
    height, width = size
    raw = b"".join(barcode(k, height, width).tobytes() for k in range(count))
    codec = {".mp4": X264, ".mov": X264, ".mkv": X264, ".avi": X264, ".webm": VP9}.get(path.suffix)
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", fps]
    ffmpeg(*source, "-i", "pipe:0", *(codec or ()), *options, path, stdin=raw)
    return path


X264 = (
    "-c:v",
    "libx264",
    "-preset",
    "veryfast",
    "-pix_fmt",
    "yuv420p",
    "-g",
    "10",
    "-threads",
    "1",
)
VP9 = ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-pix_fmt", "yuv420p")
