"""The trained pair as two complete Hugging Face checkpoints."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from hippo_jax.architectures.parameters import with_values
from hippo_jax.architectures.video_lm import VideoLM
from hippo_jax.training import batches, sizes
from hippo_jax.training.domain import FPS, SIZE
from hippo_jax.training.networks import MEAN, STD, Weights
from hippo_jax.training.tokenizer import save_tokenizer, special_ids
from hippo_jax.weights.export import save_hf

DTYPE = "float16"


def rounded(weights: Weights) -> Weights:
    """The weights as they will be read back: every judgement is passed on these."""
    return {
        n: jnp.asarray(np.asarray(v).astype(DTYPE).astype(np.float32)) for n, v in weights.items()
    }


def preprocessor_config(kind: str) -> dict[str, Any]:
    """`preprocessor_config.json` ("image") or `video_preprocessor_config.json` ("video")."""
    smallest, largest = 64 * 28 * 28, SIZE * SIZE  # a frame comes out near the trained size
    config: dict[str, Any] = {
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "do_convert_rgb": True,
        "resample": 3,
        "rescale_factor": 1 / 255,
        "image_mean": [MEAN] * 3,
        "image_std": [STD] * 3,
        "patch_size": batches.PATCH,
        "temporal_patch_size": 2,
        "merge_size": batches.MERGE,
        "size": {"shortest_edge": smallest, "longest_edge": largest},
        "min_pixels": smallest,
        "max_pixels": largest,
    }
    if kind == "image":
        return {"image_processor_type": "Qwen2VLImageProcessor", **config}
    return {
        "video_processor_type": "Qwen2VLVideoProcessor",
        "do_sample_frames": True,
        "fps": FPS,
        "min_frames": 4,
        "max_frames": 64,
        **config,
    }


def export_role(role: sizes.Role, weights: Weights, directory: Path) -> Path:
    """Writes one role's checkpoint: tokenizer and processor files first, the weights last."""
    directory.mkdir(parents=True, exist_ok=True)
    save_tokenizer(directory)
    special = special_ids(batches.tokenizer())
    generation = {
        "bos_token_id": special["<|endoftext|>"],
        "eos_token_id": [special["<|im_end|>"], special["<|endoftext|>"]],
        "pad_token_id": special["<|endoftext|>"],
        "do_sample": False,
    }
    _write_json(directory / "generation_config.json", generation)
    _write_json(directory / "preprocessor_config.json", preprocessor_config("image"))
    _write_json(directory / "video_preprocessor_config.json", preprocessor_config("video"))
    config = sizes.model_config(role, special)
    model = nnx.eval_shape(lambda: VideoLM(config, rngs=nnx.Rngs(0)))
    return save_hf(
        with_values(model, weights),
        directory,
        dtype=DTYPE,
        config=sizes.hf_config(role, special),
    )


def export_pair(weights: dict[str, Weights], directory: Path) -> None:
    """`directory/target` and `directory/draft`."""
    for role in sizes.ROLES:
        export_role(role, weights[role], directory / role)


def load_exported(directory: Path) -> dict[str, Weights]:
    """Weights by role, as the library's own loader reads them."""
    from hippo_jax.architectures.parameters import values
    from hippo_jax.weights.load import load_model

    return {role: values(load_model(directory / role, dtype="float32")) for role in sizes.ROLES}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, path)
