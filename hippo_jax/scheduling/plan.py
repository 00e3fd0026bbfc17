"""What a call is compiled for: the user's arguments, checked, with nothing left on ``"auto"``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from hippo_jax.architectures.video_lm import VideoLM
from hippo_jax.decoding.arguments import Settings, make_settings
from hippo_jax.decoding.config import DEFAULT_GAMMA, HippoConfig
from hippo_jax.decoding.sampling import Sampler
from hippo_jax.decoding.verification import is_maximal
from hippo_jax.errors import HippoError
from hippo_jax.inputs.compatibility import check_configs
from hippo_jax.inputs.model_inputs import ModelInputs
from hippo_jax.placement.placement import Placement


@jax.tree_util.register_static
@dataclass(frozen=True)
class Plan:
    """Static part of a call: what its programs are compiled for.

    Attributes:
        settings: as for plain decoding.
        config: the user's, with nothing left on ``"auto"``.
    """

    settings: Settings
    config: HippoConfig

    @property
    def gamma(self) -> int:
        """Tokens of a chunk."""
        assert isinstance(self.config.gamma, int)
        return self.config.gamma

    @property
    def parallel(self) -> bool:
        """Which state machine."""
        return self.config.schedule == "parallel"

    @property
    def maximal(self) -> bool:
        """Whether the target judges by rejection sampling, for which it needs the draft's laws."""
        return is_maximal(self.settings.sampler)

    @property
    def block(self) -> int:
        """Tokens that the target is fed a round. The sequential schedule has one slot more, for the
        token of its own behind a fully accepted chunk."""
        return self.gamma if self.parallel else self.gamma + 1


def both(pair: Any) -> tuple[VideoLM, VideoLM | None]:
    """Target and draft of a pair; of a lone model, itself and ``None``."""
    target = getattr(pair, "target", pair)
    draft = getattr(pair, "draft", None)
    if not isinstance(target, VideoLM) or not (draft is None or isinstance(draft, VideoLM)):
        raise HippoError(
            f"hippo_generate takes a ModelPair, got {type(pair).__name__}; make one with load_pair"
        )
    return target, draft


def placement_of(pair: Any) -> Placement:
    """Where a pair lives; a pair made by hand without a placement is on one device."""
    found = getattr(pair, "placement", None)
    return found if isinstance(found, Placement) else Placement()


def inside_trace(values: Any) -> bool:
    """Whether a call with ``values`` is part of a trace; a closure may hide all of them from it."""
    own = (values, jnp.zeros(()))  # traced wherever everything is
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(own))


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
    # A pair made by hand was not looked at yet.
    check_configs(target.config, draft.config, target.family.shared)
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
    schedule = config.schedule
    if schedule == "auto":
        schedule = "parallel" if placement_of(pair).disjoint else "sequential"
    return Plan(settings, replace(config, gamma=gamma, schedule=schedule)), limit
