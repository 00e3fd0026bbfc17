"""The pair's sizes, as the `config.json` that is shipped: everything else is derived from it."""

from __future__ import annotations

from typing import Any, Literal

from hippo_jax.architectures.config import VideoLMConfig
from hippo_jax.architectures.qwen2_5_vl.config import config_from_hf
from hippo_jax.training.tokenizer import VOCABULARY

Role = Literal["target", "draft"]
ROLES: tuple[Role, ...] = ("target", "draft")

_TEXT: dict[Role, dict[str, int]] = {
    "target": {
        "hidden_size": 256,
        "num_hidden_layers": 8,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "intermediate_size": 704,
    },
    "draft": {
        "hidden_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "intermediate_size": 352,
    },
}
_VISION: dict[Role, dict[str, int]] = {
    "target": {"depth": 2, "hidden_size": 96, "num_heads": 2, "intermediate_size": 256},
    "draft": {"depth": 2, "hidden_size": 64, "num_heads": 2, "intermediate_size": 176},
}


def hf_config(role: Role, special: dict[str, int]) -> dict[str, Any]:
    """The contents of `config.json`; `special` are the control tokens' ids."""
    text: dict[str, Any] = {
        "model_type": "qwen2_5_vl_text",
        **_TEXT[role],
        "vocab_size": VOCABULARY,
        "hidden_act": "silu",
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "mrope_section": [8, 12, 12],
        },
        "use_sliding_window": False,
        "tie_word_embeddings": False,
        "initializer_range": 0.02,
        "bos_token_id": special["<|endoftext|>"],
        "eos_token_id": special["<|im_end|>"],
        "pad_token_id": special["<|endoftext|>"],
    }
    vision: dict[str, Any] = {
        "model_type": "qwen2_5_vl",
        **_VISION[role],
        "out_hidden_size": text["hidden_size"],
        "hidden_act": "silu",
        "in_channels": 3,
        "patch_size": 14,
        "temporal_patch_size": 2,
        "spatial_merge_size": 2,
        "window_size": 112,
        "fullatt_block_indexes": list(range(_VISION[role]["depth"])),
        "tokens_per_second": 2,
    }
    return {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "model_type": "qwen2_5_vl",
        "dtype": "float16",
        "text_config": text,
        "vision_config": vision,
        "image_token_id": special["<|image_pad|>"],
        "video_token_id": special["<|video_pad|>"],
        "vision_start_token_id": special["<|vision_start|>"],
        "vision_end_token_id": special["<|vision_end|>"],
        "tie_word_embeddings": False,
    }


def model_config(role: Role, special: dict[str, int]) -> VideoLMConfig:
    """The architecture's own config of a role."""
    return config_from_hf(hf_config(role, special))
