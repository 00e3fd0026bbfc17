"""The arguments that every decoder takes, checked once, and the static part of a call."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hippo_jax.architectures.video_lm import VideoLM
from hippo_jax.decoding.sampling import Greedy, Sampler, Sampling
from hippo_jax.errors import HippoError
from hippo_jax.inputs.buckets import bucket
from hippo_jax.inputs.model_inputs import ModelInputs


@jax.tree_util.register_static
@dataclass(frozen=True)
class Settings:
    """Static part of a call: what a compiled program is specialised for."""

    capacity: int
    sampler: Sampler = field(default_factory=Greedy)
    eos: tuple[int, ...] = ()
    pad: int = 0


def make_settings(
    model: VideoLM,
    inputs: ModelInputs,
    max_new_tokens: Any,
    capacity: int | None,
    sampling: Sampler | None,
    key: jax.Array | None,
    eos_token_ids: tuple[int, ...] | None,
) -> tuple[Settings, Any]:
    """Check a call's arguments.

    Returns its static settings and the traced limit. Raises ``HippoError`` for what the user can
    mend.
    """
    sampler = Greedy() if sampling is None else sampling
    if not isinstance(sampler, (Greedy, Sampling)):
        raise HippoError(f"sampling must be Greedy() or Sampling(...), got {sampling!r}")
    if isinstance(sampler, Sampling) and key is None:
        raise HippoError("sampling needs a key: pass key=jax.random.key(seed)")
    if isinstance(sampler, Sampling):
        _check_key(key)
    eos = _eos_ids(model, eos_token_ids)
    if capacity is not None and (isinstance(capacity, bool) or not isinstance(capacity, int)):
        raise HippoError(f"capacity must be a whole number, got {capacity!r}")
    traced = isinstance(max_new_tokens, jax.core.Tracer)
    if not traced:
        wanted = _whole_number(max_new_tokens)
        if wanted < 1:
            raise HippoError(f"max_new_tokens must be at least 1, got {wanted}")
        if capacity is not None and wanted > capacity:
            raise HippoError(f"max_new_tokens {wanted} is above capacity {capacity}")
        if not isinstance(inputs.lengths, jax.core.Tracer):
            longest = int(np.max(np.asarray(inputs.lengths)))
            if longest + wanted > model.config.text.max_positions:
                raise HippoError(
                    f"{longest} prompt tokens and {wanted} new ones exceed the "
                    f"{model.config.text.max_positions} that the model allows; use fewer frames or "
                    "a smaller max_new_tokens"
                )
        capacity = capacity or bucket(wanted, 32)
    elif capacity is None:
        raise HippoError("max_new_tokens is traced, so give the static capacity=")
    elif not jnp.issubdtype(max_new_tokens.dtype, jnp.integer):
        raise HippoError(f"max_new_tokens must be a whole number, got {max_new_tokens.dtype}")
    if capacity is None or not 1 <= capacity <= model.config.text.max_positions:
        raise HippoError(
            f"capacity must be from 1 to the model's {model.config.text.max_positions} positions, "
            f"got {capacity}"
        )
    limit = jnp.minimum(max_new_tokens, capacity) if traced else np.int32(max_new_tokens)
    return Settings(capacity, sampler, eos, model.config.pad_token_id), limit


KEY_INSIDE: Any = object()
"""In place of a key: the caller makes it from a seed inside its own program."""


def _whole_number(max_new_tokens: Any) -> int:
    array = np.asarray(max_new_tokens)
    if array.ndim or array.dtype.kind not in "iu":
        raise HippoError(f"max_new_tokens must be one whole number, got {max_new_tokens!r}")
    return int(array)


def _eos_ids(model: VideoLM, given: Any) -> tuple[int, ...]:
    known = model.config.text.vocab_size
    if given is None:  # a checkpoint may name ids that its head does not have: never drawn
        return tuple(i for i in model.config.eos_token_ids if 0 <= i < known)
    ids = given
    if not isinstance(ids, (tuple, list)) or any(
        isinstance(i, bool) or not isinstance(i, (int, np.integer)) or not 0 <= i < known
        for i in ids
    ):
        raise HippoError(
            f"eos_token_ids must be a tuple of ids from 0 to {known - 1}, or () to never stop; "
            f"got {ids!r}"
        )
    return tuple(int(i) for i in ids)


def _check_key(key: Any) -> None:
    """Noise must not depend on batch mates, which only threefry keys promise under ``vmap``."""
    if key is KEY_INSIDE:
        return
    if not isinstance(key, (jax.Array, np.ndarray)):
        raise HippoError(f"key must be made by jax.random.key(seed), got {type(key).__name__}")
    if key.ndim != (0 if jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key) else 1):
        raise HippoError(f"key must be one key, got an array of shape {key.shape}")
    typed = jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key)
    kind = str(jax.random.key_impl(key if typed else jax.random.wrap_key_data(jnp.asarray(key))))
    if "threefry" not in kind:
        raise HippoError(
            f"keys of kind {kind} draw differently in batches; use "
            "jax.random.key(seed, impl='threefry2x32')"
        )
