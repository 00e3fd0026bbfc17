"""How the next token is drawn: greedy, or sampling as a fixed function of logits and noise.

Sampling adds Gumbel noise to the processed logits and takes the largest (the Gumbel-max trick, so
tokens follow the softmax exactly). The noise depends on the key, the row and the token's absolute
position alone. A decoder that proposes and verifies tokens can therefore redraw the very same
token (arXiv 2408.07978), whatever was proposed, and sampled output can be compared token by token.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp

from hippo_jax.errors import HippoError

Role = Literal[0, 1]
TARGET_ROLE: Role = 0
MASKED = -1e30
LONG, RUN = 4096, 128  # ids from which ``likeliest`` goes by runs, and ids of a run


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _check_penalty(penalty: float) -> None:
    if not (_is_number(penalty) and penalty > 0):
        raise HippoError(f"repetition_penalty must be a positive number, got {penalty!r}")


@jax.tree_util.register_static
@dataclass(frozen=True)
class Greedy:
    """Always the most likely token (the lowest id on a tie).

    Attributes:
        repetition_penalty: see ``penalise``; 1.0 (default) leaves logits alone.
    """

    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        _check_penalty(self.repetition_penalty)


@jax.tree_util.register_static
@dataclass(frozen=True)
class Sampling:
    """Random draws from the processed distribution.

    Attributes:
        temperature: divides the logits; above 0 (default 1.0).
        top_k: keep the k most likely tokens; 0 (default) keeps all.
        top_p: keep the smallest set of tokens whose probability reaches p; 1.0 (default) keeps all.
        repetition_penalty: see ``penalise``; 1.0 by default.
        coupling: ``"gumbel"`` (default): one key gives the same tokens from every decoder.
            ``"maximal"``: rejection sampling in speculative decoding; plain decoding draws alike
            under both.

    The order is that of Hugging Face: penalty, temperature, top-k, top-p.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    coupling: Literal["gumbel", "maximal"] = "gumbel"

    def __post_init__(self) -> None:
        _check_penalty(self.repetition_penalty)
        # Below this, divided logits come near the number that stands for an excluded token.
        if not (_is_number(self.temperature) and self.temperature >= 1e-20):
            raise HippoError(
                f"temperature must be above 0, got {self.temperature!r}; use Greedy() for the most "
                "likely tokens"
            )
        if isinstance(self.top_k, bool) or not isinstance(self.top_k, int) or self.top_k < 0:
            raise HippoError(f"top_k must be a whole number, 0 for all tokens, got {self.top_k!r}")
        if not (_is_number(self.top_p) and 0 < self.top_p <= 1):
            raise HippoError(f"top_p must be above 0 and at most 1, got {self.top_p!r}")
        if self.coupling not in ("gumbel", "maximal"):
            raise HippoError(f"coupling must be 'gumbel' or 'maximal', got {self.coupling!r}")

    @classmethod
    def from_model(cls, model: Any) -> Sampling | Greedy:
        """The checkpoint's own settings, from its ``generation_config.json``.

        Returns ``Greedy`` where the file says ``do_sample: false`` or there is no file. What the
        file leaves out is as in Hugging Face, where a missing ``top_k`` means 50.
        """
        path = Path(model.source or "") / "generation_config.json"
        if not model.source or not path.is_file():
            return Greedy()
        try:
            found = {k: v for k, v in json.loads(path.read_bytes()).items() if v is not None}
            penalty = float(found.get("repetition_penalty", 1.0))
            if not found.get("do_sample", False):
                return Greedy(repetition_penalty=penalty)
            return cls(
                temperature=float(found.get("temperature", 1.0)),
                top_k=int(found.get("top_k", 50)),
                top_p=float(found.get("top_p", 1.0)),
                repetition_penalty=penalty,
            )
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise HippoError(f"{path} cannot be used: {error}") from error


Sampler = Greedy | Sampling


def seen_tokens(token_ids: jax.Array, lengths: jax.Array, vocab_size: int) -> jax.Array:
    """Which ids stand in each row's first ``lengths`` columns: ``[B, T] -> bool [B, V]``."""
    valid = jnp.arange(token_ids.shape[1]) < lengths[:, None]
    rows = jnp.arange(token_ids.shape[0])[:, None]
    empty = jnp.zeros((token_ids.shape[0], vocab_size), bool)
    return empty.at[rows, token_ids].max(valid)


