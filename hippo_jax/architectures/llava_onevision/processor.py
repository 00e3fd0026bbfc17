"""The processor of LLaVA-OneVision: square frames, one run of placeholders a video."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NoReturn

import numpy as np

from hippo_jax.errors import HippoError
from hippo_jax.inputs.model_inputs import Media
from hippo_jax.inputs.protocol import Marks, Spelling
from hippo_jax.inputs.spelling import spell_places
from hippo_jax.inputs.square_frames import SquareFrames


def refuse_images() -> NoReturn:
    """Still images are cut into tiles of many resolutions (arXiv 2408.03326, section 3.2)."""
    raise HippoError(
        "LLaVA-OneVision reads still images in tiles of many resolutions, which this library does "
        "not do; give the image as a video of one frame: Video(image[None], 1.0)"
    )


@dataclasses.dataclass(frozen=True)
class Processor(SquareFrames):
    """Mean and std where the files name none are those of the class in transformers (the published
    files say 0.5). All frames are taken where nothing is asked, as transformers does, but not more
    than a context of 32768 tokens has room for.
    """

    mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)
    max_frames: int = 128

    def spread(self, total: int, count: int) -> np.ndarray:
        """The first frame, then equal steps rounded down."""
        return np.arange(count) * total // count

    def encode_image(self, image: np.ndarray) -> Media:
        """Refused."""
        refuse_images()

    def spell(self, text: str, media: Sequence[Media], marks: Marks) -> Spelling:
        """The pooled tokens of all frames and one newline behind them, in one run."""

        def spelled(item: Media) -> tuple[str, list[int]]:
            return marks.video, [item.grid[0] * (-(-self.patches // 2)) ** 2 + 1]

        return spell_places(text, media, {"image": marks.image, "video": marks.video}, spelled)
