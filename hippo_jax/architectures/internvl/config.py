"""InternVL3 sizes from a Hugging Face ``config.json`` (the ``-hf`` checkpoints of transformers)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from hippo_jax.architectures.config import DecoderConfig, VideoLMConfig
from hippo_jax.architectures.hf_config import (
    Fields,
    check_activation,
    decoder,
    end_tokens,
    pad_token,
    refusing,
    token,
    whole,
)
from hippo_jax.errors import HippoError

FAMILY = "internvl"

NormType = Literal["layer_norm", "rms_norm"]

_IMAGE_TOKEN = 151667  # the id in every published InternVL3


@dataclass(frozen=True)
class VisionConfig:
    """InternViT and the projector.

    Attributes:
        out_hidden_size: width of the decoder that the projector ends in.
        image_size: pixels of a frame's side; every frame is a square of this size.
        merge_size: patches (per side) that one visual token is joined from.
        temporal_patch_size: frames of a patch, always 1.
        norm_type: of the norms around attention and MLP (300M: LayerNorm, 6B: RMSNorm).
        qkv_bias: queries, keys and values have biases (300M).
        qk_norm: queries and keys are RMS-normalised over all heads together (6B).
        position_embeddings: a learnt table is added to class token and patches.
        final_norm: a LayerNorm after the last layer (no published checkpoint has it).
    """

    depth: int
    hidden_size: int
    num_heads: int
    intermediate_size: int
    out_hidden_size: int
    image_size: int = 448
    patch_size: int = 14
    merge_size: int = 2
    in_channels: int = 3
    temporal_patch_size: int = 1
    norm_type: NormType = "layer_norm"
    norm_eps: float = 1e-6
    qkv_bias: bool = True
    qk_norm: bool = False
    position_embeddings: bool = True
    final_norm: bool = False

    @property
    def patch_dim(self) -> int:
        """Numbers in one flattened patch."""
        return self.in_channels * self.patch_size**2

    @property
    def patches_per_frame(self) -> int:
        """Patches of one frame."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def tokens_per_frame(self) -> int:
        """Visual tokens of one frame."""
        return self.patches_per_frame // self.merge_size**2


def vision_axes(vision: VisionConfig) -> dict[str, int]:
    """Logical axes of the tower that may be split over devices, with the units of each.

    Heads stay whole where queries and keys are normalised over all of them together: the norm of a
    part is another norm. (The 25 heads of InternViT-6B would hardly ever divide anyway.)
    """
    heads = {} if vision.qk_norm else {"vision_heads": vision.num_heads}
    return {
        **heads,
        "vision_mlp": vision.intermediate_size,
        "vision_joined": vision.out_hidden_size,
    }


def config_from_hf(
    config: Mapping[str, Any], generation: Mapping[str, Any] | None = None
) -> VideoLMConfig:
    """Read the contents of ``config.json`` and, if there is one, ``generation_config.json``.

    Raises:
        HippoError: a field is missing, makes no sense, or asks for what no InternVL3 does.
    """
    text, vision = config.get("text_config"), config.get("vision_config")
    if not isinstance(text, Mapping) or not isinstance(vision, Mapping):
        raise HippoError(
            "config.json: text_config and vision_config must be objects; convert checkpoints of "
            "the original InternVL code to the transformers form ('-hf')"
        )

    def read() -> VideoLMConfig:
        image = token(config, "image_token_id", _IMAGE_TOKEN)
        return VideoLMConfig(
            family=FAMILY,
            text=_decoder(config, text),
            vision=_vision(config, vision, whole(text, "hidden_size")),
            image_token_id=image,
            video_token_id=image,  # a video is a list of images
            eos_token_ids=end_tokens(generation or {}, config, text),
            pad_token_id=pad_token(generation or {}, config, text),
        )

    return refusing("InternVL", read)


def _decoder(config: Fields, text: Fields) -> DecoderConfig:
    kind = text.get("model_type", "qwen2")
    if kind != "qwen2":
        raise HippoError(
            f"config.json: a decoder of type {kind!r} is not supported, only 'qwen2' (InternVL3 "
            "1B, 2B, 8B, 14B, 38B and 78B)"
        )
    return decoder(config, _with_trained_rope(text), mrope=False, rope_theta=1e4, tied=True)


