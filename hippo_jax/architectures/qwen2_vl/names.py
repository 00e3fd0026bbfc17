"""Weight names of Qwen2-VL: our dotted path to the Hugging Face tensor, one to one."""

from __future__ import annotations

from hippo_jax.architectures.config import VideoLMConfig
from hippo_jax.architectures.decoder_names import Names, decoder_tensors, layer_norm, linear
from hippo_jax.architectures.names import HFTensor


def hf_tensors(config: VideoLMConfig) -> Names:
    """Every weight of a Qwen2-VL model."""
    vision = config.vision
    size, inner = vision.hidden_size, vision.intermediate_size
    wide = size * vision.merge_size**2
    root = "model.visual"
    side, steps = vision.patch_size, vision.temporal_patch_size
    names = decoder_tensors(config)
    names["vision.patch_embedding.kernel"] = HFTensor(
        f"{root}.patch_embed.proj.weight", (size, vision.in_channels, steps, side, side), True
    )
    for i in range(vision.depth):
        ours, theirs = f"vision.blocks.{i}", f"{root}.blocks.{i}"
        names |= {
            **layer_norm(f"{ours}.attention_norm", f"{theirs}.norm1", size),
            **layer_norm(f"{ours}.mlp_norm", f"{theirs}.norm2", size),
            f"{ours}.attention.qkv_kernel": HFTensor(
                f"{theirs}.attn.qkv.weight", (3 * size, size), True
            ),
            f"{ours}.attention.qkv_bias": HFTensor(f"{theirs}.attn.qkv.bias", (3 * size,)),
            **linear(f"{ours}.attention.output", f"{theirs}.attn.proj", size, size, True),
            **linear(f"{ours}.mlp.inner", f"{theirs}.mlp.fc1", size, inner, True),
            **linear(f"{ours}.mlp.output", f"{theirs}.mlp.fc2", inner, size, True),
        }
    return {
        **names,
        **layer_norm("vision.merger.norm", f"{root}.merger.ln_q", size),
        **linear("vision.merger.inner", f"{root}.merger.mlp.0", wide, wide, True),
        **linear(
            "vision.merger.output", f"{root}.merger.mlp.2", wide, vision.out_hidden_size, True
        ),
    }
