"""InternVL's processor: every frame a square of one size, spelled as an image with its number."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hippo_jax.errors import HippoError
from hippo_jax.inputs.model_inputs import Media
from hippo_jax.inputs.preprocessor_files import read_settings
from hippo_jax.inputs.protocol import Marks, Spelling
from hippo_jax.inputs.sampling import spread
from hippo_jax.inputs.spelling import spell_places
from hippo_jax.inputs.square_frames import SquareFrames

# Texts of the tokens around a frame, and what chat templates write for a video. The templates'
# place for an image is the placeholder token itself.
_START, _END, _VIDEO = "<img>", "</img>", "<video>"


@dataclasses.dataclass(frozen=True)
class InternVLProcessor(SquareFrames):
    """How frames and images become patches.

    A still image is one square like a frame; it is not cut into tiles (``crop_to_patches`` of
    transformers). ``ModelInputs.from_hf`` takes tiles too.

    merge_size: patches (per side) of a visual token; like the patch size, no file names it.
    """

    side: int = 448
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    max_frames: int = 64
    merge_size: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        token = self.patch_size * self.merge_size
        if self.side % token:
            raise HippoError(
                f"preprocessor: frames of {self.side} pixels do not divide into visual tokens of "
                f"{token} pixels; mend `size`"
            )

    @property
    def reserved(self) -> tuple[str, ...]:
        """What marks frames and videos."""
        return (_START, _END, _VIDEO)

    def spread(self, total: int, count: int) -> np.ndarray:
        """The middles of equal parts of the video."""
        return spread(total, count, start=total / count / 2)

    def spell(self, text: str, media: Sequence[Media], marks: Marks) -> Spelling:
        """``Frame1: <img>...</img>`` a line for each frame of a video, ``<img>...</img>`` for an
        image."""
        image = f"{_START}{marks.image}{_END}"
        tokens = (self.patches // self.merge_size) ** 2

        def spelled(item: Media) -> tuple[str, list[int]]:
            frames = item.grid[0]
            lines = [image]
            if item.kind == "video":
                lines = [f"Frame{number}: {image}" for number in range(1, frames + 1)]
            return "\n".join(lines), [tokens] * frames

        return spell_places(text, media, {"image": marks.image, "video": _VIDEO}, spelled)

    def check_config(self, config: Any) -> None:
        """Frames, patches and visual tokens are those of the model."""
        super().check_config(config)
        if self.merge_size != config.vision.merge_size:
            raise HippoError(
                f"config.json joins {config.vision.merge_size} x {config.vision.merge_size} "
                f"patches into a visual token; only {self.merge_size} x {self.merge_size} is "
                "supported"
            )

    @classmethod
    def from_directory(cls, directory: str | Path) -> InternVLProcessor:
        """Reads a checkpoint directory, whose files must name the size of frames and the mean and
        deviation of colours: the defaults of transformers' class are not those of the models."""
        video, _ = read_settings(directory)
        absent = [name for name in ("size", "image_mean", "image_std") if video.get(name) is None]
        if absent:
            raise HippoError(
                f"{directory}: the preprocessor file has no {', '.join(absent)}; copy it from the "
                "checkpoint's repository"
            )
        return super().from_directory(directory)
