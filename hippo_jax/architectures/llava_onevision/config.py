"""LLaVA-OneVision sizes from a Hugging Face ``config.json`` (hub or transformers 5)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hippo_jax.architectures.config import VideoLMConfig
from hippo_jax.architectures.hf_config import (
    check_activation,
    decoder,
    end_tokens,
    pad_token,
    refusing,
    text_and_vision,
    token,
    whole,
)
from hippo_jax.errors import HippoError

FAMILY = "llava_onevision"

# What holds for a vision_config that leaves a field out (the class defaults of transformers, which
# saves only what differs), and where there is no vision_config at all (SigLIP-so400m, on which
# every published size is built).
_LEFT_OUT = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 224,
    "patch_size": 16,
}
_NO_CONFIG = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 26,
    "num_attention_heads": 16,
    "image_size": 384,
    "patch_size": 14,
}


@dataclass(frozen=True)
class VisionConfig:
    """The SigLIP tower and the projector. Every frame is a square of one size.

    Attributes:
        image_size: side of a frame in pixels, not always a multiple of ``patch_size``.
        out_hidden_size: width of the decoder that the projector projects to.
        projector_bias: both layers of the projector carry a bias.
    """

    depth: int
    hidden_size: int
    num_heads: int
    intermediate_size: int
    out_hidden_size: int
    image_size: int = 384
    patch_size: int = 14
    in_channels: int = 3
    layer_norm_eps: float = 1e-6
    projector_bias: bool = True

    @property
    def side(self) -> int:
        """Patches along a side of a frame; pixels behind the last whole patch are not seen."""
        return self.image_size // self.patch_size

    @property
    def pooled_side(self) -> int:
        """Visual tokens along a side of a frame."""
        return -(-self.side // 2)

    @property
    def patch_dim(self) -> int:
        """Numbers in one flattened patch."""
        return self.in_channels * self.patch_size**2


def vision_axes(vision: VisionConfig) -> dict[str, int]:
    """Logical axes of the tower that may be split over devices, with the units of each."""
    return {
        "vision_heads": vision.num_heads,
        "vision_mlp": vision.intermediate_size,
        "projected": vision.out_hidden_size,
    }


def shared(config: VideoLMConfig) -> Mapping[str, Any]:
    """Frames and patches; towers may differ in width and depth."""
    return {name: getattr(config.vision, name) for name in ("image_size", "patch_size")}


def config_from_hf(
    config: Mapping[str, Any], generation: Mapping[str, Any] | None = None
) -> VideoLMConfig:
    """Read the contents of ``config.json`` and, if there is one, ``generation_config.json``.

    Raises:
        HippoError: a field is missing or makes no sense.
    """
    text, vision = text_and_vision(config)

    def read() -> VideoLMConfig:
        _check_features(config, text, vision)
        return VideoLMConfig(
            family=FAMILY,
            text=decoder(config, text, mrope=False, rope_theta=1e4),
            vision=_vision(config, vision, whole(text, "hidden_size")),
            image_token_id=_placeholder(config, "image", 151646),
            video_token_id=_placeholder(config, "video", 151647),
            eos_token_ids=end_tokens(generation or {}, config, text),
            pad_token_id=pad_token(generation or {}, config, text),
        )

    return refusing("LLaVA-OneVision", read)


def _placeholder(config: Mapping[str, Any], kind: str, default: int) -> int:
    """The file's field is ``image_token_index``, the attribute in Python ``image_token_id``."""
    return token(config, f"{kind}_token_index", token(config, f"{kind}_token_id", default))


def _check_features(
    config: Mapping[str, Any], text: Mapping[str, Any], vision: Mapping[str, Any]
) -> None:
    """Refuse what would take other features of the tower, or another tower or decoder."""
    for key, expected in (("vision_feature_layer", -1), ("vision_feature_select_strategy", "full")):
        if config.get(key, expected) != expected:
            raise HippoError(
                f"config.json: {key} {config[key]!r} is not supported, only {expected!r}"
            )
    for part, fields, expected in (
        ("text_config", text, "qwen2"),
        ("vision_config", vision, "siglip_vision_model"),
    ):
        found = fields.get("model_type", expected)
        if found != expected:
            raise HippoError(
                f"config.json: a {part} of type {found!r} is not supported, only {expected!r}"
            )


def _vision(
    config: Mapping[str, Any], vision: Mapping[str, Any], decoder_hidden: int
) -> VisionConfig:
    check_activation(vision, "gelu_pytorch_tanh")
    check_activation(config, "gelu", key="projector_hidden_act")
    eps = float(vision.get("layer_norm_eps", 1e-6))
    if not (eps > 0 and math.isfinite(eps)):
        raise HippoError(f"config.json: vision layer_norm_eps {eps} must be positive")
    bias = config.get("multimodal_projector_bias", True)
    if not isinstance(bias, bool):
        raise HippoError(
            f"config.json: multimodal_projector_bias must be true or false, not {bias!r}"
        )
    fields = {**(_LEFT_OUT if vision else _NO_CONFIG), **vision}
    result = VisionConfig(
        depth=whole(fields, "num_hidden_layers"),
        hidden_size=whole(fields, "hidden_size"),
        num_heads=whole(fields, "num_attention_heads"),
        intermediate_size=whole(fields, "intermediate_size"),
        out_hidden_size=decoder_hidden,
        image_size=whole(fields, "image_size"),
        patch_size=whole(fields, "patch_size"),
        in_channels=whole(vision, "num_channels", 3),
        layer_norm_eps=eps,
        projector_bias=bias,
    )
    if result.hidden_size % result.num_heads:
        raise HippoError(
            f"config.json: vision hidden_size {result.hidden_size} must be a multiple of its "
            f"{result.num_heads} heads"
        )
    if result.side < 1:
        raise HippoError(
            f"config.json: image_size {result.image_size} is below one patch of "
            f"{result.patch_size} pixels"
        )
    if result.in_channels != 3:
        raise HippoError(f"config.json: num_channels {result.in_channels} is not supported, only 3")
    return result
