"""Training batches as plain numpy arrays, made ahead of time in a second process.

A batch is a pure function of its step, so a resumed run sees exactly the data it would have seen.
Nothing here imports jax: the worker process stays small.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from hippo_jax.training import language
from hippo_jax.training.codec import imitate_codec
from hippo_jax.training.domain import (
    FRAMES,
    SIZE,
    TRAIN,
    Scene,
    sample_crowded_scene,
    sample_scene,
)
from hippo_jax.training.render import GROUPS, SIDE, TokenLabels, render

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PATCH, MERGE = 14, 2
GRID = (GROUPS, SIZE // PATCH, SIZE // PATCH)
VISUAL_TOKENS = GROUPS * SIDE * SIDE
CODEC_SHARE = 0.5  # of the clips look as if they had been through a video file

Arrays = dict[str, np.ndarray]


@cache
def tokenizer() -> Tokenizer:
    """The tokenizer, trained once a process."""
    from hippo_jax.training.tokenizer import train_tokenizer

    return train_tokenizer()


@cache
def token_ids(text: str) -> tuple[int, ...]:
    """Ids of a text (control tokens included)."""
    return tuple(tokenizer().encode(text, add_special_tokens=False).ids)


def patches_uint8(frames: np.ndarray) -> np.ndarray:
    """Frames `[8, 252, 252, 3]` to patches `[1296, 1176]`, 2 x 2 blocks contiguous.

    The order of `inputs.patches.patchify`, before normalisation: columns are channel, time, y, x.
    """
    blocks = SIZE // PATCH // MERGE
    view = frames.reshape(FRAMES // 2, 2, blocks, MERGE, PATCH, blocks, MERGE, PATCH, 3)
    return view.transpose(0, 2, 5, 3, 6, 8, 1, 4, 7).reshape(-1, 3 * 2 * PATCH * PATCH)


def clip_arrays(scene: Scene) -> tuple[np.ndarray, TokenLabels]:
    """Patches uint8 and labels of a scene; half of the scenes pass the codec's imitation."""
    frames, labels = render(scene)
    rng = np.random.default_rng([*scene.pixel_key, 7])
    if rng.random() < CODEC_SHARE:
        frames = imitate_codec(frames, rng)
    return patches_uint8(frames), labels


def _dense_labels(labels: list[TokenLabels]) -> Arrays:
    names = ("colour", "shape", "motion", "event")
    return {name: np.stack([getattr(one, name).reshape(-1) for one in labels]) for name in names}


def crowded_batch(seed: int, step: int, size: int) -> Arrays:
    """Clips full of objects with dense labels, for the vision towers."""
    scenes = [sample_crowded_scene(seed, step * size + i) for i in range(size)]
    patches, labels = zip(*[clip_arrays(scene) for scene in scenes], strict=True)
    return {
        "patches": np.stack(patches),
        **_dense_labels(list(labels)),
        "pattern": np.array([scene.pattern for scene in scenes], np.int32),
        "tone": np.array([scene.tone for scene in scenes], np.int32),
    }


@dataclass(frozen=True)
class Packing:
    """How much text stands behind one clip, as one row of `length` tokens."""

    length: int = 160
    captions: int = 2
    questions: int = 3


def text_row(scene: Scene, rng: np.random.Generator, packing: Packing) -> Arrays:
    """Captions in different phrasings and questions, each a segment of its own.

    `ids [T]`, `offsets [T]` (place within the segment), `segments [T]` (-1: padding), `targets
    [T]` (the next id, -1 where nothing is to be learnt) and `content [T]` (is the target one?).
    """
    styles = rng.permutation(len(language.PROMPTS))[: packing.captions]
    dialogues = [language.caption(scene, int(style)) for style in styles]
    dialogues += language.questions(scene, rng, packing.questions)
    row = {name: np.full(packing.length, -1, np.int32) for name in ("segments", "targets")} | {
        name: np.zeros(packing.length, np.int32) for name in ("ids", "offsets", "content")
    }
    start = 0
    for segment, dialogue in enumerate(dialogues):
        ids, content = dialogue_ids(dialogue)
        prompt = len(prompt_ids(dialogue.prompt))
        stop = start + len(ids) - 1  # the last id is only a target
        if stop > packing.length:
            continue
        place = slice(start, stop)
        row["ids"][place] = ids[:-1]
        row["offsets"][place] = np.arange(len(ids) - 1)
        row["segments"][place] = segment
        row["targets"][start + prompt - 1 : stop] = ids[prompt:]
        row["content"][start + prompt - 1 : stop] = content
        start = stop
    return row


