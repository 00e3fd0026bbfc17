"""Qwen2-VL sizes from a Hugging Face ``config.json``, flat (hub) or nested (transformers 5)."""

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

FAMILY = "qwen2_vl"


@dataclass(frozen=True)
class VisionConfig:
    """The vision tower. ``out_hidden_size``: width of the decoder that the merger projects to."""

    depth: int
    hidden_size: int
    num_heads: int
    intermediate_size: int
    out_hidden_size: int
    patch_size: int = 14
    temporal_patch_size: int = 2
    merge_size: int = 2
    in_channels: int = 3

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
            decoder(config, text, mrope=True),
            _vision(vision, whole(text, "hidden_size")),
            tokens_per_second=1.0,  # with ``layout.rope_positions``: a step a temporal unit
        )

    return refusing("Qwen2-VL", read)


def _vision(vision: Mapping[str, Any], decoder_hidden: int) -> VisionConfig:
    check_activation(vision, "quick_gelu")
    size, heads = whole(vision, "embed_dim", 1280), whole(vision, "num_heads", 16)
    out = whole(vision, "hidden_size", 3584)  # here the decoder's width, not the tower's
    if out != decoder_hidden:
        raise HippoError(
            f"config.json: the vision tower gives {out} features a token, the decoder takes "
            f"{decoder_hidden}"
        )
    if size % (4 * heads):
        raise HippoError(
            f"config.json: vision embed_dim {size} must be a multiple of four times its {heads} "
            "heads"
        )
    inner = size * float(vision.get("mlp_ratio", 4))
    if not (inner >= 1 and inner.is_integer()):
        raise HippoError(
            f"config.json: vision mlp_ratio {vision.get('mlp_ratio')!r} gives no whole number of "
            "hidden units"
        )
    return VisionConfig(
        depth=whole(vision, "depth", 32),
        hidden_size=size,
        num_heads=heads,
        intermediate_size=int(inner),
        out_hidden_size=out,
        patch_size=whole(vision, "patch_size", 14),
        temporal_patch_size=whole(vision, "temporal_patch_size", 2),
        merge_size=whole(vision, "spatial_merge_size", 2),
        in_channels=whole(vision, "in_channels", vision.get("in_chans") or 3),
    )
