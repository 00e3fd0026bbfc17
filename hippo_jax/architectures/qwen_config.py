"""What the configs of all Qwen-VL families say alike: their special tokens."""

from __future__ import annotations

from typing import Any

from hippo_jax.architectures.config import DecoderConfig, VideoLMConfig
from hippo_jax.architectures.hf_config import Fields, end_tokens, pad_token, token


def qwen_config(
    family: str,
    config: Fields,
    generation: Fields | None,
    text: Fields,
    decoder: DecoderConfig,
    vision: Any,
    *,
    tokens_per_second: float = 4.0,
) -> VideoLMConfig:
    """A model's config from its parts, and ids from ``config.json`` or as published.

    Args:
        config, generation: contents of ``config.json`` and of ``generation_config.json``, if any.
        text: that part of ``config`` that is the decoder's.
    """
    return VideoLMConfig(
        family=family,
        text=decoder,
        vision=vision,
        image_token_id=token(config, "image_token_id", 151655),
        video_token_id=token(config, "video_token_id", 151656),
        vision_start_token_id=token(config, "vision_start_token_id", 151652),
        vision_end_token_id=token(config, "vision_end_token_id", 151653),
        tokens_per_second=tokens_per_second,
        eos_token_ids=end_tokens(generation or {}, config, text),
        pad_token_id=pad_token(generation or {}, config, text),
    )
