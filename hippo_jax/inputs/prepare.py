"""``prepare_inputs``: videos and prompts to ``ModelInputs``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hippo_jax.errors import HippoError
from hippo_jax.inputs.chat import encode_row, load_tokenizer
from hippo_jax.inputs.media import encode_media
from hippo_jax.inputs.model_inputs import Media, ModelInputs, Row, assemble
from hippo_jax.inputs.protocol import Processor
from hippo_jax.inputs.video import IMAGE_SUFFIXES, read_image, read_video


def target_and_draft(model_or_pair: Any) -> tuple[Any, Any | None]:
    """The model that decides, and the draft of a pair or ``None``."""
    target = getattr(model_or_pair, "target", None)
    return (model_or_pair, None) if target is None else (target, model_or_pair.draft)


def prepare_inputs(
    model_or_pair: Any,
    video: Any,
    prompt: Any,
    *,
    fps: float | None = None,
    num_frames: int | None = None,
    start: float | None = None,
    end: float | None = None,
    max_pixels: int | None = None,
) -> ModelInputs:
    """Decode, sample, resize and cut the videos; apply the chat template; build index arrays.

    Args:
        model_or_pair: whose processor, tokenizer and chat template are used (a pair's target).
        video: a file, a folder of frames, a ``Video``, an image file, or ``None`` (text only). A
            list is a batch, one entry a row; an entry that is itself a list holds several videos
            and images of one prompt, in its order.
        prompt: a str, or chat messages (a list of dicts with ``role`` and ``content``). A list of
            these is a batch. A single prompt or video serves every row of the other's batch.
        fps: sampling rate in frames a second; default: the checkpoint's. Not with ``num_frames``.
        num_frames: frames a video instead, spread evenly.
        start, end: part of the video in seconds.
        max_pixels: upper bound of a frame's area, instead of the checkpoint's.

    Raises:
        HippoError: anything that cannot be read or does not fit, in one line.
    """
    model, draft = target_and_draft(model_or_pair)
    sampling = {"fps": fps, "num_frames": num_frames, "start": start, "end": end}
    rows = prepare_rows(model, video, prompt, max_pixels=max_pixels, **sampling)
    return assemble(model, rows, draft=draft)


def prepare_rows(
    model: Any, video: Any, prompt: Any, *, max_pixels: int | None = None, **sampling: Any
) -> list[Row]:
    """The first part of ``prepare_inputs``, which decodes: the rows that ``assemble`` makes a batch
    of. Arguments and errors are its own; ``model`` is one model, of a pair its target."""
    if model.source is None:
        raise HippoError(
            "this model was made without files, so it has no processor; use ModelInputs.from_hf"
        )
    processor: Processor = model.family.processor(model.source)
    processor.check_config(model.config)
    if max_pixels is not None:
        processor = processor.with_max_pixels(max_pixels)
    tokenizer = load_tokenizer(model.source)
    videos, prompts = _rows(video, prompt)
    if any(isinstance(text, str) and not text.strip() for text in prompts):
        raise HippoError("a prompt is empty; ask something, for example 'Describe the video.'")
    if any(isinstance(item, str) and not item for items in videos for item in items):
        raise HippoError("the path of a video is empty; give a file or a folder, or None")
    read: dict[int, Media] = {}  # a video that serves many rows is decoded once

    def encoded(item: Any) -> Media:
        if id(item) not in read:
            read[id(item)] = encode_media(_load(item, processor, sampling), processor)
        return read[id(item)]

    return [
        encode_row(tokenizer, model.config, processor, [encoded(v) for v in items], text)
        for items, text in zip(videos, prompts, strict=True)
    ]


def _load(item: Any, processor: Processor, sampling: Mapping[str, Any]) -> Any:
    """An image uint8 [H, W, 3] or a sampled ``Video``."""
    if isinstance(item, Media):
        return item
    if isinstance(item, str | os.PathLike) and Path(item).suffix.lower() in IMAGE_SUFFIXES:
        return read_image(item)
    if isinstance(item, np.ndarray) and item.ndim == 3:
        return read_image(item)
    return read_video(item, **sampling, limits=processor, resize=True)


def _is_messages(prompt: Any) -> bool:
    return isinstance(prompt, Sequence) and bool(prompt) and isinstance(prompt[0], Mapping)


def _rows(video: Any, prompt: Any) -> tuple[list[list[Any]], list[Any]]:
    """The videos and the prompt of each row."""
    many_prompts = not isinstance(prompt, str) and not _is_messages(prompt)
    if many_prompts and not isinstance(prompt, Sequence):
        raise HippoError(
            f"a prompt is a str or a list of chat messages, not {type(prompt).__name__}"
        )
    many_videos = isinstance(video, list | tuple)
    prompts = list(prompt) if many_prompts else [prompt]
    videos = list(video) if many_videos else [video]
    if not prompts or not videos:
        raise HippoError("no rows given; give at least one prompt and one video (or None)")
    if not many_prompts:
        prompts = prompts * len(videos)
    if not many_videos:
        videos = videos * len(prompts)
    if len(prompts) != len(videos):
        raise HippoError(
            f"{len(videos)} rows of videos but {len(prompts)} prompts; give one of each a row "
            "(several videos of one prompt go into a nested list)"
        )
    nested = [list(v) if isinstance(v, list | tuple) else [] if v is None else [v] for v in videos]
    return nested, prompts


def rows_from_hf(model: Any, mapping: Mapping[str, Any]) -> tuple[list[Row], list[int], int]:
    """Rows, left padding and width from an HF processor's arrays, under its own keys."""
    if not isinstance(mapping, Mapping):
        raise HippoError(f"from_hf takes a processor's mapping, got {type(mapping).__name__}")
    try:
        arrays = {key: np.asarray(value) for key, value in mapping.items() if value is not None}
    except (TypeError, ValueError, RuntimeError) as error:
        raise HippoError(f"the mapping holds what is no array: {error}") from error
    if "input_ids" not in arrays or arrays["input_ids"].ndim != 2:
        raise HippoError("the mapping needs input_ids of shape [batch, tokens]")
    ids = arrays["input_ids"]
    if ids.dtype.kind not in "iu":
        raise HippoError(f"input_ids must be whole numbers, got {ids.dtype}")
    known = model.config.text.vocab_size
    if ids.size == 0 or ids.min() < 0 or ids.max() >= known:
        raise HippoError(f"input_ids must be at least one token a row, each from 0 to {known - 1}")
    mask = arrays.get("attention_mask", np.ones_like(ids)).astype(bool)
    if mask.shape != ids.shape:
        raise HippoError(f"attention_mask {mask.shape} and input_ids {ids.shape} differ in shape")
    own, padding = [], []
    for row, valid in zip(ids, mask, strict=True):
        columns = np.flatnonzero(valid)
        if not len(columns):
            raise HippoError("a row of attention_mask is empty")
        if not valid[columns[0] : columns[-1] + 1].all():
            raise HippoError("attention_mask has a hole; padding may stand only at the ends")
        own.append(row[columns].astype(np.int32))
        padding.append(int(columns[0]))
    media = model.family.media_from_hf(model.config, own, arrays)
    rows = [Row(row, tuple(items)) for row, items in zip(own, media, strict=True)]
    return rows, padding, ids.shape[1]
