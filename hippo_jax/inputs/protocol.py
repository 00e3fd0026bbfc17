"""What the inputs ask of a family: its processor, and the shapes that pass between the two.

The functions of a family on a loaded model's side are in ``architectures.family.Family``; how to
write both is in ``architectures/ADDING_A_FAMILY.md``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

if TYPE_CHECKING:
    from hippo_jax.inputs.model_inputs import Media
    from hippo_jax.inputs.video import Video

P = TypeVar("P", bound="Processor")


@dataclass(frozen=True)
class Marks:
    """Texts of a model's special tokens; ``start`` and ``end`` of a visual block are ``None``
    where the family's config names none."""

    image: str
    video: str
    start: str | None = None
    end: str | None = None


@dataclass(frozen=True)
class Spelling:
    """A prompt as text, in which each placeholder token stands for a run of visual tokens.

    Attributes:
        text: what is tokenised. The placeholders are single tokens, those with the ids
            ``image_token_id`` and ``video_token_id`` of the model's config.
        runs: how often each of them is repeated, in their order; several to one video where text
            stands between its frames.
    """

    text: str
    runs: tuple[int, ...]


class Processor(Protocol):
    """From frames and prompts to what the model reads. A frozen dataclass of a family, made by
    ``family.processor(directory)`` from the preprocessor files of a checkpoint.

    All methods raise ``HippoError``, in one line, where something cannot be done.
    """

    @property
    def fps(self) -> float | None:
        """Sampling rate where the caller names none; a field of the dataclass, which may be
        replaced by ``None`` (frames that have no rate of their own)."""

    @property
    def reserved(self) -> tuple[str, ...]:
        """Texts besides the config's special tokens that no prompt may contain."""

    def frame_indices(
        self,
        total: int,
        source_fps: float,
        *,
        fps: float | None = None,
        num_frames: int | None = None,
    ) -> np.ndarray:
        """Indices (int64, ascending) of the frames to take out of ``total`` at ``source_fps``.
        Never both ``fps`` and ``num_frames``; with neither, the family's default."""

    def frame_size(self, height: int, width: int, frames: int) -> tuple[int, int]:
        """Height and width that each of ``frames`` frames of a video is resized to."""

    def encode_video(self, video: Video) -> Media:
        """Resize (unless ``video.sized``), normalise and flatten all frames. Rows of
        ``Media.pixels`` are in the order that the family's tower reads, ``Media.grid`` in units of
        its patches."""

    def encode_image(self, image: np.ndarray) -> Media:
        """The same for a still image uint8 ``[H, W, 3]``."""

    def spell(self, text: str, media: Sequence[Media], marks: Marks) -> Spelling:
        """The rendered chat template with its places for videos and images spelled out."""

    def seen_frame(self, pixels: np.ndarray, line: int, height: int, width: int) -> np.ndarray:
        """The first raw frame of a temporal unit, uint8 ``[H, W, 3]``, back from
        ``VisionInputs.pixels``: of that unit whose first of ``height * width`` scored tokens is
        ``line`` of the visual table."""

    def with_max_pixels(self: P, max_pixels: int) -> P:
        """The same with another upper bound of a frame's area (refused where sizes are fixed)."""

    def check_config(self, config: Any) -> None:
        """Refuse the ``VideoLMConfig`` of another model: patches of other sizes."""

    def shared(self) -> Mapping[str, Any]:
        """What must be equal in a target's and a draft's files, by name: all that makes pixels of
        other values or other shapes."""


@dataclass(frozen=True)
class MediaTokens:
    """The placeholder tokens of one video or image, in the order of the prompt.

    Attributes:
        grid: (frames, height, width) of the tokens that are scored and may be pruned; they are
            in raster order.
        extra: int ``[placeholders]``, -1 where a scored token stands, else the number of the
            vision tower's extra row that stands there: such tokens are fed to the model, always
            kept, never scored, and no queries. ``None``: all tokens are scored.
    """

    grid: tuple[int, int, int]
    extra: np.ndarray | None = None

    @property
    def count(self) -> int:
        """Placeholders in the prompt."""
        frames, height, width = self.grid
        return frames * height * width if self.extra is None else len(self.extra)

    def rows(self, first: int, behind: int) -> np.ndarray:
        """Row of the tower's output for each token, int ``[placeholders]``: scored tokens count
        from ``first``, extra rows from ``behind``."""
        if self.extra is None:
            return first + np.arange(self.count)
        scored = self.extra < 0
        return np.where(scored, first + np.cumsum(scored) - 1, behind + self.extra)
