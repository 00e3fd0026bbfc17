"""``hippo_generate``: HIPPO decoding as one compiled program."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

import jax

from hippo_jax.decoding.config import HippoConfig
from hippo_jax.decoding.generate import Generation, generate
from hippo_jax.decoding.sampling import Sampler
from hippo_jax.errors import HippoError
from hippo_jax.inputs.model_inputs import ModelInputs
from hippo_jax.scheduling.plan import both, inside_trace, make_plan, placement_of
from hippo_jax.scheduling.programs import whole
from hippo_jax.scheduling.role_watch import watched
from hippo_jax.scheduling.two_meshes import on_two_meshes


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
        RoleError: draft and target have devices of their own, and the program of one failed.
    """
    target, draft = both(pair)
    arguments = (max_new_tokens, capacity, sampling, key, eos_token_ids)
    if draft is None:
        warnings.warn("there is no draft: the target decodes alone", stacklevel=2)
        names = ("max_new_tokens", "capacity", "sampling", "key", "eos_token_ids")
        return generate(target, inputs, **dict(zip(names, arguments, strict=True)))
    plan, limit = make_plan(pair, inputs, *arguments, config)
    placement = placement_of(pair)
    traced = placement.disjoint and inside_trace((pair, inputs, limit, key))
    if placement.two_meshes:
        if traced:
            raise HippoError(
                "one program cannot span two meshes: call hippo_generate outside of jit, or load "
                "the pair with Placement(..., one_program=True)"
            )
        return on_two_meshes(target, draft, inputs, limit, key, plan, placement)
    if traced:
        return _hippo_generate(target, draft, inputs, limit, key, plan)
    return watched(lambda: _hippo_generate(target, draft, inputs, limit, key, plan), placement)


_hippo_generate = partial(jax.jit, static_argnames="plan")(whole)
