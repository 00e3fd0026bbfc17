"""Sizes of a video-LLM, as frozen and hashable dataclasses (static under ``jax.jit``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

TextPositionRule = Literal["largest", "extent"]


@dataclass(frozen=True)
class DecoderConfig:
    """A Qwen-style text decoder.

    Attributes:
        mrope_section: how many of the ``head_dim / 2`` rotary frequencies follow the temporal,
            vertical and horizontal position. ``()`` means ordinary one-axis RoPE.
        mrope_interleaved: frequencies alternate t, h, w (Qwen3-VL) instead of three chunks.
        qk_norm: RMS-normalise queries and keys per head before the rotation (Qwen3).
        qkv_bias: the query, key and value projections carry a bias (Qwen2 and 2.5).
        max_positions: the longest sequence the checkpoint was made for.
    """

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    rms_norm_eps: float = 1e-6
    rope_theta: float = 1e6
    mrope_section: tuple[int, ...] = ()
    mrope_interleaved: bool = False
    qkv_bias: bool = True
    output_bias: bool = False
    qk_norm: bool = False
    tied: bool = False
    max_positions: int = 32768


@dataclass(frozen=True)
class VideoLMConfig:
    """A whole video-LLM: family, decoder, vision tower and the ids that bind them.

    Attributes:
        vision: the family's own vision config, a frozen dataclass.
        vision_start_token_id, vision_end_token_id: tokens around a visual block, ``None`` in
            families whose config names none.
        text_position_rule: where text resumes after a video. ``"largest"``: one past the largest
            position so far, as the published checkpoints were trained. ``"extent"``: the video's
            start plus its larger spatial side, as transformers 5 computes it.
        eos_token_ids: ids that end a generation, from ``generation_config.json``.
    """

    family: str
    text: DecoderConfig
    vision: Any
    image_token_id: int
    video_token_id: int
    vision_start_token_id: int | None = None
    vision_end_token_id: int | None = None
    tokens_per_second: float = 4.0
    text_position_rule: TextPositionRule = "largest"
    eos_token_ids: tuple[int, ...] = ()
    pad_token_id: int = 0
