"""Weight names of InternVL: our dotted path to the Hugging Face tensor, one to one."""

from __future__ import annotations

from hippo_jax.architectures.config import VideoLMConfig
from hippo_jax.architectures.decoder_names import Names, decoder_tensors, layer_norm, linear
from hippo_jax.architectures.internvl.config import VisionConfig
from hippo_jax.architectures.names import NESTED, HFTensor

HUB_PREFIXES = (("model.vision_tower.", "vision_tower."), *NESTED)


def hf_tensors(config: VideoLMConfig) -> Names:
    """Every weight of an InternVL model."""
    return {
        **decoder_tensors(config),
        **_tower(config.vision, "model.vision_tower"),
        **_projector(config.vision, "model.multi_modal_projector"),
    }


def _rms_norm(ours: str, theirs: str, size: int) -> Names:
    return {f"{ours}.weight": HFTensor(f"{theirs}.weight", (size,))}


def _tower(vision: VisionConfig, root: str) -> Names:
    size, patch = vision.hidden_size, vision.patch_size
    embeddings = f"{root}.embeddings"
    convolution = f"{embeddings}.patch_embeddings.projection"
    names: Names = {
        "vision.class_token": HFTensor(f"{embeddings}.cls_token", (1, 1, size)),
        "vision.patch_embedding.kernel": HFTensor(
            f"{convolution}.weight", (size, vision.in_channels, patch, patch), True
        ),
        "vision.patch_embedding.bias": HFTensor(f"{convolution}.bias", (size,)),
    }
    if vision.position_embeddings:
        names["vision.position_embedding"] = HFTensor(
            f"{embeddings}.position_embeddings", (1, vision.patches_per_frame + 1, size)
        )
    if vision.final_norm:
        names |= layer_norm("vision.final_norm", f"{root}.layernorm", size)
    for i in range(vision.depth):
        names |= _block(vision, f"vision.blocks.{i}", f"{root}.encoder.layer.{i}")
    return names


def _block(vision: VisionConfig, ours: str, theirs: str) -> Names:
    size, inner, bias = vision.hidden_size, vision.intermediate_size, vision.qkv_bias
    norm = layer_norm if vision.norm_type == "layer_norm" else _rms_norm
    attention, attn = f"{ours}.attention", f"{theirs}.attention"
    names: Names = {
        **norm(f"{ours}.attention_norm", f"{theirs}.layernorm_before", size),
        **norm(f"{ours}.mlp_norm", f"{theirs}.layernorm_after", size),
        f"{ours}.attention_scale": HFTensor(f"{theirs}.lambda_1", (size,)),
        f"{ours}.mlp_scale": HFTensor(f"{theirs}.lambda_2", (size,)),
        **linear(f"{attention}.query", f"{attn}.q_proj", size, size, bias),
        **linear(f"{attention}.key", f"{attn}.k_proj", size, size, bias),
        **linear(f"{attention}.value", f"{attn}.v_proj", size, size, bias),
        **linear(f"{attention}.output", f"{attn}.projection_layer", size, size, True),
        **linear(f"{ours}.mlp.inner", f"{theirs}.mlp.fc1", size, inner, True),
        **linear(f"{ours}.mlp.output", f"{theirs}.mlp.fc2", inner, size, True),
    }
    if vision.qk_norm:
        names |= _rms_norm(f"{attention}.query_norm", f"{attn}.q_norm", size)
        names |= _rms_norm(f"{attention}.key_norm", f"{attn}.k_norm", size)
    return names


def _projector(vision: VisionConfig, root: str) -> Names:
    wide, out = vision.hidden_size * vision.merge_size**2, vision.out_hidden_size
    return {
        **layer_norm("vision.projector.norm", f"{root}.layer_norm", wide),
        **linear("vision.projector.mlp.inner", f"{root}.linear_1", wide, out, True),
        **linear("vision.projector.mlp.output", f"{root}.linear_2", out, out, True),
    }
