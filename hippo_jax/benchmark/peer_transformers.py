"""The peer: Hugging Face transformers on the same weights and inputs (needs the extra ``peer``)."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from hippo_jax.architectures.config import VideoLMConfig
from hippo_jax.architectures.parameters import values
from hippo_jax.architectures.video_lm import VideoLM
from hippo_jax.errors import HippoError
from hippo_jax.inputs.model_inputs import Row


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
    """A ``Qwen2_5_VLForConditionalGeneration`` that holds the very numbers of one of our models."""

    def __init__(self, model: VideoLM, threads: int) -> None:
        self.torch = torch = require_torch()
        from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

        torch.set_num_threads(threads)
        config = Qwen2_5_VLConfig(**hf_config(model.config))
        with torch.device("meta"):
            peer = Qwen2_5_VLForConditionalGeneration._from_config(
                config, attn_implementation="sdpa"
            )
        arrays = values(model)
        state = {
            tensor.name: torch.from_numpy(
                np.array(tensor.to_file(np.asarray(arrays[path])), order="C")
            )
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
        self.model = peer.eval()

    def inputs(self, row: Row) -> dict[str, Any]:
        """A prompt under the processor's own keys."""
        torch = self.torch
        (media,) = row.media
        ids = torch.from_numpy(row.ids[None].astype(np.int64))
        video = ids == self.model.config.video_token_id
        return {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "pixel_values_videos": torch.from_numpy(media.pixels),
            "video_grid_thw": torch.tensor([media.grid]),
            "second_per_grid_ts": torch.tensor([media.seconds_per_grid]),
            "mm_token_type_ids": (video * 2).int(),
        }

    def run(self, inputs: dict[str, Any], new_tokens: int, **options: Any) -> tuple[float, list]:
        """Greedy tokens and the seconds they took."""
        with self.torch.inference_mode():
            begin = time.perf_counter()
            out = self.model.generate(
                **inputs,
                max_new_tokens=new_tokens,
                min_new_tokens=new_tokens,
                do_sample=False,
                **options,
            )
            seconds = time.perf_counter() - begin
        return seconds, out[0, inputs["input_ids"].shape[1] :].tolist()


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
