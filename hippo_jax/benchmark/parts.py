"""The parts of a call, each on its own: what the model of time is fed with."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from hippo_jax.architectures.sharding import Home
from hippo_jax.architectures.tensor_parallel import cache_spec, on_devices
from hippo_jax.architectures.video_lm import VideoLM
from hippo_jax.benchmark.forwards import forwards, milliseconds
from hippo_jax.benchmark.measure import Run, Summary
from hippo_jax.inputs.model_inputs import ModelInputs
from hippo_jax.placement.pair import ModelPair
from hippo_jax.scheduling import one_program, two_meshes
from hippo_jax.scheduling.plan import Plan
from hippo_jax.scheduling.roles import prepare_draft
from hippo_jax.scheduling.state import Proposal, Verdict
from hippo_jax.scheduling.time_model import StepTimes
from hippo_jax.scoring.attention import Relevance
from hippo_jax.scoring.selection import select_tokens
from hippo_jax.scoring.selectors import SelectionContext, scope, selector_scores, support

WIDTHS = (1, 2, 4, 6, 8, 12)  # of target blocks
EXCHANGES = 64  # of one measurement
PREFILL, SCORED = "target, prefill", "target, prefill and scores"


def measured_parts(pair: ModelPair, inputs: ModelInputs, plan: Plan) -> dict[str, Run]:
    """Every part as something to measure, in ms: on its model's devices, with nothing beside it.

    Models in one program with two roles must be measured where they have devices to themselves.
    The plan's scores must be the default ones, which the target chooses by.
    """
    target, draft = pair.target, pair.draft
    capacity, scoring = plan.settings.capacity, plan.config.scoring
    gamma, ratio = plan.gamma, plan.config.keep_ratio

    def look(model: VideoLM, inputs: ModelInputs) -> Any:
        return model.encode_video(inputs)

    def look_for_draft(model: VideoLM, inputs: ModelInputs) -> Any:
        return model.encode_video(inputs, draft=True)

    def prefill(model: VideoLM, inputs: ModelInputs, visual: jax.Array) -> Any:
        return model.prefill(inputs, capacity, visual=visual)

    def score(model: VideoLM, inputs: ModelInputs, visual: jax.Array) -> Any:
        relevance = Relevance(inputs, support(scoring), model.head_shards)
        layers = plan.config.score_layers or model.config.text.num_layers
        begun = model.begin_prefill(inputs, layers, visual=visual, observe=relevance.observe)
        return relevance.scores(), model.end_prefill(inputs, begun, capacity + gamma)[1]

    def select(model: VideoLM, inputs: ModelInputs, scores: Any, visual: jax.Array) -> Any:
        context = SelectionContext(inputs, ratio, scores, visual, scoring)
        return select_tokens(selector_scores(context), inputs, ratio, scope=scope(scoring))

    def read(model: VideoLM, inputs: ModelInputs, kept: jax.Array, visual: jax.Array) -> Any:
        pruned, cache = prepare_draft(model, inputs, kept, visual, plan)
        return jnp.asarray(pruned.next_position), cache

    def logits_and_cache(axis: str) -> Any:
        return P(), cache_spec(axis)

    own, other = _at(target.home, inputs), _at(draft.home, inputs)
    runs: dict[str, Run] = {}

    def part(name: str, function: Any, model: VideoLM, *arguments: Any, outputs: Any = None) -> Any:
        """Compile, run once, and keep for measuring."""
        program = (
            jax.jit(lambda model, *rest: on_devices(function, (model,), *rest, outputs=outputs))
            .lower(model, *arguments)
            .compile()
        )
        runs[name] = milliseconds(lambda: program(model, *arguments))
        return program(model, *arguments)

    visual = part("target, video", look, target, own)
    part(PREFILL, prefill, target, own, visual, outputs=logits_and_cache)
    scores, cache = part(SCORED, score, target, own, visual, outputs=logits_and_cache)
    kept = part("choice of tokens", select, target, own, scores, visual)
    for width in WIDTHS:
        if width <= cache.capacity:
            runs[_forward("target", width)] = forwards(target, cache, own.next_position, width)
    draft_visual = part("draft, video", look_for_draft, draft, other)
    chosen = _at(draft.home, kept)
    position, cache = part(
        "draft, pruned prompt",
        read,
        draft,
        other,
        chosen,
        draft_visual,
        outputs=logits_and_cache,
    )
    runs[_forward("draft", 1)] = forwards(draft, cache, position, 1)
    return runs


def step_times(found: Mapping[str, Mapping[str, Summary]], hop_ms: float = 0.0) -> StepTimes:
    """The model's times out of medians of ``measured_parts``."""

    def seconds(name: str) -> float:
        return found[name]["ms"].median / 1e3

    widths = [width for width in WIDTHS if _forward("target", width) in found]
    return StepTimes(
        draft_step=seconds(_forward("draft", 1)),
        verify={width: seconds(_forward("target", width)) for width in widths},
        hop=hop_ms / 1e3,
        target_vision=seconds("target, video"),
        target_prefill=seconds(SCORED),
        selection=seconds("choice of tokens"),
        draft_vision=seconds("draft, video"),
        draft_prefill=seconds("draft, pruned prompt"),
    )


def without_scores(times: StepTimes, found: Mapping[str, Mapping[str, Summary]]) -> StepTimes:
    """The same for the target alone, whose prefill scores nothing."""
    return replace(times, target_prefill=found[PREFILL]["ms"].median / 1e3)


def measured_hop(pair: ModelPair, inputs: ModelInputs, limit: Any, plan: Plan) -> Run:
    """What an exchange between the roles takes, in ms.

    In one program: the sums by which both roles hear of each other. On two meshes: a round that
    finds all rows done, so that nothing is left of it but handing programs and words over.
    """
    if not pair.placement.two_meshes:
        return milliseconds(_exchanges(pair, plan), EXCHANGES)
    models = (pair.target, pair.draft)
    target, draft = two_meshes.begin(*models, inputs, limit, None, plan, pair.placement)
    two_meshes.run(target, draft, threads=two_meshes.needs_threads(pair.placement))

    def surplus() -> Any:
        for _ in itertools.islice(two_meshes.rounds(target, draft), EXCHANGES):
            pass
        return target.state, draft.state

    return milliseconds(surplus, EXCHANGES)


def _exchanges(pair: ModelPair, plan: Plan) -> Callable[[], Any]:
    assert pair.target.home is not None and pair.draft.home is not None
    roles = one_program.Roles(pair.target.home, pair.draft.home)

    def local(target: VideoLM, draft: VideoLM, proposal: Proposal, verdict: Verdict) -> Any:
        def once(_: Any, words: tuple[Proposal, Verdict]) -> tuple[Proposal, Verdict]:
            return roles.from_draft(words[0]), roles.from_target(words[1])

        return jax.lax.fori_loop(0, EXCHANGES, once, (proposal, verdict))

    zero = jnp.zeros((1,), jnp.int32)
    words = (Proposal(jnp.zeros((1, plan.gamma), jnp.int32), None), Verdict(zero, zero))
    models = (pair.target, pair.draft)
    program = jax.jit(lambda *all: on_devices(local, all[:2], *all[2:]))
    compiled = program.lower(*models, *words).compile()
    return lambda: compiled(*models, *words)


def _forward(role: str, width: int) -> str:
    return f"{role}, {width} token{'s' if width > 1 else ''}"


def _at(home: Home | None, tree: Any) -> Any:
    """On all devices of a home, whole."""
    return jax.device_put(tree, None if home is None else NamedSharding(home.mesh, P()))
