"""Qwen3-VL as the shared code sees it."""

from __future__ import annotations

from hippo_jax.architectures.family import Family
from hippo_jax.architectures.merge_blocks import media_from_hf, media_tokens, shared
from hippo_jax.architectures.qwen3_vl import config, layout, names, processor, vision
from hippo_jax.architectures.vit import vision_axes

FAMILY = Family(
    name=config.FAMILY,
    config_from_hf=config.config_from_hf,
    hf_tensors=names.hf_tensors,
    vision_tower=vision.VisionTower,
    vision_axes=vision_axes,
    processor=processor.Processor.from_directory,
    media_tokens=media_tokens,
    vision_inputs=layout.vision_inputs,
    rope_positions=layout.rope_positions,
    media_from_hf=media_from_hf,
    shared=shared,
)
