"""Qwen3-VL sizes from a Hugging Face ``config.json``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hippo_jax.architectures import hf_config as read
from hippo_jax.architectures.config import VideoLMConfig
from hippo_jax.architectures.qwen_config import qwen_config
from hippo_jax.architectures.vit import THETA
from hippo_jax.errors import HippoError

FAMILY = "qwen3_vl"
MROPE_SECTION = (24, 20, 20)  # where the file does not say, as in the reference
ROPE_THETA = 5e5


@dataclass(frozen=True)
class VisionConfig:
    """The vision tower.

    Attributes:
        out_hidden_size: width of the decoder that the mergers project to.
        num_positions: rows of the learned position table, a square of places.
        deepstack_layers: layers whose outputs, merged, are added to the decoder's hidden states:
            those of the first behind decoder layer 0, and so on. Ascending.
    """

    depth: int
    hidden_size: int
    num_heads: int
    intermediate_size: int
    out_hidden_size: int
    patch_size: int = 16
    temporal_patch_size: int = 2
    merge_size: int = 2
    in_channels: int = 3
    num_positions: int = 2304
    deepstack_layers: tuple[int, ...] = (8, 16, 24)

    @property
    def patch_dim(self) -> int:
        """Numbers in one flattened patch."""
        return self.in_channels * self.temporal_patch_size * self.patch_size**2

    @property
    def side(self) -> int:
        """Places along each side of the position table."""
        return math.isqrt(self.num_positions)


def config_from_hf(
    config: Mapping[str, Any], generation: Mapping[str, Any] | None = None
) -> VideoLMConfig:
    """Read the contents of ``config.json`` and, if there is one, ``generation_config.json``.

    Raises:
        HippoError: a field is missing or makes no sense.
    """
    return read.refusing("Qwen3-VL", lambda: _config(config, generation or {}))


def _config(config: Mapping[str, Any], generation: Mapping[str, Any]) -> VideoLMConfig:
    text, vision = read.text_and_vision(config)
    rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
    if rope.get("mrope_interleaved") is False:
        raise HippoError(
            "config.json: Qwen3-VL interleaves the axes of its positions, mrope_interleaved is "
            "false; check the checkpoint"
        )
    bias = bool(text.get("attention_bias", False))
    decoder = read.decoder(
        config,
        {**text, "rope_parameters": {"mrope_section": MROPE_SECTION, **rope}},
        mrope=True,
        mrope_interleaved=True,
        qkv_bias=bias,
        output_bias=bias,
        qk_norm=True,
        rope_theta=ROPE_THETA,
        max_positions=128000,
    )
    tower = _vision(vision, decoder.hidden_size)
    if len(tower.deepstack_layers) > decoder.num_layers:
        raise HippoError(
            f"config.json: {len(tower.deepstack_layers)} layers of the vision tower feed the "
            f"decoder (deepstack_visual_indexes), which has only {decoder.num_layers}"
        )
    return qwen_config(FAMILY, config, generation, text, decoder, tower)


def _vision(vision: Mapping[str, Any], decoder_hidden: int) -> VisionConfig:
    read.check_activation(vision, "gelu_pytorch_tanh")
    result = VisionConfig(
        depth=read.whole(vision, "depth", 27),
        hidden_size=read.whole(vision, "hidden_size", 1152),
        num_heads=read.whole(vision, "num_heads", 16),
        intermediate_size=read.whole(vision, "intermediate_size", 4304),
        out_hidden_size=read.whole(vision, "out_hidden_size", 3584),
        patch_size=read.whole(vision, "patch_size", 16),
        temporal_patch_size=read.whole(vision, "temporal_patch_size", 2),
        merge_size=read.whole(vision, "spatial_merge_size", 2),
        in_channels=read.whole(vision, "in_channels", 3),
        num_positions=read.whole(vision, "num_position_embeddings", 2304),
        deepstack_layers=_layers(vision.get("deepstack_visual_indexes", (8, 16, 24))),
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
    if result.side**2 != result.num_positions:
        raise HippoError(
            f"config.json: num_position_embeddings {result.num_positions} must be a square number"
        )
    found = result.deepstack_layers
    if list(found) != sorted(set(found)) or any(not 0 <= i < result.depth for i in found):
        raise HippoError(
            f"config.json: deepstack_visual_indexes {list(found)} must be ascending and name some "
            f"of the {result.depth} layers of the vision tower, counted from 0"
        )
    theta = (vision.get("rope_parameters") or {}).get("rope_theta", THETA)
    if theta != THETA:
        raise HippoError(f"config.json: vision rope_theta {theta!r} is not supported, only {THETA}")
    return result


def _layers(value: Any) -> tuple[int, ...]:
    if not isinstance(value, (list, tuple)) or any(type(layer) is not int for layer in value):
        raise HippoError(
            f"config.json: deepstack_visual_indexes must be a list of layers, found {value!r}"
        )
    return tuple(value)
