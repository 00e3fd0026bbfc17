"""Qwen3-VL's preprocessing: sizes bounded over the whole clip, frames named by their times."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from hippo_jax.errors import HippoError
from hippo_jax.inputs.model_inputs import Media
from hippo_jax.inputs.preprocessor_files import read_settings
from hippo_jax.inputs.processor import ProcessorConfig
from hippo_jax.inputs.protocol import Marks, Spelling
from hippo_jax.inputs.resize import check_frame
from hippo_jax.inputs.sampling import check_rates, check_source
from hippo_jax.inputs.spelling import spell_places
from hippo_jax.inputs.video import Video


@dataclasses.dataclass(frozen=True)
class Processor(ProcessorConfig):
    """How frames and images become patches, and videos text.

    min_pixels, max_pixels: bounds of the area of all frames of a video together.
    frame_max_pixels: bound of each of them besides, or None.
    fps: sampling rate where the caller names none; None takes all frames.
    The other fields: as in `ProcessorConfig`.
    """

    patch_size: int = 16
    min_pixels: int = 128 * 32 * 32
    max_pixels: int = 768 * 32 * 32
    image_min_pixels: int = 256 * 256
    image_max_pixels: int = 4096 * 4096
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    fps: float | None = 2.0
    frame_max_pixels: int | None = None

    def with_max_pixels(self, max_pixels: int) -> Processor:
        """The same with an upper bound of each frame and image; lower bounds give way."""
        image = super().with_max_pixels(max_pixels)
        return dataclasses.replace(
            self,
            image_min_pixels=image.image_min_pixels,
            image_max_pixels=image.image_max_pixels,
            frame_max_pixels=image.max_pixels,
        )

    def frame_indices(
        self,
        total: int,
        source_fps: float,
        *,
        fps: float | None = None,
        num_frames: int | None = None,
    ) -> np.ndarray:
        """Frames at equal steps from the first to the last, both taken.

        With a rate total / source_fps * fps of them, between min_frames and max_frames. The count
        need not be a multiple of the frames of a patch: the last frame is repeated.
        """
        check_rates(fps, num_frames)
        check_source(total, source_fps)
        fps = self.fps if fps is None else fps
        if num_frames is not None:
            if num_frames > total:
                raise HippoError(
                    f"num_frames {num_frames} exceeds the {total} frames there are; give less, or "
                    "a longer span"
                )
            count = int(num_frames)
        elif fps is not None:
            # The order of these float64 operations decides the count near an integer.
            wanted = min(total / source_fps * fps, total)
            count = min(max(int(wanted), self.min_frames), self.max_frames, total)
        else:
            count = min(total, self.max_frames)
        return np.linspace(0, total - 1, count).round().astype(np.int64)

    def frame_size(self, height: int, width: int, frames: int) -> tuple[int, int]:
        """Multiples of `factor`; the area of all frames within the bounds where possible.

        Small frames grow to one token a side first. Frames are counted in whole patches where the
        bounds are looked at, and one by one where a new size is found, as in the reference.
        """
        check_frame(height, width)
        factor, group = self.factor, self.temporal_patch_size
        frames = max(frames, group)  # fewer are repeated
        small = min(height, width) < factor
        grow = max(factor / height, factor / width) if small else 1.0
        height, width = (int(height * grow), int(width * grow)) if small else (height, width)
        check_frame(height, width)
        most = self.max_pixels
        if self.frame_max_pixels is not None:
            most = min(most, self.frame_max_pixels * frames)
        least = min(self.min_pixels, most)
        # Python rounds halves to even, and the trained rule does the same.
        sides = [round(side / factor) * factor for side in (height, width)]
        counted = round(frames / group) * group
        if counted * math.prod(sides) > most:
            shrink = math.sqrt(frames * height * width / most)
            sides = [
                max(factor, math.floor(side / shrink / factor) * factor) for side in (height, width)
            ]
        elif counted * math.prod(sides) < least:
            wider = math.sqrt(least / (frames * height * width))
            sides = [math.ceil(side * wider / factor) * factor for side in (height, width)]
        return sides[0], sides[1]

    def encode_video(self, video: Video) -> Media:
        """A unit's timestamp lies in the middle between its first and its last frame."""
        times = unit_times(video.times, self.temporal_patch_size)
        return dataclasses.replace(super().encode_video(video), timestamps=times)

    def spell(self, text: str, media: Sequence[Media], marks: Marks) -> Spelling:
        """`<0.3 seconds>` before each temporal unit, which has start and end tokens of its own.

        They stand in the place of the template's placeholder with the start and end tokens around
        it, as in transformers 4 and thus in training; transformers 5 leaves those around all.
        """
        start, end = marks.start or "", marks.end or ""
        outer = f"{start}{marks.video}{end}"
        places = {"image": marks.image, "video": outer if outer in text else marks.video}

        def spelled(item: Media) -> tuple[str, list[int]]:
            t, h, w = item.grid
            tokens = h * w // self.merge_size**2
            if item.kind == "image":
                return marks.image, [tokens]
            if len(item.timestamps) != t:
                raise HippoError(
                    f"a video of {t} temporal units has {len(item.timestamps)} timestamps; encode "
                    "it with this model's processor"
                )
            return "".join(f"<{s:.1f} seconds>{outer}" for s in item.timestamps), [tokens] * t

        return spell_places(text, media, places, spelled)

    @classmethod
    def from_directory(cls, directory: str | Path) -> Self:
        """Reads a checkpoint directory; see `ProcessorConfig.from_directory`.

        `do_sample_frames` false, or an `fps` of null, takes all frames by default.
        """
        found = super().from_directory(directory)
        video: Mapping[str, Any] = read_settings(directory)[0]
        for name, instead in (("cap_pixels_per_frame", "max_pixels"), ("num_frames", "num_frames")):
            if video.get(name):
                raise HippoError(
                    f"{directory}: the preprocessor file sets {name}, which this library does not "
                    f"read; remove it and call prepare_inputs with {instead}"
                )
        if video.get("do_sample_frames") is False or video.get("fps", found.fps) is None:
            return dataclasses.replace(found, fps=None)
        return found


def unit_times(times: np.ndarray, group: int) -> tuple[float, ...]:
    """Of each `group` of frames the mean of its first and last time; the last frame is repeated."""
    times = np.concatenate([times, np.repeat(times[-1:], -len(times) % group)])
    middles = (times[::group] + times[group - 1 :: group]) / 2
    return tuple(middles.tolist())
