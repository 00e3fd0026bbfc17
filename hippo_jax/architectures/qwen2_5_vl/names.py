"""Weight names of Qwen2.5-VL: our dotted path to the Hugging Face tensor, one to one."""

from __future__ import annotations

from hippo_jax.architectures.config import VideoLMConfig
from hippo_jax.architectures.names import HFTensor

Names = dict[str, HFTensor]


def _linear(ours: str, theirs: str, in_size: int, out_size: int, bias: bool) -> Names:
    names = {f"{ours}.kernel": HFTensor(f"{theirs}.weight", (out_size, in_size), True)}
    if bias:
        names[f"{ours}.bias"] = HFTensor(f"{theirs}.bias", (out_size,))
    return names


def _gated_mlp(ours: str, theirs: str, hidden: int, inner: int, bias: bool) -> Names:
    return {
        **_linear(f"{ours}.gate", f"{theirs}.gate_proj", hidden, inner, bias),
        **_linear(f"{ours}.up", f"{theirs}.up_proj", hidden, inner, bias),
        **_linear(f"{ours}.down", f"{theirs}.down_proj", inner, hidden, bias),
    }


def decoder_tensors(config: VideoLMConfig) -> Names:
    """Names of a Qwen2-style decoder under ``model.language_model``."""
    text = config.text
    hidden, queries = text.hidden_size, text.num_heads * text.head_dim
    keys = text.num_kv_heads * text.head_dim
    root = "model.language_model"
    names: Names = {
        "decoder.embedding": HFTensor(f"{root}.embed_tokens.weight", (text.vocab_size, hidden)),
        "decoder.norm.weight": HFTensor(f"{root}.norm.weight", (hidden,)),
    }
    if not text.tied:
        names |= _linear("decoder.head", "lm_head", hidden, text.vocab_size, False)
    for i in range(text.num_layers):
        ours, theirs = f"decoder.layers.{i}", f"{root}.layers.{i}"
        attention, attn = f"{ours}.attention", f"{theirs}.self_attn"
        bias = text.qkv_bias
        names |= {
            f"{ours}.attention_norm.weight": HFTensor(
                f"{theirs}.input_layernorm.weight", (hidden,)
            ),
            f"{ours}.mlp_norm.weight": HFTensor(
                f"{theirs}.post_attention_layernorm.weight", (hidden,)
            ),
            **_linear(f"{attention}.query", f"{attn}.q_proj", hidden, queries, bias),
            **_linear(f"{attention}.key", f"{attn}.k_proj", hidden, keys, bias),
            **_linear(f"{attention}.value", f"{attn}.v_proj", hidden, keys, bias),
            **_linear(f"{attention}.output", f"{attn}.o_proj", queries, hidden, text.output_bias),
            **_gated_mlp(f"{ours}.mlp", f"{theirs}.mlp", hidden, text.intermediate_size, False),
        }
        if text.qk_norm:
            for norm in ("query", "key"):
                names[f"{attention}.{norm}_norm.weight"] = HFTensor(
                    f"{attn}.{norm[0]}_norm.weight", (text.head_dim,)
                )
    return names


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
            **_linear(f"{ours}.attention.output", f"{theirs}.attn.proj", size, size, True),
            **_gated_mlp(f"{ours}.mlp", f"{theirs}.mlp", size, inner, True),
        }
    names |= {
        "vision.merger.norm.weight": HFTensor(f"{root}.merger.ln_q.weight", (size,)),
        **_linear("vision.merger.inner", f"{root}.merger.mlp.0", wide, wide, True),
        **_linear(
            "vision.merger.output", f"{root}.merger.mlp.2", wide, vision.out_hidden_size, True
        ),
    }
    return names
