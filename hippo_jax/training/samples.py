"""The clips that are shipped with the pair: the first ones of a held-out seed, not chosen."""

from __future__ import annotations

from pathlib import Path

from hippo_jax.training.codec import write_clip
from hippo_jax.training.domain import HELD_OUT, Scene, sample_scene
from hippo_jax.training.render import render

SAMPLE_SEED = 2026


def sample_scenes(count: int = 3) -> dict[str, Scene]:
    """Scenes by the name of their clip."""
    return {f"shapes_{i + 1}": sample_scene(SAMPLE_SEED, i, HELD_OUT) for i in range(count)}


def write_samples(directory: Path) -> None:
    """Writes `shapes_1.mp4` and so on."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, scene in sample_scenes().items():
        write_clip(directory / f"{name}.mp4", render(scene)[0])
