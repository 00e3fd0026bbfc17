"""A torch model of transformers with the weights and inputs of one of ours (extra ``peer``)."""

from __future__ import annotations

from typing import Any

import numpy as np

from hippo_jax.architectures.config import VideoLMConfig
from hippo_jax.architectures.parameters import values
from hippo_jax.architectures.qwen2_5_vl.config import FAMILY
from hippo_jax.architectures.video_lm import VideoLM
from hippo_jax.errors import HippoError
from hippo_jax.inputs.model_inputs import Row

ATTENTION = "sdpa"
"""The implementation of attention that transformers is told to use: torch's own, fused."""


def require_torch() -> Any:
    """The module, or one line that says how to get it."""
    try:
        import torch
    except ImportError as error:
        raise HippoError(
            "the peer needs torch: install it with pip install 'hippo-jax[peer]'"
        ) from error
    return torch


class TransformersPeer:
    """A ``Qwen2_5_VLForConditionalGeneration`` that holds the very numbers of one of our models.

    Attributes:
        model: the torch module.
        shared: whether its weights are the very memory of ours, with matrices as transposed views;
            else it has a copy, each matrix as torch stores it.
        placeholders: ids that stand for visual tokens in a prompt.

    Raises:
        HippoError: another family than Qwen2.5-VL, int8 weights.
    """

    def __init__(self, model: VideoLM, device: str = "cpu", *, share: bool = False) -> None:
        self.torch = torch = require_torch()
        if model.config.family != FAMILY:
            raise HippoError(
                f"the peer runs Qwen2.5-VL only, this model is of the family {model.config.family}"
            )
        if model.quantize is not None:
            raise HippoError("the peer takes no int8 weights: load the model without quantize")
        from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

        self.config, self.family = model.config, model.family
        self.placeholders = (model.config.image_token_id, model.config.video_token_id)
        config = Qwen2_5_VLConfig(**hf_config(model.config))
        with torch.device("meta"):
            peer = Qwen2_5_VLForConditionalGeneration._from_config(
                config, attn_implementation=ATTENTION
            )
        arrays = values(model)
        self.shared = share
        state = {
            tensor.name: tensor.to_file(torch.from_dlpack(arrays[path]))
            if share
            else _tensor(torch, tensor.to_file(np.asarray(arrays[path]))).to(device)
            for path, tensor in model.family.hf_tensors(model.config).items()
        }
        missing, unexpected = peer.load_state_dict(state, strict=False, assign=True)
        if set(missing) - {"lm_head.weight"} or unexpected:
            raise HippoError(f"transformers names other weights: {missing[:3]} {unexpected[:3]}")
        peer.tie_weights()
        # Rotary tables are buffers that the meta device left empty: build them again.
        for module in peer.modules():
            if hasattr(module, "inv_freq") and hasattr(module, "config"):
                module.__init__(config=module.config)  # type: ignore[misc]
            elif hasattr(module, "inv_freq"):
                dim = model.config.vision.hidden_size // model.config.vision.num_heads // 2
                module.__init__(dim)  # type: ignore[misc]
        self.model = peer.eval().requires_grad_(False).to(device)

    def inputs(self, row: Row) -> dict[str, Any]:
        """A prompt as keyword arguments of ``generate``: ids and positions, and ``media(row)``.

        Positions are ours: transformers 5 knows only one of the rules of where text resumes
        behind a video (``VideoLMConfig.text_position_rule``).
        """
        torch, device = self.torch, self.model.device
        ids = row.ids[None].astype(np.int64)
        media = [(item.kind, item.grid, item.seconds_per_grid) for item in row.media]
        rotary, _ = self.family.rope_positions(self.config, row.ids, media)
        # Axis 0 counts the tokens, for the mask; the others are time, height and width.
        positions = np.concatenate([np.arange(ids.shape[1])[None], rotary])[:, None]
        prompt = {
            "input_ids": ids,
            "attention_mask": np.ones_like(ids),
            "position_ids": positions.astype(np.int64),
        }
        given = {name: torch.from_numpy(array).to(device) for name, array in prompt.items()}
        return {**given, **self.media(row)}

    def media(self, row: Row) -> dict[str, Any]:
        """Pixels and grids of a prompt's videos and images, under the processor's own keys."""
        torch, device = self.torch, self.model.device
        found = {}
        for kind, pixels in (("video", "pixel_values_videos"), ("image", "pixel_values")):
            items = [item for item in row.media if item.kind == kind]
            if items:
                patches = np.concatenate([np.asarray(item.pixels) for item in items])
                found[pixels] = torch.from_numpy(patches).to(device)
                found[f"{kind}_grid_thw"] = torch.tensor([item.grid for item in items]).to(device)
        return found


def _tensor(torch: Any, array: np.ndarray) -> Any:
    own = np.array(array, order="C")
    if own.dtype.name == "bfloat16":  # numpy knows it by its bits only
        return torch.from_numpy(own.view(np.uint16)).view(torch.bfloat16)
    return torch.from_numpy(own)


def hf_config(config: VideoLMConfig) -> dict[str, Any]:
    """Keyword arguments of ``Qwen2_5_VLConfig`` for one of our configs."""
    text, vision = config.text, config.vision
    return {
        "text_config": {
            "hidden_size": text.hidden_size,
            "num_hidden_layers": text.num_layers,
            "num_attention_heads": text.num_heads,
            "num_key_value_heads": text.num_kv_heads,
            "intermediate_size": text.intermediate_size,
            "vocab_size": text.vocab_size,
            "rms_norm_eps": text.rms_norm_eps,
            "max_position_embeddings": text.max_positions,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": text.rope_theta,
                "mrope_section": list(text.mrope_section),
            },
            "bos_token_id": None,
            "eos_token_id": None,
            "pad_token_id": None,
        },
        "vision_config": {
            "depth": vision.depth,
            "hidden_size": vision.hidden_size,
            "num_heads": vision.num_heads,
            "intermediate_size": vision.intermediate_size,
            "out_hidden_size": vision.out_hidden_size,
            "fullatt_block_indexes": list(vision.full_attention_layers),
            "window_size": vision.window_size,
            "patch_size": vision.patch_size,
            "temporal_patch_size": vision.temporal_patch_size,
            "spatial_merge_size": vision.merge_size,
            "tokens_per_second": int(config.tokens_per_second),
        },
        "image_token_id": config.image_token_id,
        "video_token_id": config.video_token_id,
        "vision_start_token_id": config.vision_start_token_id,
        "vision_end_token_id": config.vision_end_token_id,
        "tie_word_embeddings": text.tied,
    }
