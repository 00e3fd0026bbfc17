"""A tiny random Qwen3-VL, once in transformers and once here, and prompts for both.

Three decoder layers, the first two of which get features of vision layers 0 and 2. Frames are
smaller and larger than the table of positions. The draft has a shallower tower, which feeds one
decoder layer only.
"""

import functools
from collections.abc import Sequence

import numpy as np
import torch
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from hippo_jax.architectures.video_lm import VideoLM
from hippo_jax.inputs.model_inputs import Media, ModelInputs, Row, assemble
from support import families
from support.families import FamilyCase

VOCAB = 200
IMAGE, VIDEO, START, END, PAD = 190, 191, 192, 193, 0
PATCH_DIM = 96

DEEPSTACK = {"target": [0, 2], "draft": [1]}  # layers of the tower, of which the last is one


def hf_config(size: str, tied: bool) -> Qwen3VLConfig:
    """Head dimensions are not hidden size / heads."""
    deepstack = DEEPSTACK[size]
    return Qwen3VLConfig(
        text_config=dict(
            hidden_size=32,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=16,
            intermediate_size=48,
            vocab_size=VOCAB,
            rms_norm_eps=1e-5,
            rope_parameters=dict(
                rope_type="default", rope_theta=1e4, mrope_section=[4, 2, 2], mrope_interleaved=True
            ),
            max_position_embeddings=512,
            pad_token_id=PAD,
        ),
        vision_config=dict(
            depth=deepstack[-1] + 1,
            hidden_size=32,
            num_heads=2,
            intermediate_size=48,
            out_hidden_size=32,
            patch_size=4,
            num_position_embeddings=36,
            deepstack_visual_indexes=deepstack,
        ),
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        vision_start_token_id=START,
        vision_end_token_id=END,
        tie_word_embeddings=tied,
    )


@functools.cache
def case() -> FamilyCase:
    """The family's description."""
    return next(case for case in families.cases() if case.name == "qwen3_vl")


@functools.cache
def hf_model(size: str = "target") -> Qwen3VLForConditionalGeneration:
    """The oracles. The draft has what it can of the target's weights, so it often agrees."""
    if size == "target":
        return families.hf_model(case())
    model = Qwen3VLForConditionalGeneration(hf_config(size, False)).eval().float()
    own, known = model.state_dict(), hf_model().state_dict()
    model.load_state_dict({name: known[name] for name in own})
    return model


@functools.cache
def model(size: str = "target") -> VideoLM:
    """Ours."""
    if size == "target":
        return families.model(case())
    return families.convert(case(), hf_model(size))


def media(kind: str, grid: tuple[int, int, int], seed: int = 0) -> Media:
    """A video or image of noise."""
    rng = np.random.default_rng(seed)
    return Media(kind, rng.standard_normal((int(np.prod(grid)), PATCH_DIM), np.float32), grid, 1.0)


def prompt(*parts: int | Media) -> Row:
    """Token ids and media in order; every temporal unit of a video behind a "timestamp" of two
    tokens, between its own start and end tokens."""
    ids: list[int] = []
    for part in parts:
        if not isinstance(part, Media):
            ids.append(part)
            continue
        t, h, w = part.grid
        for unit in range(t):
            stamp = [100 + unit, 99] if part.kind == "video" else []
            token = VIDEO if part.kind == "video" else IMAGE
            ids += [*stamp, START, *[token] * (h // 2 * (w // 2)), END]
    return Row(np.array(ids, np.int32), tuple(p for p in parts if isinstance(p, Media)))


@functools.cache
def video_row() -> Row:
    """Three temporal units of 5 x 3 tokens."""
    return prompt(1, 2, media("video", (3, 10, 6)), 4, 5, 6, 7)


@functools.cache
def batch_rows() -> tuple[Row, ...]:
    """Unequal rows: a video; an image and a video; text; two videos and an image between."""
    return (
        video_row(),
        prompt(9, media("image", (1, 4, 8), 1), 8, media("video", (2, 6, 12), 2), 7),
        prompt(11, 12, 13, 14, 15),
        prompt(
            media("video", (2, 4, 4), 3),
            21,
            media("image", (1, 6, 2), 4),
            media("video", (3, 4, 2), 5),
            22,
            23,
        ),
    )


def inputs(rows: Sequence[Row], **keywords: object) -> ModelInputs:
    """Our batch."""
    return assemble(model(), rows, **keywords)


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
    names = {"video": ("pixel_values_videos", "video_grid_thw")}
    names["image"] = ("pixel_values", "image_grid_thw")
    for kind, (pixels, grids) in names.items():
        own = [item for item in everything if item.kind == kind]
        if own:
            mapping[pixels] = np.concatenate([item.pixels for item in own])
            mapping[grids] = np.array([item.grid for item in own])
    return {name: torch.from_numpy(array) for name, array in mapping.items()}


def scored(row: Row) -> list[tuple[int, tuple[int, int, int], np.ndarray]]:
    """All placeholders; text stands between the temporal units of a video."""
    slots = iter(np.flatnonzero(np.isin(row.ids, (IMAGE, VIDEO))))
    found, video = [], 0
    for item in row.media:
        t, h, w = item.grid[0], item.grid[1] // 2, item.grid[2] // 2
        columns = np.array([next(slots) for _ in range(t * h * w)])
        found.append((video if item.kind == "video" else -1, (t, h, w), columns))
        video += item.kind == "video"
    return found
