"""Tiny random LLaVA-OneVision models and their prompts.

``ODD``: frames of 100 pixels are cut into 7 x 7 patches of 14 (two pixels of each side are left
over), which pool to 4 x 4 tokens: a resample that no whole number divides. ``EVEN``: 4 x 4 patches,
pooled to 2 x 2, behind a tower of another width. ``DRAFT``: a sibling of ``ODD`` with less depth,
other widths, a tied head, a vocabulary padded less and no biases in the projector.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
import torch
from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration

from hippo_jax.inputs.model_inputs import Media, Row
from support.families import FamilyCase

VOCAB = 280
IMAGE, VIDEO, PAD = 270, 271, 0  # as the tokenizer of the tests has them
PATCH = 14


def hf_config(tied: bool = False, even: bool = False, draft: bool = False) -> LlavaOnevisionConfig:
    """Two decoder layers behind two of the tower; a draft has one of each."""
    return LlavaOnevisionConfig(
        text_config=dict(
            model_type="qwen2",
            hidden_size=32 if draft else 64,
            num_hidden_layers=1 if draft else 2,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=96,
            vocab_size=VOCAB - 4 if draft else VOCAB,
            rms_norm_eps=1e-5,
            rope_parameters=dict(rope_type="default", rope_theta=1e4),
            max_position_embeddings=512,
            tie_word_embeddings=tied,
            pad_token_id=PAD,
        ),
        vision_config=dict(
            model_type="siglip_vision_model",
            hidden_size=48 if even or draft else 32,
            num_hidden_layers=1 if draft else 2,
            num_attention_heads=2,
            intermediate_size=80 if even or draft else 56,
            image_size=56 if even else 100,
            patch_size=PATCH,
            layer_norm_eps=1e-3,
            vision_use_head=False,
        ),
        image_token_index=IMAGE,
        video_token_index=VIDEO,
        multimodal_projector_bias=not draft,
        tie_word_embeddings=tied,
    )


def frames(count: int, side: int, seed: int = 0) -> np.ndarray:
    """Preprocessed frames of noise as the oracle takes them: float32 ``[F, 3, side, side]``."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, 3, side, side), np.float32)


def patches(given: np.ndarray) -> np.ndarray:
    """The same as our tower takes them: ``[F * side^2, 3 * 14^2]``, frames in reading order."""
    count, _, height, width = given.shape
    found = [
        given[f, :, y : y + PATCH, x : x + PATCH].reshape(-1)
        for f in range(count)
        for y in range(0, height - PATCH + 1, PATCH)
        for x in range(0, width - PATCH + 1, PATCH)
    ]
    return np.stack(found)


def whole(pixels: np.ndarray, side: int) -> np.ndarray:
    """Patches back to frames; zeros where no patch was."""
    own = side // PATCH
    out = np.zeros((len(pixels) // own**2, 3, side, side), np.float32)
    for number, patch in enumerate(pixels):
        f, y, x = number // own**2, number // own % own * PATCH, number % own * PATCH
        out[f, :, y : y + PATCH, x : x + PATCH] = patch.reshape(3, PATCH, PATCH)
    return out


def prompt(*parts: int | np.ndarray) -> Row:
    """Token ids and videos in order; a video is its pooled tokens and one more for the newline."""
    ids: list[int] = []
    media: list[Media] = []
    for part in parts:
        if isinstance(part, np.ndarray):
            own = part.shape[-1] // PATCH
            media.append(Media("video", patches(part), (len(part), own, own)))
            ids += [VIDEO] * (len(part) * pooled(own) ** 2 + 1)
        else:
            ids.append(part)
    return Row(np.array(ids, np.int32), tuple(media))


def pooled(side: int) -> int:
    """Tokens along a side."""
    return (side + 1) // 2


@functools.cache
def rows(side: int = 100) -> tuple[Row, ...]:
    """A video; text; two videos with text between them. Two frames each, for the oracle takes one
    number for all."""
    return (
        prompt(1, 2, frames(2, side), 4, 5, 6, 7),
        prompt(11, 12, 13, 14, 15),
        prompt(9, frames(2, side, 1), 8, 21, frames(2, side, 2), 22, 23),
    )


def hf_inputs(given: Sequence[Row], side: int = 100) -> dict[str, torch.Tensor]:
    """A batch as a transformers processor lays it out: padded on the left."""
    width = max(len(row.ids) for row in given)
    ids = np.full((len(given), width), PAD, np.int64)
    mask = np.zeros_like(ids)
    for b, row in enumerate(given):
        ids[b, width - len(row.ids) :] = row.ids
        mask[b, width - len(row.ids) :] = 1
    arrays = {"input_ids": ids, "attention_mask": mask}
    videos = [whole(item.pixels, side) for row in given for item in row.media]
    if videos:
        arrays["pixel_values_videos"] = np.stack(videos)
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def scored(row: Row) -> list[tuple[int, tuple[int, int, int], np.ndarray]]:
    """All placeholders of a video but its last, the newline."""
    slots = np.flatnonzero(row.ids == VIDEO)
    found, at = [], 0
    for number, item in enumerate(row.media):
        side = pooled(item.grid[1])
        count = item.grid[0] * side**2
        found.append((number, (item.grid[0], side, side), slots[at : at + count]))
        at += count + 1
    return found


def hub_name(name: str) -> str:
    """The published files keep a level that transformers 5 has dropped."""
    return name.replace("vision_tower.", "vision_tower.vision_model.")


ODD = FamilyCase(
    name="llava_onevision",
    hf_class=LlavaOnevisionForConditionalGeneration,
    hf_config=hf_config,
    rows=rows,
    hf_inputs=hf_inputs,
    placeholders=(IMAGE, VIDEO),
    scored=scored,
    hub_name=hub_name,
)
EVEN = dataclasses.replace(
    ODD,
    hf_config=functools.partial(hf_config, even=True),
    rows=functools.partial(rows, 56),
    hf_inputs=functools.partial(hf_inputs, side=56),
)
DRAFT = dataclasses.replace(ODD, hf_config=functools.partial(hf_config, draft=True))
