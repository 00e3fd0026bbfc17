"""The families: what the shared model needs to know of each architecture folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flax import nnx

from hippo_jax.architectures.config import VideoLMConfig
from hippo_jax.architectures.names import HFTensor
from hippo_jax.architectures.qwen2_5_vl import config as qwen2_5_vl_config
from hippo_jax.architectures.qwen2_5_vl import layout as qwen2_5_vl_layout
from hippo_jax.architectures.qwen2_5_vl import names as qwen2_5_vl_names
from hippo_jax.architectures.qwen2_5_vl import vision as qwen2_5_vl_vision
from hippo_jax.errors import HippoError


@dataclass(frozen=True)
class Family:
    """One architecture.

    Attributes:
        config_from_hf: ``(config.json, generation_config.json or None) -> VideoLMConfig``.
        vision_tower: ``(vision config, rngs=) -> module`` mapping ``(pixels, layout)`` to visual
            tokens ``[N, D]``.
        hf_tensors: our weight paths to the tensors of a checkpoint.
        build_vision_layout: ``(vision config, grids, patch rows) -> layout`` pytree of numpy.
        rope_positions: ``(config, ids, media) -> (int32 [3, T], next position)``.
        merged_tokens: ``(vision config, grid) -> visual tokens``.
        vision_axes: ``vision config -> {logical axis: units}``, what may be split over devices.
    """

    name: str
    config_from_hf: Callable[[Mapping[str, Any], Mapping[str, Any] | None], VideoLMConfig]
    vision_tower: Callable[..., nnx.Module]
    hf_tensors: Callable[[VideoLMConfig], dict[str, HFTensor]]
    build_vision_layout: Callable[..., Any]
    rope_positions: Callable[..., Any]
    merged_tokens: Callable[..., int]
    vision_axes: Callable[..., dict[str, int]]


FAMILIES: Mapping[str, Family] = {
    qwen2_5_vl_config.FAMILY: Family(
        name=qwen2_5_vl_config.FAMILY,
        config_from_hf=qwen2_5_vl_config.config_from_hf,
        vision_tower=qwen2_5_vl_vision.VisionTower,
        hf_tensors=qwen2_5_vl_names.hf_tensors,
        build_vision_layout=qwen2_5_vl_layout.build_vision_layout,
        rope_positions=qwen2_5_vl_layout.rope_positions,
        merged_tokens=qwen2_5_vl_layout.merged_tokens,
        vision_axes=qwen2_5_vl_config.vision_axes,
    )
}


def family_of(model_type: str) -> Family:
    """The family of a ``config.json`` by its ``model_type``.

    Raises:
        HippoError: the architecture is not one of ours.
    """
    if model_type not in FAMILIES:
        raise HippoError(
            f"architecture {model_type!r} is not supported; supported: {', '.join(FAMILIES)}"
        )
    return FAMILIES[model_type]