def penalise(logits: jax.Array, seen: jax.Array, penalty: float) -> jax.Array:
    """Repetition penalty (arXiv 1909.05858): seen ids' positive logits are divided by it, negative
    ones multiplied. The prompt counts as seen, as in Hugging Face. ``logits, seen [..., V]``."""
    punished = jnp.where(logits > 0, logits / penalty, logits * penalty)
    return jnp.where(seen, punished, logits)


def process(logits: jax.Array, sampler: Sampler, seen: jax.Array | None) -> jax.Array:
    """Logits of the distribution that ``sampler`` draws from, float32 ``[..., V]``.

    ``seen`` (bool ``[..., V]``) is needed only for a repetition penalty. Excluded tokens get
    -1e30. As in Hugging Face, tokens that tie with the k-th are kept.
    """
    if sampler.repetition_penalty != 1.0 and seen is not None:
        logits = penalise(logits, seen, sampler.repetition_penalty)
    if isinstance(sampler, Greedy):
        return logits
    logits = logits / sampler.temperature
    size = logits.shape[-1]
    if 0 < sampler.top_k < size:
        smallest = jax.lax.top_k(logits, sampler.top_k)[0][..., -1:]
        logits = jnp.where(logits < smallest, MASKED, logits)
    if sampler.top_p < 1.0:
        # Ascending, stable: a token goes if it and all less likely ones together hold <= 1 - p.
        order = jnp.argsort(logits, axis=-1, stable=True)
        ranked = jnp.take_along_axis(logits, order, axis=-1)
        below = jnp.cumsum(jax.nn.softmax(ranked, axis=-1), axis=-1)
        gone = (below <= 1.0 - sampler.top_p) & (jnp.arange(size) < size - 1)
        rank = jnp.argsort(order, axis=-1)
        logits = jnp.where(jnp.take_along_axis(gone, rank, axis=-1), MASKED, logits)
    return logits


def gumbel_noise(
    key: jax.Array, rows: jax.Array, positions: jax.Array, vocab_size: int, role: int = TARGET_ROLE
) -> jax.Array:
    """Noise of each token to be drawn: ``rows, positions`` int32 ``[...]`` -> ``[..., V]``.

    ``positions`` count a row's own tokens (prompt and generated), not bucket slots.
    """

    def one(row: jax.Array, position: jax.Array) -> jax.Array:
        own = jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(key, row), position), role)
        return jax.random.gumbel(own, (vocab_size,), jnp.float32)

    flat = jax.vmap(one)(rows.reshape(-1), positions.reshape(-1))
    return flat.reshape(*rows.shape, vocab_size)


def likeliest(scores: jax.Array) -> jax.Array:
    """Id of the largest score, the lowest of those that tie: ``[..., V]`` -> int32 ``[...]``.

    As ``jnp.argmax``, whose pairs of values and indices XLA's CPU compiler does not vectorise. Over
    many ids the largest score of each run of them is found first, a plain reduction, then the
    largest run, then the id in it. Never by a search for the largest value: a program may compute a
    score twice, and otherwise rounded.
    """
    size = scores.shape[-1]
    width = math.gcd(size, RUN)
    if size < LONG or width < RUN // 4:
        return jnp.argmax(scores, axis=-1).astype(jnp.int32)
    runs = scores.reshape(*scores.shape[:-1], size // width, width)
    first = jnp.argmax(jnp.max(runs, axis=-1), axis=-1)
    chosen = jnp.take_along_axis(runs, first[..., None, None], axis=-2)[..., 0, :]
    return (first * width + jnp.argmax(chosen, axis=-1)).astype(jnp.int32)


def draw(
    logits: jax.Array,
    sampler: Sampler,
    seen: jax.Array | None,
    key: jax.Array | None,
    rows: jax.Array,
    positions: jax.Array,
) -> jax.Array:
    """The next token: ``logits [..., V]`` -> int32 ``[...]``.

    ``rows`` and ``positions`` (int32 ``[...]``) key the noise of each draw.
    """
    logits = process(logits, sampler, seen)
    if isinstance(sampler, Sampling):
        assert key is not None
        logits = logits + gumbel_noise(key, rows, positions, logits.shape[-1])
    return likeliest(logits)
