"""Qwen2.5-VL sizes from a Hugging Face ``config.json``, flat (hub) or nested (transformers 5)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hippo_jax.architectures.config import VideoLMConfig
from hippo_jax.architectures.hf_config import (
    check_activation,
    decoder,
    refusing,
    text_and_vision,
    whole,
)
from hippo_jax.architectures.qwen_config import qwen_config
from hippo_jax.errors import HippoError

FAMILY = "qwen2_5_vl"


@dataclass(frozen=True)
class VisionConfig:
    """The vision tower.

    Attributes:
        full_attention_layers: layers that attend over a whole frame; the others attend inside
            windows of ``window_size`` pixels.
        out_hidden_size: width of the decoder that the merger projects to.
    """

    depth: int
    hidden_size: int
    num_heads: int
    intermediate_size: int
    out_hidden_size: int
    patch_size: int = 14
    temporal_patch_size: int = 2
    merge_size: int = 2
    in_channels: int = 3
    window_size: int = 112
    full_attention_layers: tuple[int, ...] = (7, 15, 23, 31)

    @property
    def patch_dim(self) -> int:
        """Numbers in one flattened patch."""
        return self.in_channels * self.temporal_patch_size * self.patch_size**2


def config_from_hf(
    config: Mapping[str, Any], generation: Mapping[str, Any] | None = None
) -> VideoLMConfig:
    """Read the contents of ``config.json`` and, if there is one, ``generation_config.json``.

    Raises:
        HippoError: a field is missing or makes no sense.
    """
    text, vision = text_and_vision(config)

    def read() -> VideoLMConfig:
        return qwen_config(
            FAMILY,
            config,
            generation,
            text,
            decoder(config, text, mrope=True, max_positions=128000),
            _vision(vision, whole(text, "hidden_size")),
            tokens_per_second=float(vision.get("tokens_per_second", 4)),
        )

    return refusing("Qwen2.5-VL", read)


def _vision(vision: Mapping[str, Any], decoder_hidden: int) -> VisionConfig:
    check_activation(vision, "silu")
    result = VisionConfig(
        depth=whole(vision, "depth", 32),
        hidden_size=whole(vision, "hidden_size", 3584),
        num_heads=whole(vision, "num_heads", 16),
        intermediate_size=whole(vision, "intermediate_size", 3420),
        out_hidden_size=whole(vision, "out_hidden_size", 3584),
        patch_size=whole(vision, "patch_size", 14),
        temporal_patch_size=whole(vision, "temporal_patch_size", 2),
        merge_size=whole(vision, "spatial_merge_size", 2),
        in_channels=whole(vision, "in_channels", vision.get("in_chans") or 3),
        window_size=whole(vision, "window_size", 112),
        full_attention_layers=tuple(
            int(v) for v in vision.get("fullatt_block_indexes", (7, 15, 23, 31))
        ),
    )
    if result.out_hidden_size != decoder_hidden:
        raise HippoError(
            f"config.json: the vision tower gives {result.out_hidden_size} features a token, the "
            f"decoder takes {decoder_hidden}"
        )
    if result.hidden_size % (4 * result.num_heads):
        raise HippoError(
            f"config.json: vision hidden_size {result.hidden_size} must be a multiple of four "
            f"times its {result.num_heads} heads"
        )
    if any(not 0 <= layer < result.depth for layer in result.full_attention_layers):
        raise HippoError(
            f"config.json: fullatt_block_indexes {list(result.full_attention_layers)} name layers "
            f"that the {result.depth} of the vision tower do not have"
        )
    if result.window_size // result.merge_size // result.patch_size < 1:
        raise HippoError(f"config.json: window_size {result.window_size} is below one token")
    return result
