"""Checks of samplers and of ``generate`` against transformers, for tests and for mutants."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
import torch
from transformers.generation.logits_process import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from hippo_jax.decoding.generate import generate
from hippo_jax.decoding.sampling import Greedy, Sampling, draw, gumbel_noise, process, seen_tokens
from hippo_jax.inputs.model_inputs import Row
from support import reference, tiny
from support.oracles import close


def check_greedy(case: str = "batch", penalty: float = 1.0, limit: int = 24) -> None:
    """Greedy tokens are those of transformers, token for token."""
    expected = reference.greedy(case, penalty, limit=limit)
    got = generate(
        tiny.model(),
        tiny.inputs(reference.CASES[case]()),
        max_new_tokens=limit,
        sampling=Greedy(repetition_penalty=penalty),
        eos_token_ids=(),
    )
    np.testing.assert_array_equal(got.lengths, limit)
    np.testing.assert_array_equal(np.asarray(got.tokens)[:, :limit], expected)


def check_penalty() -> None:
    """The penalty counts the prompt, divides positive and multiplies negative logits."""
    assert (reference.greedy("batch", 1.5) != reference.greedy("batch")).any()
    check_greedy(penalty=1.5)


def check_eos() -> None:
    """Several end tokens: each row stops at its own, one at once, while others go on."""
    plain = reference.greedy("batch")

    def stops(eos):
        return [
            next((i + 1 for i, token in enumerate(row) if token in eos), len(row)) for row in plain
        ]

    pairs = itertools.combinations(sorted({int(token) for token in plain.reshape(-1)}), 2)
    eos = next(pair for pair in pairs if {1, 24} < {*stops(pair)})
    lengths, expected = stops(eos), reference.greedy("batch", eos=eos)
    got = generate(
        tiny.model(), tiny.inputs(tiny.batch_rows()), max_new_tokens=24, eos_token_ids=eos
    )
    np.testing.assert_array_equal(got.lengths, lengths)
    np.testing.assert_array_equal(np.asarray(got.tokens)[:, : expected.shape[1]], expected)
    for row, length in zip(np.asarray(got.tokens), lengths, strict=True):
        assert (row[length:] == tiny.PAD).all()


def hf_processed(logits: np.ndarray, ids: np.ndarray, sampler: Sampling) -> np.ndarray:
    """The chain that ``generate`` of transformers builds, excluded tokens at -inf."""
    chain = LogitsProcessorList()
    if sampler.repetition_penalty != 1.0:
        chain.append(RepetitionPenaltyLogitsProcessor(sampler.repetition_penalty))
    if sampler.temperature != 1.0:
        chain.append(TemperatureLogitsWarper(sampler.temperature))
    if sampler.top_k:
        chain.append(TopKLogitsWarper(sampler.top_k))
    if sampler.top_p < 1.0:
        chain.append(TopPLogitsWarper(sampler.top_p))
    return chain(torch.tensor(ids.astype(np.int64)), torch.tensor(logits)).numpy()


def same_distribution(ours: jax.Array, theirs: np.ndarray) -> None:
    """Equal where kept, and the same tokens excluded."""
    ours = np.asarray(ours)
    kept = np.isfinite(theirs)
    np.testing.assert_array_equal(ours > -1e29, kept)
    close(np.where(kept, ours, 0), np.where(kept, theirs, 0), 1e-6)


def check_processors() -> None:
    """Processed logits, alone and combined, in the order of transformers."""
    rng = np.random.default_rng(0)
    logits = 3 * rng.standard_normal((3, 50)).astype(np.float32)
    ids = rng.integers(0, 50, (3, 12))
    seen = seen_tokens(jnp.asarray(ids), jnp.full(3, 12), 50)
    for sampler in (
        Sampling(temperature=0.3),
        Sampling(temperature=1.7, top_k=5),
        Sampling(top_k=1),
        Sampling(top_k=50),
        Sampling(top_k=80),
        Sampling(top_p=0.9),
        Sampling(top_p=0.01),
        Sampling(repetition_penalty=1.3),
        Sampling(temperature=0.7, top_k=20, top_p=0.8, repetition_penalty=1.05),
        Sampling(temperature=2.5, top_k=9, top_p=0.5, repetition_penalty=0.8),
    ):
        same_distribution(process(logits, sampler, seen), hf_processed(logits, ids, sampler))


def check_processor_ties() -> None:
    """Tokens that tie with the k-th stay; top-p stops exactly where its mass is reached."""
    tied = np.array([[1.0, 3.0, 2.0, 2.0, 2.0, 0.0]], np.float32)
    ids = np.zeros((1, 0), np.int64)
    for k in (1, 2, 3, 5):
        sampler = Sampling(top_k=k)
        same_distribution(process(tied, sampler, None), hf_processed(tied, ids, sampler))
    halves = np.log(np.array([[1 / 2, 1 / 4, 1 / 8, 1 / 8]], np.float32))
    for p, kept in ((0.5, 1), (0.51, 2), (0.75, 2), (0.76, 3), (0.9, 4), (1.0, 4)):
        sampler = Sampling(top_p=p)
        got = np.asarray(process(halves, sampler, None))
        assert (got > -1e29).sum() == kept, f"top_p {p} keeps {(got > -1e29).sum()}"
        theirs = hf_processed(halves, ids, sampler)
        np.testing.assert_array_equal(np.sort(got[got > -1e29]), np.sort(theirs[theirs > -1e29]))


def p_value(tokens: np.ndarray, probabilities: np.ndarray) -> float:
    """Chi-square of drawn tokens against their law; excluded tokens must not occur."""
    counts = np.bincount(tokens, minlength=len(probabilities))
    inside = probabilities > 0
    assert counts[~inside].sum() == 0, "an excluded token was drawn"
    expected = probabilities[inside] * counts.sum()
    statistic = ((counts[inside] - expected) ** 2 / expected).sum()
    return float(scipy.stats.chi2.sf(statistic, inside.sum() - 1))


def check_law() -> None:
    """120000 draws over positions, and as many over rows, follow the processed distribution."""
    count, sampler = 120_000, Sampling(temperature=0.8, top_k=7, top_p=0.95)
    logits = np.array([1.0, 0.2, -0.5, 2.0, 1.5, 0.0, -1.0, 1.1], np.float32)
    processed = hf_processed(logits[None], np.zeros((1, 0), np.int64), sampler)[0]
    probabilities = np.exp(processed.astype(np.float64))
    probabilities /= probabilities.sum()
    assert 0 < (probabilities == 0).sum() < 4

    @jax.jit
    def tokens(key, rows, positions):
        tiled = jnp.broadcast_to(logits, (count, len(logits)))
        return draw(tiled, sampler, None, key, rows, positions)

    steps, fixed = np.arange(count, dtype=np.int32), np.full(count, 3, np.int32)
    for key, rows, positions in ((0, fixed, steps), (1, steps, fixed)):
        drawn = np.asarray(tokens(jax.random.key(key), rows, positions))
        assert p_value(drawn, probabilities) > 1e-3


def check_noise_keys() -> None:
    """Key, row, position and role each change the noise; nothing else does."""
    key = jax.random.key(7)
    rows, positions = jnp.array([0, 1, 0, 1]), jnp.array([5, 5, 6, 6])
    noise = np.asarray(gumbel_noise(key, rows, positions, 16))
    parts = [
        *noise,
        np.asarray(gumbel_noise(key, rows[:1], positions[:1], 16, role=1))[0],
        np.asarray(gumbel_noise(jax.random.key(8), rows[:1], positions[:1], 16))[0],
    ]
    for i, one in enumerate(parts):
        for other in parts[:i]:
            assert (one != other).all()
    for i in range(4):
        alone = gumbel_noise(key, rows[i], positions[i], 16)
        np.testing.assert_array_equal(np.asarray(alone), noise[i])


def check_sampled_tokens() -> None:
    """``generate`` draws at each step what the logits of a pass without a cache and the noise of
    that row and position give. Its own greedy tokens are checked elsewhere, so this is about
    penalty, noise and positions only."""
    model, rows = tiny.model(), tiny.batch_rows()
    sampler = Sampling(temperature=0.9, top_k=30, top_p=0.95, repetition_penalty=1.2)
    key, limit = jax.random.key(4), 6
    got = generate(
        model,
        tiny.inputs(rows),
        max_new_tokens=limit,
        sampling=sampler,
        key=key,
        eos_token_ids=(),
    )
    tokens = np.asarray(got.tokens)[:, :limit]
    assert not np.isin(tokens, (tiny.IMAGE, tiny.VIDEO)).any(), "choose another key"
    longer = [
        Row(np.concatenate([row.ids, new]).astype(np.int32), row.media)
        for row, new in zip(rows, tokens, strict=True)
    ]
    lengths = np.array([len(row.ids) for row in rows])
    columns = lengths[:, None] - 1 + np.arange(limit)
    logits = np.asarray(model(tiny.inputs(longer), positions=columns))
    for b, row in enumerate(longer):
        for step in range(limit):
            at = lengths[b] + step
            processed = hf_processed(logits[b, step][None], row.ids[None, :at], sampler)[0]
            own = key
            for part in (b, int(at), 0):
                own = jax.random.fold_in(own, part)
            noise = np.asarray(jax.random.gumbel(own, (tiny.VOCAB,), jnp.float32))
            assert tokens[b, step] == np.argmax(processed + noise), f"row {b}, step {step}"
