"""A tiny random InternVL, once in transformers and once here, and frames for both.

Two towers, as the published checkpoints have them: that of the 300M InternViT (LayerNorm, biased
queries, keys and values) and that of the 6B (RMSNorm, normalised queries and keys, no biases).
Frames are 6 x 6 patches, 9 visual tokens, which divide no bucket.
"""

import functools
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
import torch
from transformers import InternVLConfig, InternVLForConditionalGeneration

from hippo_jax.architectures.internvl.config import config_from_hf
from hippo_jax.architectures.internvl.names import hf_tensors
from hippo_jax.architectures.parameters import declared, with_values
from hippo_jax.architectures.video_lm import VideoLM, abstract_model
from hippo_jax.inputs.model_inputs import Media, Row
from support.tiny import perturb

VOCAB = 200
IMAGE, START, END, PAD, END_OF_TURN = 190, 192, 193, 0, 199
FRAME, NEWLINE = 60, 80
SIDE, PATCH = 84, 14
TOKENS = 9
TOWERS = {
    "300m": dict(norm_type="layer_norm", attention_bias=True, use_qk_norm=False),
    "6b": dict(norm_type="rms_norm", attention_bias=False, use_qk_norm=True),
}


def hf_config(tower: str = "300m", tied: bool = False, **vision: object) -> InternVLConfig:
    """Two decoder layers behind a tower of two layers."""
    return InternVLConfig(
        text_config=dict(
            model_type="qwen2",
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=96,
            vocab_size=VOCAB,
            rms_norm_eps=1e-5,
            rope_parameters=dict(rope_type="dynamic", factor=2.0, rope_theta=1e4),
            max_position_embeddings=512,
            tie_word_embeddings=tied,
            eos_token_id=END_OF_TURN,
        ),
        vision_config={
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 48,
            "image_size": [SIDE, SIDE],
            "patch_size": [PATCH, PATCH],
            **TOWERS[tower],
            **vision,
        },
        image_token_id=IMAGE,
        image_seq_length=TOKENS,
        tie_word_embeddings=tied,
    )


@functools.cache
def hf_model(tower: str = "300m", tied: bool = False) -> InternVLForConditionalGeneration:
    """The oracle."""
    return perturbed(hf_config(tower, tied))


def settle(model: InternVLForConditionalGeneration) -> None:
    """Loud class token and positions: they have more axes than a bias, and no fan-in."""
    embeddings = model.model.vision_tower.embeddings
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for table in (embeddings.cls_token, embeddings.position_embeddings):
            if table is not None:
                table.copy_(torch.randn(table.shape, generator=generator))


def perturbed(config: InternVLConfig) -> InternVLForConditionalGeneration:
    """A model with every bias, norm and scale perturbed, and loud matrices."""
    model = InternVLForConditionalGeneration(config).eval().float()
    perturb(model)
    settle(model)
    if config.tie_word_embeddings:
        model.tie_weights()
    return model


def convert(hf: InternVLForConditionalGeneration) -> VideoLM:
    """Our model with the oracle's weights, through the declared name table."""
    config = config_from_hf(hf.config.to_dict())
    model = abstract_model(config)
    shapes, state = declared(model), hf.state_dict()
    weights = {
        path: jnp.asarray(tensor.to_ours(state[tensor.name].numpy(), shapes[path].shape))
        for path, tensor in hf_tensors(config).items()
    }
    return with_values(model, weights)


@functools.cache
def model(tower: str = "300m") -> VideoLM:
    """``convert`` of the untied oracle."""
    return convert(hf_model(tower))


def images(count: int, seed: int = 0) -> np.ndarray:
    """Frames of noise as a processor gives them, float32 ``[F, 3, SIDE, SIDE]``."""
    return np.random.default_rng(seed).standard_normal((count, 3, SIDE, SIDE), np.float32)


def patches(frames: np.ndarray) -> np.ndarray:
    """The same as flattened patches, float32 ``[F * patches, 3 * PATCH * PATCH]``, raster order,
    cut out one by one."""
    rows = []
    for frame in frames:
        for y in range(0, SIDE, PATCH):
            for x in range(0, SIDE, PATCH):
                rows.append(frame[:, y : y + PATCH, x : x + PATCH].reshape(-1))
    return np.array(rows)


def media(kind: str, frames: int = 1, seed: int = 0) -> Media:
    """A video or an image of noise."""
    grid = (frames, SIDE // PATCH, SIDE // PATCH)
    return Media(kind, patches(images(frames, seed)), grid, 0.5)


def prompt(*parts: int | Media) -> Row:
    """Token ids and media in order; each frame of a video behind its number, each frame and image
    between its start and end tokens."""
    ids: list[int] = []
    for part in parts:
        if not isinstance(part, Media):
            ids.append(part)
            continue
        for frame in range(part.grid[0]):
            if part.kind == "video":
                ids += [*([NEWLINE] if frame else []), FRAME, FRAME + 1 + frame]
            ids += [START, *[IMAGE] * TOKENS, END]
        ids.append(NEWLINE)
    return Row(np.array(ids, np.int32), tuple(p for p in parts if isinstance(p, Media)))


@functools.cache
def batch_rows() -> tuple[Row, ...]:
    """Unequal rows: a video; an image and a video; text; two videos and an image."""
    return (
        prompt(1, 2, media("video", 3), 4, 5, 6, 7),
        prompt(9, media("image", seed=1), 8, media("video", 2, 2), 7),
        prompt(11, 12, 13, 14, 15),
        prompt(media("video", 2, 3), media("video", 4, 4), media("image", seed=5), 22, 23),
    )


def hf_inputs(rows: Sequence[Row]) -> dict[str, torch.Tensor]:
    """The same batch as a transformers processor lays it out: padded on the left, all frames in
    one array."""
    width = max(len(row.ids) for row in rows)
    ids = np.full((len(rows), width), PAD, np.int64)
    mask = np.zeros_like(ids)
    for b, row in enumerate(rows):
        ids[b, width - len(row.ids) :] = row.ids
        mask[b, width - len(row.ids) :] = 1
    mapping = {"input_ids": ids, "attention_mask": mask}
    everything = [item for row in rows for item in row.media]
    if everything:
        flat = np.concatenate([item.pixels for item in everything])
        mapping["pixel_values"] = whole_frames(flat)
    return {name: torch.from_numpy(array) for name, array in mapping.items()}


def whole_frames(rows: np.ndarray) -> np.ndarray:
    """What ``patches`` was given."""
    side = SIDE // PATCH
    split = rows.reshape(-1, side, side, 3, PATCH, PATCH).transpose(0, 3, 1, 4, 2, 5)
    return np.ascontiguousarray(split.reshape(-1, 3, SIDE, SIDE))
