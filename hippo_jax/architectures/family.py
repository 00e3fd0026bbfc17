"""What the shared code asks of an architecture: one ``Family`` a folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from flax import nnx

from hippo_jax.architectures.config import VideoLMConfig
from hippo_jax.architectures.names import HFTensor, Prefixes
from hippo_jax.architectures.tower_load import TowerLoad, patches_in_frames
from hippo_jax.inputs.from_hf import Arrays
from hippo_jax.inputs.model_inputs import Media, VisionInputs
from hippo_jax.inputs.protocol import MediaTokens, Processor

Grid = tuple[int, int, int]
"""Temporal units, height and width of one video or image, in patches (not merged)."""


@dataclass(frozen=True)
class Family:
    """One architecture. Everything but the tower's call is numpy on the host.

    Sizes: N lines of the visual table (all scored tokens of the batch, bucketed), D width of the
    decoder, P rows of pixels.

    Attributes:
        name: ``model_type`` in ``config.json``.
        config_from_hf: ``(config.json, generation_config.json or None) -> VideoLMConfig``.
        hf_tensors: ``VideoLMConfig -> `` our weight paths to the tensors of a checkpoint under
            their transformers 5 names.
        vision_tower: ``(vision config, rngs=) -> module``, called with ``(pixels, layout)``. It
            returns ``[N + extra, (1 + k) * D]``: one row a line of the table, then the extra rows
            that ``MediaTokens.extra`` names. Columns: D for the embedding, then k blocks of D
            (deepstack), the j-th of which is added to the hidden states at visual columns after
            decoder layer j. Rows of padding are finite.
        vision_axes: ``vision config -> {logical axis: units}``, what may be split over devices.
        processor: ``directory -> Processor``.
        media_tokens: ``(VideoLMConfig, Media) -> MediaTokens``.
        vision_inputs: ``(vision config, media of the batch, N, the draft's vision config or None)
            -> VisionInputs``. Pixels and layouts of bucketed sizes; a tower must give N rows
            whatever the number of pixels. ``draft_layout`` is ``None`` unless the draft's tower
            reads the same pixels by other index arrays.
        rope_positions: ``(VideoLMConfig, ids [T], [(kind, grid, seconds)]) -> (int32 [3, T], next
            position)`` of one unpadded prompt; ``rope.one_axis_positions`` for ordinary RoPE.
        media_from_hf: ``(VideoLMConfig, unpadded ids of each row, arrays) -> media of each row``
            from the arrays of a Hugging Face processor under its own keys.
        shared: ``VideoLMConfig -> {name: value}``, what must be equal in target and draft, besides
            family and placeholder ids.
        hub_prefixes: what the published files call the tensors; by default as transformers 5 does.
        tower_load: ``(vision config, grids of all media, N) -> TowerLoad``, for plans of memory.
            The default fits towers that read all patches as one list.
    """

    name: str
    config_from_hf: Callable[[Mapping[str, Any], Mapping[str, Any] | None], VideoLMConfig]
    hf_tensors: Callable[[VideoLMConfig], dict[str, HFTensor]]
    vision_tower: Callable[..., nnx.Module]
    vision_axes: Callable[[Any], dict[str, int]]
    processor: Callable[[Any], Processor]
    media_tokens: Callable[[VideoLMConfig, Media], MediaTokens]
    vision_inputs: Callable[[Any, Sequence[Media], int, Any], VisionInputs]
    rope_positions: Callable[
        [VideoLMConfig, np.ndarray, Sequence[tuple[str, Grid, float]]], tuple[np.ndarray, int]
    ]
    media_from_hf: Callable[
        [VideoLMConfig, Sequence[np.ndarray], Arrays], Sequence[Sequence[Media]]
    ]
    shared: Callable[[VideoLMConfig], Mapping[str, Any]]
    hub_prefixes: Prefixes = ()
    tower_load: Callable[[Any, Sequence[Grid], int], TowerLoad] = patches_in_frames
