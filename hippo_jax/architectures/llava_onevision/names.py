"""Weight names of LLaVA-OneVision: our dotted path to the Hugging Face tensor, one to one."""

from __future__ import annotations

from hippo_jax.architectures.config import VideoLMConfig
from hippo_jax.architectures.decoder_names import Names, decoder_tensors, layer_norm, linear
from hippo_jax.architectures.names import NESTED, HFTensor

TOWER, PROJECTOR = "model.vision_tower", "model.multi_modal_projector"

HUB_PREFIXES = (
    ("model.vision_tower.", "vision_tower.vision_model."),
    ("model.image_newline", "image_newline"),
    *NESTED,
)


def hf_tensors(config: VideoLMConfig) -> Names:
    """Every weight of a LLaVA-OneVision model."""
    vision = config.vision
    size, inner, wide = vision.hidden_size, vision.intermediate_size, vision.out_hidden_size
    patch = (size, vision.in_channels, vision.patch_size, vision.patch_size)
    embeddings = f"{TOWER}.embeddings"
    names = decoder_tensors(config)
    names |= {
        "vision.patch_embedding.kernel": HFTensor(
            f"{embeddings}.patch_embedding.weight", patch, True
        ),
        "vision.patch_embedding.bias": HFTensor(f"{embeddings}.patch_embedding.bias", (size,)),
        "vision.positions": HFTensor(
            f"{embeddings}.position_embedding.weight", (vision.side**2, size)
        ),
        **layer_norm("vision.unused_norm", f"{TOWER}.post_layernorm", size),
        "vision.newline": HFTensor("model.image_newline", (wide,)),
        **linear(
            "vision.projector.inner", f"{PROJECTOR}.linear_1", size, wide, vision.projector_bias
        ),
        **linear(
            "vision.projector.output", f"{PROJECTOR}.linear_2", wide, wide, vision.projector_bias
        ),
    }
    for i in range(vision.depth):
        ours, theirs = f"vision.blocks.{i}", f"{TOWER}.encoder.layers.{i}"
        attention, attn = f"{ours}.attention", f"{theirs}.self_attn"
        names |= {
            **layer_norm(f"{ours}.attention_norm", f"{theirs}.layer_norm1", size),
            **linear(f"{attention}.query", f"{attn}.q_proj", size, size, True),
            **linear(f"{attention}.key", f"{attn}.k_proj", size, size, True),
            **linear(f"{attention}.value", f"{attn}.v_proj", size, size, True),
            **linear(f"{attention}.output", f"{attn}.out_proj", size, size, True),
            **layer_norm(f"{ours}.mlp_norm", f"{theirs}.layer_norm2", size),
            **linear(f"{ours}.mlp.inner", f"{theirs}.mlp.fc1", size, inner, True),
            **linear(f"{ours}.mlp.output", f"{theirs}.mlp.fc2", inner, size, True),
        }
    return names