def _with_trained_rope(text: Fields) -> Fields:
    """``text`` with RoPE of type "dynamic" read as what it is within the trained length.

    Published checkpoints name that type. It changes the base only for sequences longer than
    ``max_position_embeddings``, which are refused here in any case.
    """
    changed = dict(text)
    for key in ("rope_parameters", "rope_scaling"):
        rope = changed.get(key)
        if isinstance(rope, Mapping):
            changed[key] = {
                name: value
                for name, value in rope.items()
                if name not in ("rope_type", "type") or value != "dynamic"
            }
    return changed


def _vision(config: Fields, vision: Fields, decoder_hidden: int) -> VisionConfig:
    check_activation(vision, "gelu")
    check_activation(config, "gelu", key="projector_hidden_act")
    for source, key, expected in (
        (config, "vision_feature_layer", -1),
        (config, "vision_feature_select_strategy", "default"),
        (vision, "use_mask_token", False),
    ):
        if source.get(key, expected) != expected:
            raise HippoError(
                f"config.json: {key} {source[key]!r} is not supported, only {expected!r}"
            )
    norm_type = vision.get("norm_type", "layer_norm")
    if norm_type not in ("layer_norm", "rms_norm"):
        raise HippoError(
            f"config.json: norm_type {norm_type!r} is neither 'layer_norm' nor 'rms_norm'"
        )
    eps = float(vision.get("layer_norm_eps", 1e-6))
    if not (eps > 0 and math.isfinite(eps)):
        raise HippoError(f"config.json: layer_norm_eps {eps} must be positive")
    result = VisionConfig(
        depth=whole(vision, "num_hidden_layers", 24),
        hidden_size=whole(vision, "hidden_size", 1024),
        num_heads=whole(vision, "num_attention_heads", 16),
        intermediate_size=whole(vision, "intermediate_size", 4096),
        out_hidden_size=decoder_hidden,
        image_size=_side(vision, "image_size", 448),
        patch_size=_side(vision, "patch_size", 14),
        merge_size=_merge_size(config),
        in_channels=whole(vision, "num_channels", 3),
        norm_type=cast(NormType, norm_type),
        norm_eps=eps,
        qkv_bias=_flag(vision, "attention_bias", False),
        qk_norm=_flag(vision, "use_qk_norm", False),
        position_embeddings=_flag(vision, "use_absolute_position_embeddings", True),
        final_norm=not _flag(vision, "use_mean_pooling", True),
    )
    if result.hidden_size % result.num_heads:
        raise HippoError(
            f"config.json: vision hidden_size {result.hidden_size} does not divide into "
            f"{result.num_heads} heads"
        )
    if result.image_size % (result.patch_size * result.merge_size):
        raise HippoError(
            f"config.json: image_size {result.image_size} does not divide into visual tokens of "
            f"{result.merge_size} x {result.merge_size} patches of {result.patch_size} pixels"
        )
    length = whole(config, "image_seq_length", result.tokens_per_frame)
    if length != result.tokens_per_frame:
        raise HippoError(
            f"config.json: image_seq_length {length}, but a frame of {result.image_size} pixels "
            f"has {result.tokens_per_frame} visual tokens"
        )
    return result


def _side(source: Fields, key: str, default: int) -> int:
    """A side of a square, written as one number or as two equal ones."""
    value = source.get(key, default)
    pair = value if isinstance(value, (list, tuple)) else [value, value]
    if len(pair) != 2 or pair[0] != pair[1]:
        raise HippoError(f"config.json: {key!r} must be a square, found {value!r}")
    return whole({key: pair[0]}, key)


def _merge_size(config: Fields) -> int:
    ratio = config.get("downsample_ratio", 0.5)
    if isinstance(ratio, bool) or not isinstance(ratio, (int, float)) or not 0 < ratio <= 1:
        raise HippoError(f"config.json: downsample_ratio {ratio!r} must be 1 / 2, 1 / 4, ...")
    merge = int(1 / ratio)
    if merge * ratio != 1:
        raise HippoError(f"config.json: downsample_ratio {ratio!r} must be 1 / 2, 1 / 4, ...")
    return merge


def _flag(source: Fields, key: str, default: bool) -> bool:
    value = source.get(key, default)
    if not isinstance(value, bool):
        raise HippoError(f"config.json: {key!r} must be true or false, found {value!r}")
    return value
