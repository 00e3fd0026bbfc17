"""LLaVA-OneVision as the shared code sees it."""

from __future__ import annotations

from hippo_jax.architectures.family import Family
from hippo_jax.architectures.llava_onevision import config, layout, names, processor, vision
from hippo_jax.architectures.rope import one_axis_positions

FAMILY = Family(
    name=config.FAMILY,
    config_from_hf=config.config_from_hf,
    hf_tensors=names.hf_tensors,
    hub_prefixes=names.HUB_PREFIXES,
    vision_tower=vision.VisionTower,
    vision_axes=config.vision_axes,
    processor=processor.Processor.from_directory,
    media_tokens=layout.media_tokens,
    vision_inputs=layout.vision_inputs,
    rope_positions=one_axis_positions,
    media_from_hf=layout.media_from_hf,
    shared=config.shared,
    tower_load=layout.tower_load,
)
