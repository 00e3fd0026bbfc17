"""Models with random weights, and prompts of a given number of visual tokens, to measure with."""

from __future__ import annotations

import numpy as np

from hippo_jax.architectures.config import DecoderConfig, VideoLMConfig
from hippo_jax.architectures.qwen2_5_vl.config import FAMILY, VisionConfig
from hippo_jax.architectures.video_lm import VideoLM, random_model
from hippo_jax.inputs.model_inputs import Media, ModelInputs, Row, assemble

VIDEO, VISION_START, VISION_END = 31_990, 31_991, 31_992


def small() -> VideoLMConfig:
    """About 130 million parameters: 12 layers of 768, 12 query and 2 key/value heads."""
    text = DecoderConfig(
        vocab_size=32_000,
        hidden_size=768,
        num_layers=12,
        num_heads=12,
        num_kv_heads=2,
        head_dim=64,
        intermediate_size=2048,
        mrope_section=(8, 12, 12),
    )
    vision = VisionConfig(
        depth=4,
        hidden_size=384,
        num_heads=6,
        intermediate_size=1024,
        out_hidden_size=768,
        full_attention_layers=(3,),
    )
    return VideoLMConfig(
        family=FAMILY,
        text=text,
        vision=vision,
        image_token_id=31_989,
        video_token_id=VIDEO,
        vision_start_token_id=VISION_START,
        vision_end_token_id=VISION_END,
        tokens_per_second=2.0,
        # transformers 5 computes positions so; the peer must do the same work on the same numbers
        text_position_rule="extent",
    )


def random_video_lm(config: VideoLMConfig, seed: int = 0) -> VideoLM:
    """Random float32 weights on the default device."""
    return random_model(config, seed)


def random_prompt(
    model: VideoLM, grid: tuple[int, int, int], text_tokens: int = 40, seed: int = 0
) -> tuple[ModelInputs, Row]:
    """One video of ``grid`` (patches) with random pixels, and random text around it."""
    rng = np.random.default_rng(seed)
    vision = model.config.vision
    merge = vision.merge_size
    visual = grid[0] * (grid[1] // merge) * (grid[2] // merge)
    before, after = rng.integers(0, 30_000, (2, text_tokens // 2))
    ids = np.concatenate([before, [VISION_START], np.full(visual, VIDEO), [VISION_END], after])
    pixels = rng.standard_normal((grid[0] * grid[1] * grid[2], vision.patch_dim), np.float32)
    row = Row(ids.astype(np.int32), [Media("video", pixels, grid, 1.0)])
    return assemble(model, [row]), row
