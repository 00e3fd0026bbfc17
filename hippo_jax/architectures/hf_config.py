"""Readers of the fields of a Hugging Face ``config.json`` that families share.

Each refuses what makes no sense in one line (``HippoError``). Hub files of the older families are
flat (text fields at the top level), those of transformers 5 nested (``text_config``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from hippo_jax.architectures.config import DecoderConfig
from hippo_jax.errors import HippoError

T = TypeVar("T")

Fields = Mapping[str, Any]


def refusing(what: str, read: Callable[[], T]) -> T:
    """``read()``; whatever a damaged field makes Python raise becomes one line about ``what``."""
    try:
        return read()
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
        if isinstance(error, HippoError):
            raise
        raise HippoError(f"config.json cannot be read as a {what} config: {error}") from error


def text_and_vision(config: Fields) -> tuple[Fields, Fields]:
    """The text and the vision part; a flat config is its own text part."""
    text: Fields = config.get("text_config") or config
    vision: Fields = config.get("vision_config") or {}
    if not isinstance(text, Mapping) or not isinstance(vision, Mapping):
        raise HippoError("config.json: text_config and vision_config must be objects")
    return text, vision


def whole(source: Fields, key: str, default: int | None = None) -> int:
    """A positive whole number."""
    value = source.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise HippoError(
            f"config.json: {key!r} must be a positive whole number, found {value!r}; "
            "check that the checkpoint is complete"
        )
    return value


def token(config: Fields, key: str, default: int) -> int:
    """A token id."""
    value = config.get(key)
    return default if value is None else int(value)


def end_tokens(*sources: Fields) -> tuple[int, ...]:
    """``eos_token_id``, one or several, of the first of ``sources`` that has it."""
    return next((_ids(s["eos_token_id"]) for s in sources if s.get("eos_token_id") is not None), ())


def pad_token(*sources: Fields) -> int:
    """``pad_token_id`` of the first of ``sources`` that has it, else 0."""
    found = next((int(s["pad_token_id"]) for s in sources if s.get("pad_token_id") is not None), 0)
    return found if 0 <= found < 2**31 else 0  # it only fills what nobody reads


def _ids(value: Any) -> tuple[int, ...]:
    return tuple(int(v) for v in value) if isinstance(value, (list, tuple)) else (int(value),)


def check_activation(source: Fields, expected: str, *, key: str = "hidden_act") -> None:
    """Refuse an activation other than the one that the family's code computes (its default)."""
    if source.get(key, expected) != expected:
        raise HippoError(f"config.json: {key} {source[key]!r} is not supported, only {expected!r}")


def decoder(
    config: Fields,
    text: Fields,
    *,
    mrope: bool,
    mrope_interleaved: bool = False,
    qkv_bias: bool = True,
    output_bias: bool = False,
    qk_norm: bool = False,
    rope_theta: float = 1e6,
    tied: bool = False,
    max_positions: int = 32768,
) -> DecoderConfig:
    """The sizes of a Qwen2- or Qwen3-style decoder.

    Args:
        config, text: the whole file and its text part.
        mrope: positions have three axes (``mrope_section`` is then required), else one.
        rope_theta, tied, max_positions: what holds where the file does not say.
    """
    hidden, heads = whole(text, "hidden_size"), whole(text, "num_attention_heads")
    kv_heads = whole(text, "num_key_value_heads", heads)
    # v5 keeps all of RoPE in rope_parameters; hub files split it into rope_scaling and rope_theta.
    rope: Fields = text.get("rope_parameters") or text.get("rope_scaling") or {}
    theta = float(rope.get("rope_theta", text.get("rope_theta", rope_theta)))
    eps = float(text.get("rms_norm_eps", 1e-6))
    for kind in (rope.get("rope_type"), rope.get("type")):
        if kind not in (None, "default", "mrope"):
            raise HippoError(
                f"config.json: RoPE of type {kind!r} is not supported; set it to 'default' to use "
                "the model within its trained length"
            )
    if not (theta > 0 and eps > 0 and math.isfinite(theta) and math.isfinite(eps)):
        raise HippoError(f"config.json: rope_theta {theta} and rms_norm_eps {eps} must be positive")
    own_dim = text.get("head_dim") is not None  # else the width is shared out among the heads
    head_dim = whole(text, "head_dim") if own_dim else hidden // heads
    if (not own_dim and hidden % heads) or heads % kv_heads or head_dim % 2:
        raise HippoError(
            f"config.json: hidden_size {hidden}, {heads} heads and {kv_heads} key/value heads "
            "do not divide; check the checkpoint"
        )
    section = tuple(int(v) for v in rope.get("mrope_section", ())) if mrope else ()
    if mrope and (len(section) != 3 or sum(section) != head_dim // 2 or min(section) < 0):
        raise HippoError(
            f"config.json: mrope_section {list(section)} must be three numbers that sum to half "
            f"of the head dimension, {head_dim // 2}"
        )
    if text.get("use_sliding_window"):
        raise HippoError("config.json: use_sliding_window is not supported; set it to false")
    check_activation(text, "silu")
    flags = [source.get("tie_word_embeddings") for source in (config, text)]
    said = [flag for flag in flags if flag is not None]
    return DecoderConfig(
        vocab_size=whole(text, "vocab_size"),
        hidden_size=hidden,
        num_layers=whole(text, "num_hidden_layers"),
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        intermediate_size=whole(text, "intermediate_size"),
        rms_norm_eps=eps,
        rope_theta=theta,
        mrope_section=section,
        mrope_interleaved=mrope_interleaved,
        qkv_bias=qkv_bias,
        output_bias=output_bias,
        qk_norm=qk_norm,
        # v4 and v5 write the flag in different places.
        tied=any(said) if said else tied,
        max_positions=whole(text, "max_position_embeddings", max_positions),
    )
