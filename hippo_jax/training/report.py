"""The figures of an exported pair, taken through the library's own front door.

Every held-out clip is encoded as H.264, read back by ``prepare_inputs`` and described by
``generate``; the draft is then judged on the target's own text.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hippo_jax.architectures.video_lm import VideoLM
from hippo_jax.decoding.generate import generate
from hippo_jax.inputs.prepare import prepare_inputs
from hippo_jax.training import language
from hippo_jax.training.batches import patches_uint8
from hippo_jax.training.codec import read_clip, write_clip
from hippo_jax.training.domain import CARD_SEED, HELD_OUT, Scene, sample_scene
from hippo_jax.training.evaluation import CHUNK, LONGEST, Clips, Judge, agreement, score_greedy
from hippo_jax.training.export import load_exported
from hippo_jax.training.recipe import skeletons
from hippo_jax.training.render import render
from hippo_jax.weights.load import load_model


def measure(directory: Path, count: int, seed: int) -> dict[str, Any]:
    """Captions of ``count`` held-out clips (the three prompts in turn) scored by attribute, and the
    draft's teacher-forced agreement with them, for the pair in ``directory``."""
    scenes = tuple(sample_scene(seed, i, HELD_OUT) for i in range(count))
    styles = tuple(i % len(language.PROMPTS) for i in range(count))
    with tempfile.TemporaryDirectory() as folder:
        files = write_clips(Path(folder), scenes)
        model = load_model(directory / "target", dtype="float32")
        texts = describe(model, files, [language.PROMPTS[style] for style in styles])
        clips = Clips(scenes, np.stack([patches_uint8(read_clip(f)) for f in files]), styles)
    score = score_greedy(clips, texts)
    draft = load_exported(directory)["draft"]
    agreed = agreement(Judge(skeletons()), draft, clips, texts)
    return {
        "clips": count,
        "seed": seed,
        "target": {
            "attributes_right": round(score.accuracy, 4),
            "captions_all_right": round(score.exact, 4),
            "by_attribute": {name: round(v, 4) for name, v in score.by_attribute().items()},
            "commonest_mistakes": [
                {"attribute": attribute, "truth": truth, "said": said, "times": times}
                for (attribute, truth, said), times in score.worst(8)
            ],
        },
        "draft_agreement": {
            "all_tokens": round(agreed.everything, 4),
            "content_words": round(agreed.content, 4),
            "random_tenth_of_tokens": round(agreed.tenth, 4),
            "no_video": round(agreed.no_video, 4),
        },
        "mean_caption_tokens": round(sum(len(t) + 1 for t in texts) / len(texts), 1),
    }


def write_clips(folder: Path, scenes: Sequence[Scene]) -> list[Path]:
    """One H.264 file a scene."""
    files = [folder / f"{index}.mp4" for index in range(len(scenes))]
    for file, scene in zip(files, scenes, strict=True):
        write_clip(file, render(scene)[0])
    return files


def card_clips(folder: Path, count: int) -> tuple[list[Path], list[str]]:
    """The first of the held-out clips behind the model card's figures, drawn into ``folder``, and
    what is asked about each: the prompts in turn."""
    files = write_clips(folder, [sample_scene(CARD_SEED, i, HELD_OUT) for i in range(count)])
    return files, [language.PROMPTS[i % len(language.PROMPTS)] for i in range(count)]


def describe(
    model: VideoLM, files: Sequence[Path], prompts: Sequence[str]
) -> list[tuple[int, ...]]:
    """Greedy token ids of each file's answer, without the end token."""
    texts: list[tuple[int, ...]] = []
    for start in range(0, len(files), CHUNK):
        chunk = list(range(start, min(start + CHUNK, len(files))))
        full = chunk + [chunk[-1]] * (CHUNK - len(chunk))  # one compiled size
        inputs = prepare_inputs(model, [files[i] for i in full], [prompts[i] for i in full])
        out = generate(model, inputs, max_new_tokens=LONGEST, capacity=LONGEST)
        tokens, lengths = np.asarray(out.tokens), np.asarray(out.lengths)
        for row in range(len(chunk)):
            ids = tokens[row, : lengths[row]].tolist()
            ended = ids and ids[-1] in model.config.eos_token_ids
            texts.append(tuple(ids[:-1] if ended else ids))
    return texts
