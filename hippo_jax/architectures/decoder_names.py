"""Names of the weights that families share: the decoder's, and those of a linear layer or norm."""

from __future__ import annotations

from hippo_jax.architectures.config import VideoLMConfig
from hippo_jax.architectures.names import HFTensor

Names = dict[str, HFTensor]
"""Our dotted path to the Hugging Face tensor, one to one."""


def linear(ours: str, theirs: str, in_size: int, out_size: int, bias: bool) -> Names:
    """A ``Linear``."""
    names = {f"{ours}.kernel": HFTensor(f"{theirs}.weight", (out_size, in_size), True)}
    if bias:
        names[f"{ours}.bias"] = HFTensor(f"{theirs}.bias", (out_size,))
    return names


def gated_mlp(ours: str, theirs: str, hidden: int, inner: int, bias: bool) -> Names:
    """A ``GatedMLP``."""
    return {
        **linear(f"{ours}.gate", f"{theirs}.gate_proj", hidden, inner, bias),
        **linear(f"{ours}.up", f"{theirs}.up_proj", hidden, inner, bias),
        **linear(f"{ours}.down", f"{theirs}.down_proj", inner, hidden, bias),
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
        names |= linear("decoder.head", "lm_head", hidden, text.vocab_size, False)
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
            **linear(f"{attention}.query", f"{attn}.q_proj", hidden, queries, bias),
            **linear(f"{attention}.key", f"{attn}.k_proj", hidden, keys, bias),
            **linear(f"{attention}.value", f"{attn}.v_proj", hidden, keys, bias),
            **linear(f"{attention}.output", f"{attn}.o_proj", queries, hidden, text.output_bias),
            **gated_mlp(f"{ours}.mlp", f"{theirs}.mlp", hidden, text.intermediate_size, False),
        }
        if text.qk_norm:
            for norm in ("query", "key"):
                names[f"{attention}.{norm}_norm.weight"] = HFTensor(
                    f"{attn}.{norm[0]}_norm.weight", (text.head_dim,)
                )
    return names


def layer_norm(ours: str, theirs: str, size: int) -> Names:
    """A ``LayerNorm``."""
    return {f"{ours}.{part}": HFTensor(f"{theirs}.{part}", (size,)) for part in ("weight", "bias")}
