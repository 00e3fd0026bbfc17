"""Weight names of Qwen3-VL: our dotted path to the Hugging Face tensor, one to one.

Published files and transformers 5 use the same names.
"""

from __future__ import annotations

from hippo_jax.architectures.config import VideoLMConfig
from hippo_jax.architectures.decoder_names import Names, decoder_tensors, layer_norm, linear
from hippo_jax.architectures.names import HFTensor
from hippo_jax.architectures.qwen3_vl.config import VisionConfig

ROOT = "model.visual"


def hf_tensors(config: VideoLMConfig) -> Names:
    """Every weight of a Qwen3-VL model."""
    vision: VisionConfig = config.vision
    size, inner = vision.hidden_size, vision.intermediate_size
    wide = size * vision.merge_size**2
    patch = (size, vision.in_channels, vision.temporal_patch_size, *(vision.patch_size,) * 2)
    names = decoder_tensors(config) | {
        "vision.patch_embedding.kernel": HFTensor(f"{ROOT}.patch_embed.proj.weight", patch, True),
        "vision.patch_embedding.bias": HFTensor(f"{ROOT}.patch_embed.proj.bias", (size,)),
        "vision.positions.table": HFTensor(
            f"{ROOT}.pos_embed.weight", (vision.num_positions, size)
        ),
    }
    for i in range(vision.depth):
        ours, theirs = f"vision.blocks.{i}", f"{ROOT}.blocks.{i}"
        names |= {
            **layer_norm(f"{ours}.attention_norm", f"{theirs}.norm1", size),
            **layer_norm(f"{ours}.mlp_norm", f"{theirs}.norm2", size),
            f"{ours}.attention.qkv_kernel": HFTensor(
                f"{theirs}.attn.qkv.weight", (3 * size, size), True
            ),
            f"{ours}.attention.qkv_bias": HFTensor(f"{theirs}.attn.qkv.bias", (3 * size,)),
            **linear(f"{ours}.attention.output", f"{theirs}.attn.proj", size, size, True),
            **linear(f"{ours}.mlp.inner", f"{theirs}.mlp.linear_fc1", size, inner, True),
            **linear(f"{ours}.mlp.output", f"{theirs}.mlp.linear_fc2", inner, size, True),
        }
    names |= _merger("vision.merger", f"{ROOT}.merger", vision, size)
    for i in range(len(vision.deepstack_layers)):
        theirs = f"{ROOT}.deepstack_merger_list.{i}"
        names |= _merger(f"vision.deepstack_mergers.{i}", theirs, vision, wide)
    return names


def _merger(ours: str, theirs: str, vision: VisionConfig, normed: int) -> Names:
    wide = vision.hidden_size * vision.merge_size**2
    return {
        **layer_norm(f"{ours}.norm", f"{theirs}.norm", normed),
        **linear(f"{ours}.inner", f"{theirs}.linear_fc1", wide, wide, True),
        **linear(f"{ours}.output", f"{theirs}.linear_fc2", wide, vision.out_hidden_size, True),
    }
