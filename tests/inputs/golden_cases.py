"""What the goldens of this folder were made from, shared by make_goldens.py and the tests."""

from typing import Any

import numpy as np


def frames(seed: int, count: int, height: int, width: int) -> np.ndarray:
    """uint8 [count, height, width, 3], the same for ever: slopes, an edge and a band of noise."""
    y, x, channel = np.ogrid[:height, :width, :3]
    out = np.empty((count, height, width, 3), np.uint8)
    size = height * width * 3
    for time in range(count):
        # Upper bits of a linear congruential sequence, one start a frame.
        state = np.arange(size, dtype=np.uint64) + np.uint64(size * (time + 100 * seed))
        noise = (state * np.uint64(6364136223846793005) + np.uint64(1442695040888963407)) >> 33
        noise = (noise * np.uint64(2862933555777941757) >> np.uint64(40)).reshape(height, width, 3)
        slope = (x * 5 + y * 3 + channel * 40 + time * 11 + seed * 17) // 2
        edge = 200 * ((x + y + time) // 7 % 2)
        part = (x * 3 // width + channel * 0) + 0 * y
        value = np.where(part == 0, slope, np.where(part == 1, edge, noise.astype(np.int64)))
        out[time] = value % 256
    return out


# name -> (frames(...) arguments, min_pixels, max_pixels): shrinks, grows, is left alone, both.
RESIZE: dict[str, tuple[tuple[int, int, int, int], int, int]] = {
    "shrink": ((1, 2, 240, 320), 56 * 56, 112 * 112),
    "grow": ((2, 1, 35, 51), 112 * 112, 200 * 200),
    "keep": ((3, 2, 56, 84), 28 * 28, 200 * 200),
    "wide": ((4, 1, 20, 300), 28 * 28, 200 * 200),
    "tall": ((5, 1, 700, 30), 28 * 28, 100 * 100),
    "odd": ((6, 1, 97, 131), 28 * 28, 200 * 200),
}

# name -> (frames(...) arguments, min_pixels, max_pixels) of whole videos; an odd number of frames
# repeats the last one.
VIDEOS: dict[str, tuple[tuple[int, int, int, int], int, int]] = {
    "even": ((7, 4, 50, 90), 28 * 28, 56 * 84),
    "odd": ((8, 3, 64, 48), 56 * 56, 60 * 60),
}
IMAGE = ((9, 1, 70, 100), 28 * 28, 56 * 84)

# Chats with their media: "video" and "image" stand for VIDEOS["odd"] at 4 fps and IMAGE.
CHATS: list[tuple[list[str], list[dict[str, Any]]]] = [
    (
        ["video"],
        [
            {
                "role": "user",
                "content": [{"type": "video"}, {"type": "text", "text": "What moves?"}],
            }
        ],
    ),
    (
        ["image", "video"],
        [
            {"role": "system", "content": "Answer in one word."},
            {
                "role": "user",
                "content": [
                    {"type": "image"},
                    {"type": "text", "text": "Is this  in it?\n\n"},
                    {"type": "video"},
                    {"type": "text", "text": "Grüße, 漢字 \U0001f680"},
                ],
            },
        ],
    ),
    ([], [{"role": "user", "content": "Only text."}]),
    (
        ["video"],
        [
            {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "One?"}]},
            {"role": "assistant", "content": "Yes."},
            {"role": "user", "content": "Sure?"},
        ],
    ),
]

# Qwen2-VL: a preprocessor file in the form of its time, with colours of its own and narrow bounds;
# a video at QWEN2_FPS frames a second and the ways to sample it.
QWEN2_FILE: dict[str, Any] = {
    "image_processor_type": "Qwen2VLImageProcessor",
    "processor_class": "Qwen2VLProcessor",
    "min_pixels": 28 * 28,
    "max_pixels": 28 * 84,
    "patch_size": 14,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.5, 0.45, 0.4],
    "image_std": [0.3, 0.25, 0.2],
}
QWEN2_FPS = 6.0
QWEN2_VIDEO = (13, 17, 60, 90)
QWEN2_SAMPLES: dict[str, dict[str, float]] = {
    "rate": {"fps": 2.0},
    "odd_rate": {"fps": 2.9},
    "count": {"num_frames": 6},
    "all": {},
}

# Qwen3-VL: bounds of a whole clip, and of an image; frames(...) arguments of whole videos. "long"
# lies at QWEN3_FPS frames a second, of which the default takes two.
QWEN3_BOUNDS = (4 * 64 * 64, 8 * 64 * 96)
QWEN3_IMAGE_BOUNDS = (32 * 32, 64 * 96)
QWEN3_FPS = 6.0
QWEN3_VIDEOS: dict[str, tuple[int, int, int, int]] = {
    "long": (10, 17, 60, 90),
    "odd": (11, 3, 96, 48),
    "small": (12, 4, 20, 30),
}
