"""What a study works on: a pair, videos, and what is asked about them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax

from hippo_jax.inputs.model_inputs import ModelInputs
from hippo_jax.inputs.prepare import prepare_inputs
from hippo_jax.training.language import PROMPTS

PROMPT = PROMPTS[0]  # what is asked about one's own videos


@dataclass(frozen=True)
class Material:
    """A pair and the rows it is studied on.

    Attributes:
        name: of the pair.
        pair: a ``ModelPair``.
        videos: files or folders of frames.
        prompts: one a video.
        batch: rows that are decoded together where the study leaves it open.
    """

    name: str
    pair: Any
    videos: tuple[Path, ...]
    prompts: tuple[str, ...]
    batch: int = 1

    @property
    def said(self) -> str:
        """For a line about a study."""
        dtype = jax.numpy.dtype(self.pair.target.dtype).name
        return f"{self.name}, {dtype}, {len(self.videos)} clips"

    def batches(self) -> Iterator[tuple[Callable[[], ModelInputs], int]]:
        """All videos, ``batch`` at a time, each batch read when it is asked for, and how many of
        its rows count."""
        left = len(self.videos)
        for members in self._members(self.batch):
            rows = min(self.batch, left)
            yield cache(partial(self._prepared, members)), rows
            left -= rows

    def inputs(self, rows: int = 1) -> list[ModelInputs]:
        """All videos, so many at a time, on the device. Where they do not fill the last batch the
        first ones come again."""
        return [self._prepared(members) for members in self._members(rows)]

    def _members(self, rows: int) -> Iterator[list[int]]:
        count = len(self.videos)
        for first in range(0, count, rows):
            yield [i % count for i in range(first, first + rows)]

    def _prepared(self, members: Sequence[int]) -> ModelInputs:
        own = prepare_inputs(
            self.pair, [self.videos[i] for i in members], [self.prompts[i] for i in members]
        )
        found: ModelInputs = jax.device_put(own)
        return found


def own_videos(videos: Sequence[Path]) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """The user's videos, all with one prompt."""
    return tuple(videos), (PROMPT,) * len(videos)
