"""Checks of rejection sampling: the joint law of three tokens against the exact one."""

import itertools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from hippo_jax.decoding.config import HippoConfig
from hippo_jax.decoding.sampling import Sampling, process
from hippo_jax.inputs import model_inputs
from hippo_jax.inputs.model_inputs import Row, assemble
from hippo_jax.placement.pair import ModelPair
from hippo_jax.scheduling.hippo import hippo_generate
from support import pairs

LAW_VOCAB = 8
LAW_ROWS = 20_000


def law_pair(seed: int) -> ModelPair:
    """Two unlike models over 8 ids."""
    which = pairs.config(vocab_size=LAW_VOCAB)
    own = pairs.weights(seed, which)
    other = pairs.noisy(own, 0.3, seed + 1, which)
    return ModelPair(pairs.build(own, which), pairs.build(other, which))


def joint_law(target, ids: np.ndarray, sampler: Sampling) -> np.ndarray:
    """The exact law of the next three tokens, float64 ``[8, 8, 8]``."""
    law = np.ones((LAW_VOCAB,) * 3)
    for depth in range(3):
        prefixes = np.array(list(itertools.product(range(LAW_VOCAB), repeat=depth)), int)
        rows = [Row(np.concatenate([ids, p.astype(int)]).astype(np.int32)) for p in prefixes]
        logits = target(assemble(target, rows), last=True)[:, 0]
        seen = np.zeros(logits.shape, bool)
        for row in range(len(rows)):
            seen[row, rows[row].ids] = True
        processed = np.asarray(process(logits, sampler, jnp.asarray(seen)), np.float64)
        probabilities = np.exp(processed - processed.max(-1, keepdims=True))
        probabilities /= probabilities.sum(-1, keepdims=True)
        shape = (LAW_VOCAB,) * (depth + 1) + (1,) * (2 - depth)
        law = law * probabilities.reshape(shape)
    return law


def law_p_value(schedule: str, sampler: Sampling, samples: int = 200_000, gamma: int = 3) -> float:
    """Chi-square of ``samples`` answers of three tokens against the exact law."""
    pair, ids = law_pair(3), np.array([1, 2, 6, 3], np.int32)
    law = joint_law(pair.target, ids, sampler).reshape(-1)
    with mock.patch.object(model_inputs, "bucket", lambda size, minimum: size):
        inputs = pairs.device(assemble(pair.target, [Row(ids)] * LAW_ROWS))
    config = HippoConfig(gamma=gamma, schedule=schedule)
    counts = np.zeros(LAW_VOCAB**3)
    for turn in range(samples // LAW_ROWS):
        found = hippo_generate(
            pair,
            inputs,
            max_new_tokens=3,
            capacity=3,
            sampling=sampler,
            key=jax.random.key(turn),
            eos_token_ids=(),
            config=config,
        )
        index = np.asarray(found.tokens) @ np.array([LAW_VOCAB**2, LAW_VOCAB, 1])
        counts += np.bincount(index, minlength=len(law))
    assert 0.2 < found.stats.acceptance_rate < 0.9
    assert counts[law == 0].sum() == 0, "a token outside the law was drawn"
    rare = law * samples < 10
    observed = np.append(counts[~rare], counts[rare].sum())
    expected = np.append(law[~rare], law[rare].sum()) * samples
    statistic = ((observed - expected) ** 2 / np.maximum(expected, 1e-9)).sum()
    return float(scipy.stats.chi2.sf(statistic, len(observed) - 1))


MAXIMAL = Sampling(0.9, top_k=6, repetition_penalty=1.1, coupling="maximal")


def check_rejection_sequential() -> None:
    """Rejection sampling gives the target's law, with a bonus token."""
    assert law_p_value("sequential", MAXIMAL) > 1e-3


def check_rejection_parallel() -> None:
    """And across rounds of the state machine."""
    assert law_p_value("parallel", MAXIMAL) > 1e-3
