"""Reading Qwen3-VL's ``config.json``: published sizes, and damaged fields refused in one line."""

import pytest
import torch
from support import tiny_qwen3_vl as tiny
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from hippo_jax.architectures.parameters import declared
from hippo_jax.architectures.qwen3_vl.config import config_from_hf
from hippo_jax.architectures.registry import family_of
from hippo_jax.architectures.video_lm import abstract_model
from hippo_jax.errors import HippoError

# What the published 2B says, with the fields of its time.
HUB_2B = {
    "model_type": "qwen3_vl",
    "image_token_id": 151655,
    "video_token_id": 151656,
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
    "tie_word_embeddings": True,
    "text_config": {
        "attention_bias": False,
        "bos_token_id": 151643,
        "eos_token_id": 151645,
        "head_dim": 128,
        "hidden_act": "silu",
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "max_position_embeddings": 262144,
        "model_type": "qwen3_vl_text",
        "num_attention_heads": 16,
        "num_hidden_layers": 28,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-6,
        "rope_scaling": {
            "mrope_interleaved": True,
            "mrope_section": [24, 20, 20],
            "rope_type": "default",
        },
        "rope_theta": 5000000,
        "vocab_size": 151936,
    },
    "vision_config": {
        "deepstack_visual_indexes": [5, 11, 17],
        "depth": 24,
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_size": 1024,
        "in_channels": 3,
        "intermediate_size": 4096,
        "model_type": "qwen3_vl",
        "num_heads": 16,
        "num_position_embeddings": 2304,
        "out_hidden_size": 2048,
        "patch_size": 16,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    },
}


def test_the_published_2b() -> None:
    config = config_from_hf(HUB_2B, {"eos_token_id": [151645, 151643], "pad_token_id": 151643})
    text, vision = config.text, config.vision
    assert (text.hidden_size, text.num_layers, text.num_heads, text.num_kv_heads) == (
        2048,
        28,
        16,
        8,
    )
    assert (text.head_dim, text.rope_theta, text.mrope_section) == (128, 5e6, (24, 20, 20))
    assert text.mrope_interleaved and text.qk_norm and text.tied
    assert not text.qkv_bias and not text.output_bias
    assert (vision.depth, vision.side, vision.patch_dim) == (24, 48, 1536)
    assert vision.deepstack_layers == (5, 11, 17)
    assert config.eos_token_ids == (151645, 151643) and config.pad_token_id == 151643


def test_names_and_shapes_of_the_published_2b() -> None:
    """One to one with what transformers builds of this config, without any memory."""
    with torch.device("meta"):
        theirs = Qwen3VLForConditionalGeneration(Qwen3VLConfig(**HUB_2B)).state_dict()
    theirs.pop("lm_head.weight")  # tied
    config = config_from_hf(HUB_2B)
    tensors = family_of("qwen3_vl").hf_tensors(config)
    assert set(tensors) == set(declared(abstract_model(config)))
    found = {tensor.name: tensor.shape for tensor in tensors.values()}
    assert found == {name: tuple(x.shape) for name, x in theirs.items()}


def test_defaults_are_those_of_transformers() -> None:
    """A file that leaves out all that the reference has a default for."""
    said = Qwen3VLConfig(text_config={"hidden_size": 3584}).to_dict()
    sizes = ("hidden_size", "num_attention_heads", "num_hidden_layers", "intermediate_size")
    short = {"text_config": {key: said["text_config"][key] for key in (*sizes, "vocab_size")}}
    short["text_config"] |= {"num_key_value_heads": 32, "head_dim": 128}
    assert config_from_hf(short) == config_from_hf(said)


def test_attention_bias() -> None:
    given = tiny.hf_config("target", False).to_dict()
    given["text_config"]["attention_bias"] = True
    text = config_from_hf(given).text
    assert text.qkv_bias and text.output_bias


@pytest.mark.parametrize(
    ("part", "change", "words"),
    [
        ("vision_config", {"deepstack_visual_indexes": [2, 1]}, "ascending"),
        ("vision_config", {"deepstack_visual_indexes": [0, 3]}, "3 layers of the vision tower"),
        ("vision_config", {"deepstack_visual_indexes": [-1]}, "ascending"),
        (
            "vision_config",
            {"depth": 5, "deepstack_visual_indexes": [0, 1, 2, 3]},
            "decoder .* only 3",
        ),
        ("vision_config", {"deepstack_visual_indexes": 3}, "list of layers"),
        ("vision_config", {"deepstack_visual_indexes": ["a"]}, "list of layers"),
        ("vision_config", {"deepstack_visual_indexes": None}, "list of layers"),
        ("vision_config", {"hidden_act": "silu"}, "silu"),
        ("vision_config", {"num_position_embeddings": 0}, "num_position_embeddings"),
        ("vision_config", {"num_position_embeddings": 37}, "square"),
        ("vision_config", {"patch_size": [16, 16]}, "patch_size"),
        ("vision_config", {"out_hidden_size": 48}, "decoder takes 32"),
        ("vision_config", {"num_heads": 16}, "four"),
        ("vision_config", {"rope_parameters": {"rope_theta": 500.0}}, "rope_theta"),
        ("vision_config", {"rope_parameters": [1]}, "cannot be read"),
        ("text_config", {"rope_parameters": {"mrope_section": [4, 4]}}, "mrope_section"),
        ("text_config", {"rope_parameters": {"mrope_interleaved": False}}, "mrope_interleaved"),
        ("text_config", {"rope_parameters": {"rope_type": "yarn"}}, "yarn"),
        ("text_config", {"rope_parameters": "default"}, "cannot be read"),
        ("text_config", {"head_dim": 15}, "divide"),
        ("text_config", {"num_hidden_layers": 0}, "num_hidden_layers"),
        ("text_config", {"hidden_act": "gelu"}, "gelu"),
    ],
)
def test_damaged_fields(part: str, change: dict, words: str) -> None:
    given = tiny.hf_config("target", False).to_dict()
    given[part] |= change
    with pytest.raises(HippoError, match=words):
        config_from_hf(given)
