"""A tiny random pair as replicas, and prompts for it."""

import numpy as np

from hippo_jax.decoding.config import HippoConfig
from hippo_jax.evaluation.replicas import Replicas
from hippo_jax.inputs.model_inputs import Row
from hippo_jax.placement.pair import ModelPair
from support import pairs

NEW_TOKENS = 12


def tiny_replicas(count: int = 1, batch: int = 1) -> Replicas:
    """A target and a draft that often agree."""
    weights = pairs.weights(1)
    pair = ModelPair(pairs.build(weights), pairs.build(pairs.noisy(weights, 0.1, 2)))
    return Replicas(pair, count, batch, NEW_TOKENS, HippoConfig(gamma=3, keep_ratio=0.5))


def prompt(seed: int, frames: int = 2) -> Row:
    """A prompt of random text and pixels."""
    return pairs._row(np.random.default_rng(seed), frames)
