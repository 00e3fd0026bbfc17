"""Scores of visual tokens drawn over the frames that they belong to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from hippo_jax.scoring.picture import Frame
from hippo_jax.studies.charts import FAINT, HEADING, INK, MARGIN, TEXT, WIDTH, font

MOST = 4  # frames beside each other
LABELS, GAP = 170, 14
COLD, WARM = np.array((30, 27, 75)), np.array((253, 224, 71))  # low and high scores
KEPT, BORDER = (255, 255, 255), (239, 68, 68)


@dataclass(frozen=True)
class HeatMaps:
    """A few frames of one clip, and below each the scores of its tokens.

    Attributes:
        heading: what is shown.
        frames: all frames of the row, as ``scoring.picture.seen_frames`` gives them.
        scores: by name float ``[n]`` over the row's visual tokens, and bool ``[n]``, which of them
            are kept.
        border: tokens that the border is wide.
    """

    heading: str
    frames: tuple[Frame, ...]
    scores: Mapping[str, tuple[np.ndarray, np.ndarray]]
    border: int

    @property
    def shown(self) -> list[Frame]:
        """At most ``MOST`` frames, spread evenly."""
        count = min(MOST, len(self.frames))
        return [self.frames[i * len(self.frames) // count] for i in range(count)]

    @property
    def cell(self) -> int:
        """Pixels of a token's side."""
        height, width = self.frames[0].grid
        room = (WIDTH - 2 * MARGIN - LABELS) // MOST - GAP
        return max(4, min(room // width, room // height))

    @property
    def slot(self) -> int:
        """Pixels from one line of frames to the next."""
        return self.cell * max(frame.grid[0] for frame in self.shown) + GAP

    @property
    def height(self) -> int:
        """In pixels."""
        return HEADING + 12 + 2 * (TEXT + 8) + self.slot * (1 + len(self.scores))

    def draw(self, image: Image.Image, top: int) -> None:
        """See ``charts.Panel``."""
        canvas, small = ImageDraw.Draw(image), font(TEXT)
        canvas.text((MARGIN, top), self.heading, fill=INK, font=font(HEADING))
        top += HEADING + 12
        says = (
            "Bright: a high score within its frame. White outline: among the kept tokens of the "
            "clip. Red line: inside of it no token is of the border."
        )
        canvas.text((MARGIN, top), says, fill=FAINT, font=small)
        top += TEXT + 8
        left = MARGIN + LABELS
        for index, frame in enumerate(self.shown):
            x = left + index * (self.cell * frame.grid[1] + GAP)
            canvas.text((x, top), frame.name, fill=FAINT, font=small)
        top += TEXT + 8
        for line, name in enumerate(("frame", *self.scores)):
            y = top + line * self.slot
            middle = y + self.cell * self.frames[0].grid[0] / 2
            canvas.text((MARGIN, middle), name, fill=INK, font=small, anchor="lm")
            for index, frame in enumerate(self.shown):
                x = left + index * (self.cell * frame.grid[1] + GAP)
                image.paste(self._drawn(frame, name if line else None), (x, y))

    def _drawn(self, frame: Frame, name: str | None) -> Image.Image:
        rows, columns = frame.grid
        size = (columns * self.cell, rows * self.cell)
        if name is None:
            picture = Image.fromarray(frame.pixels).resize(size, Image.Resampling.LANCZOS)
        else:
            scores, kept = (
                values[frame.first : frame.first + math.prod(frame.grid)].reshape(frame.grid)
                for values in self.scores[name]
            )
            picture = Image.fromarray(heat(scores)).resize(size, Image.Resampling.NEAREST)
            canvas = ImageDraw.Draw(picture)
            for y, x in np.argwhere(kept) * self.cell:
                box = [int(x), int(y), int(x) + self.cell - 1, int(y) + self.cell - 1]
                canvas.rectangle(box, outline=KEPT, width=2)
        inset = self.border * self.cell
        if 2 * self.border < min(rows, columns):
            box = [inset, inset, size[0] - inset - 1, size[1] - inset - 1]
            ImageDraw.Draw(picture).rectangle(box, outline=BORDER, width=2)
        return picture


def heat(scores: np.ndarray) -> np.ndarray:
    """Scores ``[h, w]`` as colours uint8 ``[h, w, 3]``, the lowest cold and the highest warm."""
    low, high = scores.min(), scores.max()
    share = (scores - low) / (high - low) if high > low else np.zeros_like(scores)
    return (COLD + share[..., None] * (WARM - COLD)).astype(np.uint8)
