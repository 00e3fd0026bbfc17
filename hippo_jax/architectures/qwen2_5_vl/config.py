"""Qwen2.5-VL sizes from a Hugging Face ``config.json``, flat (hub) or nested (transformers 5)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hippo_jax.architectures.config import DecoderConfig, VideoLMConfig
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


def vision_axes(vision: VisionConfig) -> dict[str, int]:
    """Logical axes of the tower that may be split over devices, with the units of each."""
    return {
        "vision_heads": vision.num_heads,
        "vision_mlp": vision.intermediate_size,
        "vision_joined": vision.hidden_size * vision.merge_size**2,
    }


def _int(source: Mapping[str, Any], key: str, default: int | None = None) -> int:
    value = source.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise HippoError(
            f"config.json: {key!r} must be a positive whole number, found {value!r}; "
            "check that the checkpoint is complete"
        )
    return value


def _ids(value: Any) -> tuple[int, ...]:
    if value is None:
        return ()
    return tuple(int(v) for v in value) if isinstance(value, (list, tuple)) else (int(value),)


def config_from_hf(
    config: Mapping[str, Any], generation: Mapping[str, Any] | None = None
) -> VideoLMConfig:
    """Read the contents of ``config.json`` and, if there is one, ``generation_config.json``.

    Raises:
        HippoError: a field is missing or makes no sense.
    """
    text: Mapping[str, Any] = config.get("text_config") or config
    vision: Mapping[str, Any] = config.get("vision_config") or {}
    if not isinstance(text, Mapping) or not isinstance(vision, Mapping):
        raise HippoError("config.json: text_config and vision_config must be objects")
    try:
        return VideoLMConfig(
            family=FAMILY,
            text=_decoder(config, text),
            vision=_vision(vision, _int(text, "hidden_size")),
            image_token_id=_token(config, "image_token_id", 151655),
            video_token_id=_token(config, "video_token_id", 151656),
            vision_start_token_id=_token(config, "vision_start_token_id", 151652),
            vision_end_token_id=_token(config, "vision_end_token_id", 151653),
            tokens_per_second=float(vision.get("tokens_per_second", 4)),
            eos_token_ids=_eos(generation or {}, config, text),
            pad_token_id=_pad(generation or {}, config, text),
        )
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        if isinstance(error, HippoError):
            raise
        raise HippoError(f"config.json cannot be read as a Qwen2.5-VL config: {error}") from error


def _token(config: Mapping[str, Any], key: str, default: int) -> int:
    value = config.get(key)
    return default if value is None else int(value)


def _eos(*sources: Mapping[str, Any]) -> tuple[int, ...]:
    return next((_ids(s["eos_token_id"]) for s in sources if s.get("eos_token_id") is not None), ())


def _pad(*sources: Mapping[str, Any]) -> int:
    found = next((int(s["pad_token_id"]) for s in sources if s.get("pad_token_id") is not None), 0)
    return found if 0 <= found < 2**31 else 0  # it only fills what nobody reads


def _decoder(config: Mapping[str, Any], text: Mapping[str, Any]) -> DecoderConfig:
    hidden, heads = _int(text, "hidden_size"), _int(text, "num_attention_heads")
    kv_heads = _int(text, "num_key_value_heads", heads)
    # v5 keeps all of RoPE in rope_parameters; hub files split it into rope_scaling and rope_theta.
    rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
    theta = float(rope.get("rope_theta", text.get("rope_theta", 1e6)))
    eps = float(text.get("rms_norm_eps", 1e-6))
    for kind in (rope.get("rope_type"), rope.get("type")):
        if kind not in (None, "default", "mrope"):
            raise HippoError(
                f"config.json: RoPE of type {kind!r} is not supported; set it to 'default' to use "
                "the model within its trained length"
            )
    if not (theta > 0 and eps > 0 and math.isfinite(theta) and math.isfinite(eps)):
        raise HippoError(f"config.json: rope_theta {theta} and rms_norm_eps {eps} must be positive")
    head_dim = text.get("head_dim") or hidden // heads
    section = tuple(int(v) for v in rope.get("mrope_section", ()))
    if hidden % heads or heads % kv_heads or head_dim % 2:
        raise HippoError(
            f"config.json: hidden_size {hidden}, {heads} heads and {kv_heads} key/value heads "
            "do not divide; check the checkpoint"
        )
    if len(section) != 3 or sum(section) != head_dim // 2:
        raise HippoError(
            f"config.json: mrope_section {list(section)} must be three numbers that sum to half "
            f"of the head dimension, {head_dim // 2}"
        )
    if text.get("use_sliding_window"):
        raise HippoError("config.json: use_sliding_window is not supported; set it to false")
    if text.get("hidden_act", "silu") != "silu":
        raise HippoError(f"config.json: hidden_act {text.get('hidden_act')!r} is not supported")
    tied = bool(config.get("tie_word_embeddings") or text.get("tie_word_embeddings"))
    return DecoderConfig(
        vocab_size=_int(text, "vocab_size"),
        hidden_size=hidden,
        num_layers=_int(text, "num_hidden_layers"),
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=int(head_dim),
        intermediate_size=_int(text, "intermediate_size"),
        rms_norm_eps=eps,
        rope_theta=theta,
        mrope_section=section,
        tied=tied,
        max_positions=_int(text, "max_position_embeddings", 128000),
    )


def _vision(vision: Mapping[str, Any], decoder_hidden: int) -> VisionConfig:
    if vision.get("hidden_act", "silu") != "silu":
        raise HippoError(f"config.json: vision hidden_act {vision['hidden_act']!r} not supported")
    result = VisionConfig(
        depth=_int(vision, "depth", 32),
        hidden_size=_int(vision, "hidden_size", 3584),
        num_heads=_int(vision, "num_heads", 16),
        intermediate_size=_int(vision, "intermediate_size", 3420),
        out_hidden_size=_int(vision, "out_hidden_size", 3584),
        patch_size=_int(vision, "patch_size", 14),
        temporal_patch_size=_int(vision, "temporal_patch_size", 2),
        merge_size=_int(vision, "spatial_merge_size", 2),
        in_channels=_int(vision, "in_channels", vision.get("in_chans") or 3),
        window_size=_int(vision, "window_size", 112),
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