@cache
def prefix_ids() -> tuple[int, ...]:
    """What stands before the visual tokens."""
    return token_ids("<|im_start|>user\n<|vision_start|>")


@cache
def prompt_ids(prompt: str) -> tuple[int, ...]:
    """What stands between the visual tokens and the answer, the closing vision token included."""
    return token_ids(f"<|vision_end|>{prompt}<|im_end|>\n<|im_start|>assistant\n")


def dialogue_ids(dialogue: language.Dialogue) -> tuple[list[int], list[bool]]:
    """All ids behind the visual tokens, and which ids of the answer are content words."""
    ids, content = list(prompt_ids(dialogue.prompt)), []
    for text, attribute in dialogue.pieces:
        piece = token_ids(text)
        ids += piece
        content += [attribute is not None] * len(piece)
    end = token_ids("<|im_end|>")
    return [*ids, *end], [*content, False]


def language_batch(
    seed: int, step: int, size: int, packing: Packing = Packing(), split: int = TRAIN
) -> Arrays:
    """Clips, their packed texts and dense labels."""
    patches, labels, rows = [], [], []
    for i in range(step * size, (step + 1) * size):
        scene = sample_scene(seed, i, split)
        patch, label = clip_arrays(scene)
        patches.append(patch)
        labels.append(label)
        rows.append(text_row(scene, np.random.default_rng([split, seed, i, 8]), packing))
    packed = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    return {"patches": np.stack(patches), **_dense_labels(labels), **packed}


@dataclass(frozen=True)
class Visibility:
    """Which visual tokens a step works with.

    Attributes:
        subset: up to step `switch` only this many tokens of a clip (all object tokens, and random
            others), which nearly halves the cost of a step; afterwards all of them.
        all_share: how often the draft sees everything that the step works with.
    """

    switch: int = 0
    subset: int = 112
    all_share: float = 0.35


def joint_batch(
    seed: int,
    step: int,
    size: int,
    packing: Packing = Packing(),
    visibility: Visibility = Visibility(),
) -> Arrays:
    """A language batch with `chosen [B, N]` (indices of the visual tokens used) and `keep [B, N]`
    (which of those the draft sees)."""
    batch = language_batch(seed, step, size, packing)
    rng = np.random.default_rng([seed, step, 9])
    objects = batch["colour"] >= 0
    count = visibility.subset if step < visibility.switch else VISUAL_TOKENS
    order = np.argsort(rng.random(objects.shape) - objects, axis=1, kind="stable")
    chosen = np.sort(order[:, :count], axis=1).astype(np.int32)
    keep = np.ones((size, count), bool)
    for row in range(size):
        if rng.random() < visibility.all_share:
            continue
        ratio = np.exp(rng.uniform(np.log(0.05), 0))
        wanted = rng.random(count)
        if rng.random() < 0.5:
            wanted += 0.7 * objects[row, chosen[row]]
        keep[row] = wanted >= np.sort(wanted)[-max(1, int(np.ceil(ratio * count)))]
    return {**batch, "chosen": chosen, "keep": keep}


def prefetch(
    make: Callable[..., Arrays], first: int, last: int, **options: object
) -> Iterator[Arrays]:
    """`make(step=..., **options)` for the steps `first .. last - 1`, a few steps ahead."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1, initializer=_be_nice) as pool:
        ahead = [
            pool.apply_async(make, kwds={"step": step, **options})
            for step in range(first, min(first + 4, last))
        ]
        for step in range(first, last):
            batch = ahead.pop(0).get()
            if step + 4 < last:
                ahead.append(pool.apply_async(make, kwds={"step": step + 4, **options}))
            yield batch


def _be_nice() -> None:
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
