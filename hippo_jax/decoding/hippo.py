"""``hippo_generate``: HIPPO decoding as one compiled program."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from hippo_jax.architectures.video_lm import VideoLM
from hippo_jax.decoding.arguments import make_settings
from hippo_jax.decoding.config import DEFAULT_GAMMA, HippoConfig
from hippo_jax.decoding.generate import Generation, generate
from hippo_jax.decoding.sampling import Sampler
from hippo_jax.decoding.speculation import Plan, advance, finish, start
from hippo_jax.errors import HippoError
from hippo_jax.inputs.compatibility import check_configs
from hippo_jax.inputs.model_inputs import ModelInputs

ALL_ROUNDS = 2**30


def hippo_generate(
    pair: Any,
    inputs: ModelInputs,
    *,
    max_new_tokens: Any = 128,
    capacity: int | None = None,
    sampling: Sampler | None = None,
    key: jax.Array | None = None,
    eos_token_ids: tuple[int, ...] | None = None,
    config: HippoConfig | None = None,
) -> Generation:
    """Decode with a target and its draft (HIPPO, arXiv 2601.08273).

    The text is the target's own: greedy tokens, and tokens sampled with Gumbel coupling, are those
    of ``generate(pair.target, ...)`` with the same arguments; with maximal coupling they follow the
    same law. (A pass over several tokens may round otherwise than a pass over one: where two tokens
    tie within rounding, mostly in bfloat16 or with TF32 matmuls, the texts may part.) Pure: usable
    under ``jax.jit``, ``jax.pmap`` and ``jax.shard_map(check_vma=False)``; compiled by itself
    outside of them.

    Args:
        pair: a ``ModelPair``. Without a draft the target decodes alone, and a warning says so.
        inputs: from ``prepare_inputs(pair, ...)``.
        max_new_tokens, capacity, sampling, key, eos_token_ids: as for ``generate``.
        config: how the two work together; ``None`` is ``HippoConfig()``.

    Returns:
        A ``Generation`` with ``stats`` (``SpeculationStats``).

    Raises:
        HippoError: arguments that do not fit.
    """
    target, draft = both(pair)
    arguments = (max_new_tokens, capacity, sampling, key, eos_token_ids)
    if draft is None:
        warnings.warn("there is no draft: the target decodes alone", stacklevel=2)
        names = ("max_new_tokens", "capacity", "sampling", "key", "eos_token_ids")
        return generate(target, inputs, **dict(zip(names, arguments, strict=True)))
    plan, limit = make_plan(pair, inputs, *arguments, config)
    return _hippo_generate(target, draft, inputs, limit, key, plan)


@partial(jax.jit, static_argnames="plan")
def _hippo_generate(
    target: VideoLM,
    draft: VideoLM,
    inputs: ModelInputs,
    limit: jax.Array,
    key: jax.Array | None,
    plan: Plan,
) -> Generation:
    state = start(target, draft, inputs, limit, key, plan)
    state = advance(target, draft, state, limit, key, jnp.int32(ALL_ROUNDS), plan)
    return Generation(*finish(state, plan))


def both(pair: Any) -> tuple[VideoLM, VideoLM | None]:
    """Target and draft of a pair; of a lone model, itself and ``None``."""
    target = getattr(pair, "target", pair)
    draft = getattr(pair, "draft", None)
    if not isinstance(target, VideoLM) or not (draft is None or isinstance(draft, VideoLM)):
        raise HippoError(
            f"hippo_generate takes a ModelPair, got {type(pair).__name__}; make one with load_pair"
        )
    return target, draft


def make_plan(
    pair: Any,
    inputs: ModelInputs,
    max_new_tokens: Any,
    capacity: int | None,
    sampling: Sampler | None,
    key: jax.Array | None,
    eos_token_ids: tuple[int, ...] | None,
    config: HippoConfig | None,
) -> tuple[Plan, Any]:
    """Check a call's arguments; its static plan, with nothing on ``"auto"``, and its limit."""
    target, draft = both(pair)
    assert draft is not None
    check_configs(target.config, draft.config)  # a pair made by hand was not looked at yet
    placement = getattr(pair, "placement", None)
    if placement is not None and placement.target != placement.draft:
        raise HippoError(
            "target and draft are placed on different meshes, and this version decodes on one; "
            "load the pair without a placement"
        )
    config = HippoConfig() if config is None else config
    if not isinstance(config, HippoConfig):
        raise HippoError(f"config must be a HippoConfig, got {type(config).__name__}")
    settings, limit = make_settings(
        target, inputs, max_new_tokens, capacity, sampling, key, eos_token_ids
    )
    gamma = min(DEFAULT_GAMMA, settings.capacity) if config.gamma == "auto" else config.gamma
    if gamma > settings.capacity:
        raise HippoError(
            f"gamma {gamma} is above capacity {settings.capacity}; use a smaller gamma or a larger "
            "capacity"
        )
    layers = target.config.text.num_layers
    if config.score_layers is not None and config.score_layers > layers:
        raise HippoError(
            f"score_layers {config.score_layers} is above the target's {layers} layers"
        )
    schedule = "sequential" if config.schedule == "auto" else config.schedule
    return Plan(settings, replace(config, gamma=gamma, schedule=schedule)), limit
