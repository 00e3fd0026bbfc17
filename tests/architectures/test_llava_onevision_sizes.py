"""The published sizes of LLaVA-OneVision: config and weights against transformers, without memory.

The configs are what the published ``config.json`` files say, as far as they were known here; they
leave out what equals a default of transformers.
"""

import pytest
import torch
from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration

from hippo_jax.architectures.llava_onevision.config import config_from_hf
from hippo_jax.architectures.llava_onevision.names import hf_tensors
from hippo_jax.architectures.parameters import declared
from hippo_jax.architectures.video_lm import abstract_model

VISION = {
    "hidden_size": 1152,
    "image_size": 384,
    "intermediate_size": 4304,
    "model_type": "siglip_vision_model",
    "num_attention_heads": 16,
    "num_hidden_layers": 26,
    "patch_size": 14,
    "vision_use_head": False,
}


def text(hidden, layers, heads, kv_heads, inner, vocab, **more):
    return {
        "model_type": "qwen2",
        "eos_token_id": 151645,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": inner,
        "vocab_size": vocab,
        "rope_theta": 1000000.0,
        **more,
    }


SIZES = {
    "0.5B": text(896, 24, 14, 2, 4864, 152000, tie_word_embeddings=True),
    "7B": text(3584, 28, 28, 4, 18944, 152128),
    "72B": text(8192, 80, 64, 8, 29568, 152064),
    "defaults": {
        "model_type": "qwen2",
        "hidden_size": 64,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "intermediate_size": 96,
        "num_hidden_layers": 1,
        "vocab_size": 100,
    },
}


def published(size: str) -> dict:
    """The file of a size. ``defaults``: one that leaves out whatever can be left out."""
    file = {"model_type": "llava_onevision", "text_config": SIZES[size]}
    if size != "defaults":
        file |= {
            "vision_config": VISION,
            "image_token_index": 151646,
            "video_token_index": 151647,
            "projector_hidden_act": "gelu",
            "vision_feature_layer": -1,
            "vision_feature_select_strategy": "full",
            "vision_aspect_ratio": "anyres_max_9",
        }
    return file


@pytest.mark.parametrize(
    "size",
    [pytest.param(s, marks=[pytest.mark.slow] if s in ("7B", "72B") else []) for s in SIZES],
)
def test_weights_are_those_of_transformers(size):
    file = published(size)
    theirs = LlavaOnevisionConfig(**file)
    with torch.device("meta"):
        model = LlavaOnevisionForConditionalGeneration(theirs)
    expected = {name: tuple(x.shape) for name, x in model.named_parameters()}
    config = config_from_hf(file)
    tensors = hf_tensors(config)
    assert {tensor.name: tensor.shape for tensor in tensors.values()} == expected
    assert len(tensors) == len(expected)
    ours = declared(abstract_model(config))
    assert set(ours) == set(tensors)
    for path, tensor in tensors.items():
        shape = ours[path].shape
        given = tensor.shape[::-1] if tensor.transposed and len(tensor.shape) == 2 else tensor.shape
        if path != "vision.patch_embedding.kernel":
            assert shape == given, path
    assert ours["vision.patch_embedding.kernel"].shape == (588, config.vision.hidden_size)
    assert config.vision.pooled_side == 14


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("style", ["published", "transformers 5"])
def test_config_is_that_of_transformers(size, style):
    theirs = LlavaOnevisionConfig(**published(size))
    file = published(size) if style == "published" else theirs.to_dict()
    config = config_from_hf(file)
    text, vision = theirs.text_config, theirs.vision_config
    assert config.text.rope_theta == text.rope_parameters["rope_theta"]
    assert config.text.rms_norm_eps == text.rms_norm_eps
    assert config.text.max_positions == text.max_position_embeddings
    assert config.text.tied == theirs.tie_word_embeddings
    assert config.text.mrope_section == () and config.text.qkv_bias
    assert config.vision.layer_norm_eps == vision.layer_norm_eps
    assert config.vision.num_heads == vision.num_attention_heads
    assert (config.image_token_id, config.video_token_id) == (151646, 151647)
    assert config.eos_token_ids == ((151645,) if size != "defaults" else ())


def test_a_vision_config_that_leaves_fields_out():
    file = {**published("defaults"), "vision_config": {"model_type": "siglip_vision_model"}}
    vision, theirs = config_from_hf(file).vision, LlavaOnevisionConfig(**file).vision_config
    assert (vision.depth, vision.hidden_size, vision.num_heads, vision.intermediate_size) == (
        theirs.num_hidden_layers,
        theirs.hidden_size,
        theirs.num_attention_heads,
        theirs.intermediate_size,
    )
    assert (vision.image_size, vision.patch_size) == (theirs.image_size, theirs.patch_size)
