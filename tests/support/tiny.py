"""A tiny random Qwen2.5-VL, once in transformers and once here, and prompts for both.

The torch model is the oracle: float32, every bias and norm perturbed, matrices large enough that
attention is far from uniform. Nothing in this file calls the code under test except to build it.
"""

import functools
from collections.abc import Sequence
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from hippo_jax.architectures.parameters import declared, with_values
from hippo_jax.architectures.registry import family_of
from hippo_jax.architectures.video_lm import VideoLM, abstract_model
from hippo_jax.inputs.model_inputs import Media, ModelInputs, Row, assemble

torch.set_num_threads(1)

VOCAB = 200
IMAGE, VIDEO, START, END, PAD = 190, 191, 192, 193, 0
PATCH_DIM = 1176
TOKENS_PER_SECOND = 2


def hf_config(tied: bool = False) -> Qwen2_5_VLConfig:
    """Two decoder layers; vision layers 0 and 2 attend in windows of 2 x 2 tokens, 1 in full."""
    return Qwen2_5_VLConfig(
        text_config=dict(
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=96,
            vocab_size=VOCAB,
            rms_norm_eps=1e-5,
            rope_parameters=dict(rope_type="default", rope_theta=1e4, mrope_section=[2, 3, 3]),
            max_position_embeddings=512,
            tie_word_embeddings=tied,
        ),
        vision_config=dict(
            depth=3,
            hidden_size=32,
            num_heads=2,
            intermediate_size=48,
            out_hidden_size=64,
            fullatt_block_indexes=[1],
            window_size=56,
            tokens_per_second=TOKENS_PER_SECOND,
        ),
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        vision_start_token_id=START,
        vision_end_token_id=END,
        pad_token_id=PAD,
        tie_word_embeddings=tied,
    )


def perturb(module: torch.nn.Module, seed: int = 1) -> None:
    """Make every bias and norm count and every matrix loud."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
            else:
                fan_in = parameter[0].numel()
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(noise * 1.5 / fan_in**0.5)


@functools.cache
def hf_model(tied: bool = False) -> Qwen2_5_VLForConditionalGeneration:
    """The oracle."""
    model = Qwen2_5_VLForConditionalGeneration(hf_config(tied)).eval().float()
    perturb(model)
    if tied:
        model.tie_weights()
    return model


def convert(hf: torch.nn.Module, rule: str = "extent") -> VideoLM:
    """Our model with the oracle's weights, through the declared name table."""
    family = family_of("qwen2_5_vl")
    config = replace(family.config_from_hf(hf.config.to_dict()), text_position_rule=rule)
    model = abstract_model(config)
    shapes, state = declared(model), hf.state_dict()
    weights = {
        path: jnp.asarray(tensor.to_ours(state[tensor.name].numpy(), shapes[path].shape))
        for path, tensor in family.hf_tensors(config).items()
    }
    return with_values(model, weights)


@functools.cache
def model(rule: str = "extent") -> VideoLM:
    """``convert`` of the untied oracle. ``"extent"`` is the position rule of transformers 5."""
    return convert(hf_model(), rule)


def media(kind: str, grid: tuple[int, int, int], seconds: float = 1.0, seed: int = 0) -> Media:
    """A video or image of noise."""
    rng = np.random.default_rng(seed)
    pixels = rng.standard_normal((int(np.prod(grid)), PATCH_DIM), np.float32)
    return Media(kind, pixels, grid, seconds)


def prompt(*parts: int | Media) -> Row:
    """Token ids and media in order; each medium between its start and end tokens."""
    ids: list[int] = []
    for part in parts:
        if isinstance(part, Media):
            t, h, w = part.grid
            token = VIDEO if part.kind == "video" else IMAGE
            ids += [START, *[token] * (t * (h // 2) * (w // 2)), END]
        else:
            ids.append(part)
    return Row(np.array(ids, np.int32), tuple(p for p in parts if isinstance(p, Media)))


@functools.cache
def video_row() -> Row:
    """One video whose windows are ragged at the right and bottom border (5 x 3 tokens)."""
    return prompt(1, 2, media("video", (3, 10, 6), 1.5), 4, 5, 6, 7)


@functools.cache
def batch_rows() -> tuple[Row, ...]:
    """Unequal rows: a video; an image and a video; text; two videos and an image between."""
    return (
        video_row(),
        prompt(9, media("image", (1, 4, 8), seed=1), 8, media("video", (2, 6, 12), 0.75, 2), 7),
        prompt(11, 12, 13, 14, 15),
        prompt(
            media("video", (2, 4, 4), 1.0, 3),
            21,
            media("image", (1, 6, 6), seed=4),
            media("video", (5, 4, 2), 2.2, 5),
            22,
            23,
        ),
    )


def inputs(rows: Sequence[Row], rule: str = "extent", **keywords: object) -> ModelInputs:
    """Our batch."""
    return assemble(model(rule), rows, **keywords)


def hf_inputs(rows: Sequence[Row]) -> dict[str, torch.Tensor]:
    """The same batch as a transformers processor lays it out: padded on the left."""
    width = max(len(row.ids) for row in rows)
    ids = np.full((len(rows), width), PAD, np.int64)
    mask = np.zeros_like(ids)
    for b, row in enumerate(rows):
        ids[b, width - len(row.ids) :] = row.ids
        mask[b, width - len(row.ids) :] = 1
    mapping = {
        "input_ids": ids,
        "attention_mask": mask,
        "mm_token_type_ids": ((ids == IMAGE) + 2 * (ids == VIDEO)).astype(np.int32),
    }
    everything = [item for row in rows for item in row.media]
    videos = [item for item in everything if item.kind == "video"]
    images = [item for item in everything if item.kind == "image"]
    if videos:
        mapping["pixel_values_videos"] = np.concatenate([v.pixels for v in videos])
        mapping["video_grid_thw"] = np.array([v.grid for v in videos])
        mapping["second_per_grid_ts"] = np.array([v.seconds_per_grid for v in videos], np.float32)
    if images:
        mapping["pixel_values"] = np.concatenate([v.pixels for v in images])
        mapping["image_grid_thw"] = np.array([v.grid for v in images])
    return {name: torch.from_numpy(array) for name, array in mapping.items()}


def left_padding(rows: Sequence[Row]) -> list[int]:
    """Pad columns in front of each row in ``hf_inputs``."""
    width = max(len(row.ids) for row in rows)
    return [width - len(row.ids) for row in rows]
