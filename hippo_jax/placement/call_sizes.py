"""Shapes of a call's inputs, from how many frames of which size it brings."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from hippo_jax.architectures.config import VideoLMConfig
from hippo_jax.architectures.family import Grid
from hippo_jax.architectures.registry import family_of
from hippo_jax.architectures.tower_load import TowerLoad
from hippo_jax.errors import HippoError
from hippo_jax.inputs.buckets import bucket
from hippo_jax.inputs.model_inputs import Media
from hippo_jax.scoring.selection import kept_counts


@dataclass(frozen=True)
class Call:
    """What a row of a call brings, and how long the answer may be.

    Attributes:
        frames: of the video; 0 is text alone.
        size: height and width of a frame in pixels as the model sees it, for families that keep
            the aspect; others resize every frame to a square of their own.
        visual_tokens: instead of ``frames`` and ``size``, about so many tokens in all.
        text_tokens: of prompt and template, with what a family writes between frames (about eight
            tokens a frame in InternVL, a temporal unit in Qwen3-VL).
        max_new_tokens: of the answer.
        batch: rows.
    """

    frames: int = 32
    size: tuple[int, int] = (448, 448)
    visual_tokens: int | None = None
    text_tokens: int = 64
    max_new_tokens: int = 128
    batch: int = 1

    def __post_init__(self) -> None:
        for name, least in (("frames", 0), ("text_tokens", 1), ("max_new_tokens", 1), ("batch", 1)):
            if getattr(self, name) < least:
                raise HippoError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if min(self.size) < 1:
            raise HippoError(f"a frame cannot be {self.size[0]} x {self.size[1]} pixels")
        if self.visual_tokens is not None and self.visual_tokens < 1:
            raise HippoError(f"visual_tokens must be at least 1, got {self.visual_tokens}")


@dataclass(frozen=True)
class ReadCall:
    """A call's shapes for one family.

    Attributes:
        grids: of every video of the batch, in patches.
        visual: scored visual tokens of a row.
        lines: of the table of visual tokens of all rows, bucketed.
        text: tokens of a row that are never pruned.
        prompt: columns of the padded prompt.
    """

    grids: tuple[Grid, ...]
    visual: int
    lines: int
    text: int
    prompt: int

    def load(self, config: VideoLMConfig) -> TowerLoad | None:
        """What the tower of a model has to do."""
        if not self.lines:
            return None
        return family_of(config.family).tower_load(config.vision, self.grids, self.lines)


def read_call(config: VideoLMConfig, call: Call) -> ReadCall:
    """The shapes that ``prepare_inputs`` would give.

    Raises:
        HippoError: more tokens than the model allows.
    """
    visual = extra = 0
    grids: tuple[Grid, ...] = ()
    if call.frames:
        grid = _grid(config, call)
        tokens = family_of(config.family).media_tokens(
            config, Media("video", np.zeros((0, 0), np.float32), grid)
        )
        visual = math.prod(tokens.grid)
        extra, grids = tokens.count - visual, (grid,) * call.batch
    text = call.text_tokens + extra
    allowed = config.text.max_positions
    if visual + text + call.max_new_tokens > allowed:
        raise HippoError(
            f"{visual + text} prompt tokens and {call.max_new_tokens} new ones exceed the "
            f"{allowed} that the model allows; use fewer or smaller frames"
        )
    lines = bucket(call.batch * visual, 64) if visual else 0
    return ReadCall(grids, visual, lines, text, bucket(visual + text, 32))


def draft_prompt(read: ReadCall, keep_ratio: float) -> int:
    """Columns of the prompt that a draft reads, as ``decoding.pruning.prune`` makes it."""
    if not read.lines or keep_ratio >= 1:
        return read.prompt
    kept = int(kept_counts(keep_ratio, min(read.lines, read.prompt))[-1])
    return min(read.prompt, bucket(read.text, 32) + kept)


def _grid(config: VideoLMConfig, call: Call) -> Grid:
    """Temporal units, height and width of the video in patches."""
    vision = config.vision
    square = getattr(vision, "image_size", None)  # families that make every frame one size
    units = math.ceil(call.frames / getattr(vision, "temporal_patch_size", 1))
    if square is not None:
        side = square // vision.patch_size
        if call.visual_tokens is None:
            return units, side, side
        one = family_of(config.family).media_tokens(
            config, Media("video", np.zeros((0, 0), np.float32), (1, side, side))
        )
        return math.ceil(call.visual_tokens / math.prod(one.grid)), side, side
    merge = vision.merge_size
    if call.visual_tokens is not None:
        return units, merge, merge * math.ceil(call.visual_tokens / units)
    factor = vision.patch_size * merge
    height, width = (max(1, round(side / factor)) * merge for side in call.size)
    return units, height, width
