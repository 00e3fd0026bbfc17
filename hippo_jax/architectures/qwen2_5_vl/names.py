"""Weight names of Qwen2.5-VL: our dotted path to the Hugging Face tensor, one to one."""

from __future__ import annotations

from hippo_jax.architectures.config import VideoLMConfig
from hippo_jax.architectures.decoder_names import Names, decoder_tensors, gated_mlp, linear
from hippo_jax.architectures.names import HFTensor


def hf_tensors(config: VideoLMConfig) -> Names:
    """Every weight of a Qwen2.5-VL model."""
    vision = config.vision
    size, inner = vision.hidden_size, vision.intermediate_size
    wide = size * vision.merge_size**2
    root = "model.visual"
    patch = (
        size,
        vision.in_channels,
        vision.temporal_patch_size,
        vision.patch_size,
        vision.patch_size,
    )
    names = decoder_tensors(config)
    names["vision.patch_embedding.kernel"] = HFTensor(
        f"{root}.patch_embed.proj.weight", patch, True
    )
    for i in range(vision.depth):
        ours, theirs = f"vision.blocks.{i}", f"{root}.blocks.{i}"
        names |= {
            f"{ours}.attention_norm.weight": HFTensor(f"{theirs}.norm1.weight", (size,)),
            f"{ours}.mlp_norm.weight": HFTensor(f"{theirs}.norm2.weight", (size,)),
            f"{ours}.attention.qkv_kernel": HFTensor(
                f"{theirs}.attn.qkv.weight", (3 * size, size), True
            ),
            f"{ours}.attention.qkv_bias": HFTensor(f"{theirs}.attn.qkv.bias", (3 * size,)),
            **linear(f"{ours}.attention.output", f"{theirs}.attn.proj", size, size, True),
            **gated_mlp(f"{ours}.mlp", f"{theirs}.mlp", size, inner, True),
        }
    names |= {
        "vision.merger.norm.weight": HFTensor(f"{root}.merger.ln_q.weight", (size,)),
        **linear("vision.merger.inner", f"{root}.merger.mlp.0", wide, wide, True),
        **linear(
            "vision.merger.output", f"{root}.merger.mlp.2", wide, vision.out_hidden_size, True
        ),
    }
    return names
