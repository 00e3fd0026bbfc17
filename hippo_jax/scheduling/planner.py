"""``plan_schedule``: measure a pair where it lives, and choose schedule and gamma.

What is measured are forwards in a compiled loop: one draft token, and target blocks of a few
widths. How often the draft is right is read from one short answer. The choice is that of
``time_model.best``, which knows what each schedule costs and commits a round.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable
from dataclasses import replace
from statistics import median
from typing import Any

import jax
import numpy as np

from hippo_jax.architectures import cache as kv
from hippo_jax.architectures.video_lm import VideoLM
from hippo_jax.decoding.config import DEFAULT_GAMMA, HippoConfig
from hippo_jax.decoding.sampling import Sampler
from hippo_jax.errors import HippoError
from hippo_jax.inputs.model_inputs import ModelInputs
from hippo_jax.scheduling.forwards import compiled_forwards
from hippo_jax.scheduling.hippo import hippo_generate
from hippo_jax.scheduling.plan import both, inside_trace, make_plan, placement_of
from hippo_jax.scheduling.programs import start_alone
from hippo_jax.scheduling.role_watch import watched
from hippo_jax.scheduling.time_model import (
    Choice,
    Schedule,
    StepTimes,
    best,
    seconds_per_token,
)
from hippo_jax.scheduling.two_meshes import begin

WIDTHS = (1, 2, 4, 8, 16)  # of target blocks; what lies between is interpolated
STEPS, REPEATS = 16, 3  # forwards in a loop, loops of which the median is taken
SCHEDULES: tuple[Schedule, ...] = ("sequential", "parallel")
TOKENS = 64  # of the answer that acceptance is read from


def plan_schedule(
    pair: Any,
    inputs: ModelInputs,
    *,
    config: HippoConfig | None = None,
    max_new_tokens: int = TOKENS,
    sampling: Sampler | None = None,
    key: jax.Array | None = None,
    rival: Any = None,
) -> HippoConfig:
    """Choose schedule and gamma for prompts like ``inputs`` by measuring on the pair's devices.

    Takes seconds, most of them compilation. A choice that is not on ``"auto"`` in ``config`` is
    kept. Where even the best way of drafting is expected to lose against plain decoding, or against
    ``rival``, a warning says so.

    What a round's exchange between draft and target takes is left out (``StepTimes.hop`` is 0),
    which flatters devices of their own where rounds are short; ``hippo bench --model`` measures it.

    Args:
        pair: a ``ModelPair``, wherever it lives.
        config: what the choice starts from; ``None``: ``HippoConfig(gamma="auto")``.
        max_new_tokens: tokens of the answer that acceptance is read from.
        sampling, key: as for ``hippo_generate``; the draft is right less often at a temperature.
        rival: the same models, both tensor-parallel over all the devices
            (``Placement(target=mesh, draft=mesh)``). There they take turns, and how well a small
            draft scales decides whether devices of its own pay.

    Returns:
        ``config`` with schedule and gamma set.

    Raises:
        HippoError: a pair or a rival without a draft, arguments that do not fit, a call inside a
            trace.
    """
    for one in (pair,) if rival is None else (pair, rival):
        if both(one)[1] is None:
            raise HippoError("there is no draft, so there is nothing to plan; pass a ModelPair")
    if inside_trace((inputs.lengths, key)):
        raise HippoError("plan_schedule measures time, so it cannot run inside a jax trace")
    config = HippoConfig(gamma="auto") if config is None else config
    trial = replace(config, schedule="sequential", gamma=DEFAULT_GAMMA)
    answer = hippo_generate(
        pair,
        inputs,
        max_new_tokens=max_new_tokens,
        sampling=sampling,
        key=key,
        eos_token_ids=(),
        config=trial,
    )
    if not np.any(answer.stats.judged):
        raise HippoError(
            "the answer ended before the draft was heard; plan_schedule needs max_new_tokens of at "
            "least 2"
        )
    acceptance = answer.stats.acceptance_rate
    times = measure_steps(pair, inputs, config)
    gammas = range(1, 17) if config.gamma == "auto" else (config.gamma,)
    schedules = SCHEDULES if config.schedule == "auto" else (config.schedule,)
    apart = placement_of(pair).disjoint
    shared = None if rival is None else measure_steps(rival, inputs, config)
    found = best(times, acceptance, gammas, concurrent=apart, schedules=schedules, shared=shared)
    if found.schedule != "autoregressive" and not found.shared:
        return replace(config, schedule=found.schedule, gamma=found.gamma)
    better = "both models over all devices" if found.shared else "the target alone"
    own = _drafting(times, acceptance, gammas, schedules, apart)
    warnings.warn(
        f"{better} is expected to be faster: {1e3 * found.seconds_per_token:.3g} ms a token, not "
        f"{1e3 * own.seconds_per_token:.3g} (the draft is right {100 * acceptance:.0f} % of the "
        f"time, and a token of its takes {times.draft_step / times.verify_time(1):.2f} of the "
        "target's time)",
        stacklevel=2,
    )
    assert own.schedule != "autoregressive"
    return replace(config, schedule=own.schedule, gamma=own.gamma)


def _drafting(
    times: StepTimes,
    acceptance: float,
    gammas: Iterable[int],
    schedules: Iterable[Schedule],
    apart: bool,
) -> Choice:
    """The best way with a draft, be it good or not."""
    choices: list[Choice] = [
        Choice(schedule, gamma, seconds_per_token(times, acceptance, gamma, schedule, apart))
        for schedule in schedules
        for gamma in gammas
    ]
    return min(choices, key=lambda choice: choice.seconds_per_token)


def measure_steps(pair: Any, inputs: ModelInputs, config: HippoConfig | None = None) -> StepTimes:
    """Seconds of one draft token and of target blocks behind these prompts.

    One model is measured at a time. On two meshes and on one device it has its devices to itself;
    in one program with two roles the other role's devices compute along with copies, which costs
    nothing but where they share their memory or cores (CPU devices). What an exchange between the
    roles takes is not measured: ``hop`` is 0.

    Args:
        config: how much of the prompts the draft sees.
    """
    target, draft = both(pair)
    assert draft is not None
    config = replace(config or HippoConfig(), schedule="sequential", gamma=max(WIDTHS) // 2)
    plan, limit = make_plan(pair, inputs, max(WIDTHS), None, None, None, (), config)
    placement = placement_of(pair)
    if placement.two_meshes:
        own, other = begin(target, draft, inputs, limit, None, plan, placement)
        target_state, draft_state = own.state, other.state
    else:
        target_state = draft_state = watched(
            lambda: start_alone(target, draft, inputs, limit, None, plan), placement
        )
    assert target_state.target_cache is not None and draft_state.draft_cache is not None
    widths = [q for q in WIDTHS if q <= target_state.target_cache.capacity]

    def seconds(model: VideoLM, cache: kv.KVCache, prompt: Any, width: int) -> float:
        return _seconds(model, cache, prompt.next_position, width)

    return StepTimes(
        draft_step=seconds(draft, draft_state.draft_cache, draft_state.draft_prompt, 1),
        verify={
            q: seconds(target, target_state.target_cache, target_state.target_prompt, q)
            for q in widths
        },
    )


def _seconds(model: VideoLM, cache: kv.KVCache, position: Any, width: int) -> float:
    run = compiled_forwards(model, cache, position, width, STEPS)
    taken = []
    for _ in range(REPEATS + 1):  # the first warms up
        begun = time.perf_counter()
        jax.block_until_ready(run())
        taken.append((time.perf_counter() - begun) / STEPS)
    return median(taken[1:])
