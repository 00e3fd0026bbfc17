"""What the target says to proposed tokens, so that the answer is its own.

Two couplings. *Gumbel* (arXiv 2408.07978; also greedy decoding): the target draws its own token at
every slot, with the noise that plain decoding would use there, and a candidate is accepted if it is
that token. The answer is then a function of target and key alone. *Maximal* (speculative sampling,
arXiv 2211.17192): a candidate x drawn from the draft's law q is accepted with probability
min(1, p(x) / q(x)), else the token comes from the positive part of p - q. The answer follows p
too, with other samples for one key.

p is what plain decoding draws from and is never touched. q only has to be the law that the
candidate was really drawn from, so the draft may be cut, padded or kept from tokens at will.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from hippo_jax.decoding.sampling import (
    MASKED,
    TARGET_ROLE,
    Sampler,
    Sampling,
    gumbel_noise,
    likeliest,
    process,
)

DRAFT_ROLE, ACCEPT_ROLE = 1, 2


def is_maximal(sampler: Sampler) -> bool:
    """Whether proposals are judged by rejection sampling."""
    return isinstance(sampler, Sampling) and sampler.coupling == "maximal"


def fit_vocabulary(logits: jax.Array, size: int) -> jax.Array:
    """The draft's logits ``[..., V']`` cut or padded (with -1e30) to the target's ``size``.

    Sizes of one family may round their vocabularies up differently (Qwen2.5-VL 3B to 151936, 7B to
    152064), so that one of the two has ids that no text uses."""
    if logits.shape[-1] >= size:
        return logits[..., :size]
    spare = [(0, 0)] * (logits.ndim - 1) + [(0, size - logits.shape[-1])]
    return jnp.pad(logits, spare, constant_values=MASKED)


def propose(
    logits: jax.Array,
    sampler: Sampler,
    seen: jax.Array | None,
    key: jax.Array | None,
    rows: jax.Array,
    positions: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """The draft's token: ``logits [B, V]`` (fitted) -> int32 ``[B]`` and the processed logits.

    Under Gumbel coupling it uses the target's noise of that position, so that both agree whenever
    their laws do; under maximal coupling its own.
    """
    law = process(logits, sampler, seen)
    scores = law
    if isinstance(sampler, Sampling):
        assert key is not None
        role = DRAFT_ROLE if is_maximal(sampler) else TARGET_ROLE
        scores = law + gumbel_noise(key, rows, positions, law.shape[-1], role)
    return likeliest(scores), law


def judge(
    logits: jax.Array,
    candidates: jax.Array,
    laws: jax.Array | None,
    sampler: Sampler,
    seen: jax.Array | None,
    key: jax.Array | None,
    positions: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """The target's token at each slot and whether it is the candidate.

    Args:
        logits: the target's, float32 ``[B, W, V]``; slot j stands behind j candidates.
        candidates: int32 ``[B, gamma]``, gamma <= W. A slot without one takes the target's draw.
        laws: the draft's processed logits for each candidate, ``[B, gamma, V]``; maximal coupling
            only.
        seen: bool ``[B, W, V]`` for a repetition penalty: what slot j's law counts as seen.
        positions: int32 ``[B, W]``, absolute position of the token that each slot draws.

    Returns ``choice`` int32 ``[B, W]`` and ``agree`` bool ``[B, W]`` (false without candidate).
    """
    batch, width, size = logits.shape
    gamma = candidates.shape[1]
    law = process(logits, sampler, seen)
    rows = jnp.broadcast_to(jnp.arange(batch)[:, None], (batch, width))
    extra = ((0, 0), (0, width - gamma))
    proposed = jnp.pad(candidates, extra, constant_values=-1)
    if not is_maximal(sampler):
        if isinstance(sampler, Sampling):
            assert key is not None
            law = law + gumbel_noise(key, rows, positions, size)
        choice = likeliest(law)
        return choice, choice == proposed

    assert key is not None and laws is not None
    p = jax.nn.softmax(law, axis=-1)
    q = jnp.pad(jax.nn.softmax(laws, axis=-1), (*extra, (0, 0)))
    token = jnp.maximum(proposed, 0)[..., None]
    p_token = jnp.take_along_axis(p, token, axis=-1)[..., 0]
    q_token = jnp.take_along_axis(q, token, axis=-1)[..., 0]
    uniform = _uniform(key, rows, positions)
    agree = (proposed >= 0) & (uniform * q_token < p_token)
    # What is left of p where q asked too often. Without candidate q is 0 and this is p itself; if
    # rounding leaves nothing (p = q), p stands in.
    rest = jnp.maximum(p - q, 0.0)
    rest = jnp.where(jnp.sum(rest, axis=-1, keepdims=True) > 0, rest, p)
    noise = gumbel_noise(key, rows, positions, size)
    scores = jnp.where(rest > 0, jnp.log(jnp.maximum(rest, 1e-38)) + noise, -jnp.inf)
    other = likeliest(scores)
    return jnp.where(agree, proposed, other), agree


def _uniform(key: jax.Array, rows: jax.Array, positions: jax.Array) -> jax.Array:
    """Numbers in [0, 1) for accepting, independent of the noise that tokens are drawn with."""

    def one(row: jax.Array, position: jax.Array) -> jax.Array:
        own = jax.random.fold_in(jax.random.fold_in(key, row), position)
        return jax.random.uniform(jax.random.fold_in(own, ACCEPT_ROLE), dtype=jnp.float32)

    return jax.vmap(one)(rows.reshape(-1), positions.reshape(-1)).reshape(rows.shape)
