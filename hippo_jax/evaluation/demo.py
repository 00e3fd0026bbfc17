"""The benchmark ``demo``: drawn clips that the embedded pair was not trained on."""

from __future__ import annotations

from pathlib import Path

from hippo_jax.evaluation.samples import Sample
from hippo_jax.training.codec import write_clip
from hippo_jax.training.domain import HELD_OUT, sample_scene
from hippo_jax.training.language import PROMPTS
from hippo_jax.training.render import render

SEED = 6060  # of the clips, none of which the model card's figures are made of
COUNT = 24


def draw_demo(folder: Path, count: int = COUNT) -> list[Sample]:
    """``count`` clips of 2 seconds, drawn where they are missing, with the pair's prompts in turn.

    Returns:
        Captions: the embedded pair answers no multiple-choice questions.
    """
    folder.mkdir(parents=True, exist_ok=True)
    samples = []
    for index in range(count):
        file = folder / f"{index:04d}.mp4"
        if not file.exists():
            write_clip(file, render(sample_scene(SEED, index, HELD_OUT))[0])
        samples.append(Sample(f"{index:04d}", str(file), PROMPTS[index % len(PROMPTS)]))
    return samples
