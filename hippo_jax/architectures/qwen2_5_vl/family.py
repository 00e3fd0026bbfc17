"""Qwen2.5-VL as the shared code sees it."""

from __future__ import annotations

from hippo_jax.architectures.family import Family
from hippo_jax.architectures.merge_blocks import (
    media_from_hf,
    media_tokens,
    rope_positions,
    shared,
)
from hippo_jax.architectures.names import FLAT
from hippo_jax.architectures.qwen2_5_vl import config, layout, names, vision
from hippo_jax.architectures.vit import vision_axes
from hippo_jax.inputs.processor import ProcessorConfig

FAMILY = Family(
    name=config.FAMILY,
    config_from_hf=config.config_from_hf,
    hf_tensors=names.hf_tensors,
    hub_prefixes=FLAT,
    vision_tower=vision.VisionTower,
    vision_axes=vision_axes,
    processor=ProcessorConfig.from_directory,
    media_tokens=media_tokens,
    vision_inputs=layout.vision_inputs,
    rope_positions=rope_positions,
    media_from_hf=media_from_hf,
    shared=shared,
)
