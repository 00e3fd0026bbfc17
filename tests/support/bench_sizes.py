"""The benchmark's own shapes made small."""

from __future__ import annotations

from dataclasses import replace

from hippo_jax.architectures.config import VideoLMConfig
from hippo_jax.benchmark import shapes


def target() -> VideoLMConfig:
    """Two layers of 64."""
    return _small(64, 2)


def draft() -> VideoLMConfig:
    """One layer of 32."""
    return _small(32, 1)


def _small(hidden: int, layers: int) -> VideoLMConfig:
    whole = shapes.small()
    text = replace(
        whole.text,
        hidden_size=hidden,
        num_layers=layers,
        num_heads=2,
        num_kv_heads=1,
        head_dim=32,
        intermediate_size=64,
        mrope_section=(4, 6, 6),
    )
    vision = replace(
        whole.vision,
        depth=2,
        hidden_size=32,
        num_heads=2,
        intermediate_size=32,
        out_hidden_size=hidden,
        full_attention_layers=(1,),
    )
    return replace(whole, text=text, vision=vision)
