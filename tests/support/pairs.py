"""Tiny random pairs and prompts of fixed shapes, so that few programs serve thousands of cases.

Weights, prompts, pixels, limits and keys are data. What is compiled for is a ``Shape``.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hippo_jax.architectures.config import DecoderConfig, VideoLMConfig
from hippo_jax.architectures.parameters import declared, with_values
from hippo_jax.architectures.qwen2_5_vl.config import FAMILY, VisionConfig
from hippo_jax.architectures.video_lm import VideoLM, abstract_model
from hippo_jax.decoding.config import HippoConfig
from hippo_jax.decoding.sampling import Greedy, Sampler
from hippo_jax.inputs.model_inputs import Media, ModelInputs, Row, assemble

VOCAB = 32
IMAGE, VIDEO, START, END, PAD = 28, 29, 30, 31, 0
WIDTH = 32  # columns of every prompt, padding included
FRAME = (4, 4)  # patches of a frame: four visual tokens


def config(vocab_size: int = VOCAB, hidden: int = 32) -> VideoLMConfig:
    """Two decoder layers behind one layer of vision."""
    return VideoLMConfig(
        family=FAMILY,
        text=DecoderConfig(
            vocab_size=vocab_size,
            hidden_size=hidden,
            num_layers=2,
            num_heads=2,
            num_kv_heads=1,
            head_dim=8,
            intermediate_size=24,
            mrope_section=(2, 1, 1),
            rope_theta=100.0,
            max_positions=512,
        ),
        vision=VisionConfig(
            depth=1,
            hidden_size=16,
            num_heads=2,
            intermediate_size=16,
            out_hidden_size=hidden,
            patch_size=2,
            in_channels=1,
            full_attention_layers=(0,),
        ),
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        vision_start_token_id=START,
        vision_end_token_id=END,
        tokens_per_second=2.0,
        pad_token_id=PAD,
    )


@functools.cache
def _abstract(which: VideoLMConfig) -> tuple[VideoLM, dict[str, tuple[int, ...]]]:
    model = abstract_model(which)
    return model, {path: item.shape for path, item in declared(model).items()}


def weights(seed: int, which: VideoLMConfig | None = None) -> dict[str, np.ndarray]:
    """Loud random weights: attention far from uniform, every bias and norm counts."""
    rng = np.random.default_rng(seed)
    found = {}
    for path, shape in sorted(_abstract(which or config())[1].items()):
        noise = rng.standard_normal(shape).astype(np.float32)
        if len(shape) == 1:
            centre = 1.0 if path.endswith("norm.weight") else 0.0
            found[path] = centre + 0.2 * noise
        else:
            found[path] = noise * np.float32(2.0 / np.sqrt(shape[0]))
    return found


def build(values: dict[str, np.ndarray], which: VideoLMConfig | None = None) -> VideoLM:
    """A model with these weights."""
    return with_values(_abstract(which or config())[0], values)


def noisy(
    values: dict[str, np.ndarray], amount: float, seed: int, which: VideoLMConfig | None = None
) -> dict[str, np.ndarray]:
    """A copy that agrees less, the larger ``amount`` is."""
    other = weights(seed, which)
    share = np.float32(amount)
    return {path: (1 - share) * x + share * other[path] for path, x in values.items()}


def prompts(rng: np.random.Generator, batch: int) -> ModelInputs:
    """Unequal rows with ``2 * batch`` frames among them: none, one or two videos a row."""
    frames = np.zeros(batch, int)
    for _ in range(2 * batch):
        frames[rng.choice(np.flatnonzero(frames < 4))] += 1
    rows = [_row(rng, int(count)) for count in frames]
    return assemble(build_cached(), rows)


@functools.cache
def build_cached() -> VideoLM:
    """Whose config the prompts are made for."""
    return build(weights(0))


def _row(rng: np.random.Generator, frames: int) -> Row:
    parts = [frames] if frames < 2 or rng.random() < 0.5 else [1, frames - 1]
    parts = [part for part in parts if part]
    room = WIDTH - sum(4 * part + 2 for part in parts)
    text = [rng.integers(1, IMAGE, rng.integers(1, max(2, room // 3))) for _ in range(2)]
    ids, media = list(text[0]), []
    for part in parts:
        ids += [START, *[VIDEO] * (4 * part), END]
        pixels = rng.standard_normal((part * 16, 8)).astype(np.float32)
        media.append(Media("video", pixels, (part, *FRAME), 0.5))
    return Row(np.array([*ids, *text[1]], np.int32), media)


@dataclass(frozen=True)
class Shape:
    """What a program is compiled for."""

    schedule: str
    gamma: int
    batch: int
    keep_ratio: float
    eos: tuple[int, ...] = ()
    sampler: Sampler = field(default_factory=Greedy)
    capacity: int = 24
    keywords: tuple[tuple[str, Any], ...] = ()

    @property
    def config(self) -> HippoConfig:
        """Of the call."""
        return HippoConfig(
            gamma=self.gamma,
            keep_ratio=self.keep_ratio,
            schedule=self.schedule,
            **dict(self.keywords),
        )


def device(inputs: ModelInputs) -> ModelInputs:
    """On the device, so that a call's time is not spent on copies."""
    return jax.tree.map(jnp.asarray, inputs)
