"""The parts of a call, each on its own: what the model of time is fed with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from hippo_jax.architectures import cache as kv
from hippo_jax.architectures.sharding import Home
from hippo_jax.architectures.tensor_parallel import cache_spec, on_devices
from hippo_jax.architectures.video_lm import VideoLM
from hippo_jax.benchmark.forwards import forwards, milliseconds
from hippo_jax.benchmark.matmul_work import matmul_operations
from hippo_jax.benchmark.measure import Run, Summary
from hippo_jax.inputs.model_inputs import ModelInputs
from hippo_jax.placement.pair import ModelPair
from hippo_jax.scheduling.plan import Plan
from hippo_jax.scheduling.roles import prepare_draft
from hippo_jax.scheduling.time_model import StepTimes
from hippo_jax.scoring.attention import Relevance
from hippo_jax.scoring.selection import select_tokens
from hippo_jax.scoring.selectors import SelectionContext, scope, selector_scores, support

WIDTHS = (1, 2, 4, 6, 8, 12)  # of target blocks
PREFILL, SCORED = "target, prefill", "target, prefill and scores"
SCORES, CHOICE = "attention scores", "choice of tokens"
PRUNED, WHOLE = "draft, pruned prompt", "draft, whole prompt"
WHOLE_STEP = "draft, 1 token behind the whole prompt"


@dataclass(frozen=True)
class Part:
    """Something to measure, in ms.

    Attributes:
        run: one turn of it.
        operations: of its matrix products; ``None`` where they were not counted.
        bytes: of weights and cache that it reads, where that is what it does; else ``None``.
    """

    run: Run
    operations: int | None = None
    bytes: int | None = None


def measured_parts(pair: ModelPair, inputs: ModelInputs, plan: Plan) -> dict[str, Run]:
    """``make_parts`` without what its parts do."""
    return {name: part.run for name, part in make_parts(pair, inputs, plan).items()}


def make_parts(
    pair: ModelPair, inputs: ModelInputs, plan: Plan, *, every: bool = False
) -> dict[str, Part]:
    """Every part as something to measure, in ms: on its model's devices, with nothing beside it.

    Models in one program with two roles must be measured where they have devices to themselves.
    The plan's scores must be the default ones, which the target chooses by.

    Args:
        every: also what no model of time asks for: a draft that sees all visual tokens, and the
            attention scores of all layers, of random queries and keys: beside a prefill they drown
            in what prefills differ by from turn to turn. For models on one device.
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
        features = model.visual_features(inputs, visual)
        context = SelectionContext(inputs, ratio, scores, features, scoring)
        return select_tokens(selector_scores(context), inputs, ratio, scope=scope(scoring))

    def read(model: VideoLM, inputs: ModelInputs, kept: jax.Array, visual: jax.Array) -> Any:
        pruned, cache = prepare_draft(model, inputs, kept, visual, plan)
        return jnp.asarray(pruned.next_position), cache

    def logits_and_cache(axis: str) -> Any:
        return P(), cache_spec(axis)

    own, other = _at(target.home, inputs), _at(draft.home, inputs)
    parts: dict[str, Part] = {}

    def part(name: str, function: Any, model: VideoLM, *arguments: Any, outputs: Any = None) -> Any:
        """Compile, run once, and keep for measuring."""

        def call(model: VideoLM, *rest: Any) -> Any:
            return on_devices(function, (model,), *rest, outputs=outputs)

        program = jax.jit(call).lower(model, *arguments).compile()
        run = milliseconds(lambda: program(model, *arguments))
        work = matmul_operations(call, model, *arguments) if model.home is None else None
        parts[name] = Part(run, work)
        return program(model, *arguments)

    def step(name: str, model: VideoLM, cache: kv.KVCache, position: Any, width: int) -> None:
        run = forwards(model, cache, position, width)
        if model.home is None:
            work = matmul_operations(partial(_block, width=width), model, cache, position)
            parts[name] = Part(run, work, read_by_forward(model, cache))
        else:
            parts[name] = Part(run)

    visual = part("target, video", look, target, own)
    part(PREFILL, prefill, target, own, visual, outputs=logits_and_cache)
    scores, cache = part(SCORED, score, target, own, visual, outputs=logits_and_cache)
    if every:
        parts[SCORES] = Part(milliseconds(_scores_alone(target, own, plan)))
    kept = part(CHOICE, select, target, own, scores, visual)
    for width in WIDTHS:
        if width <= cache.capacity:
            step(_forward("target", width), target, cache, own.next_position, width)
    draft_visual = part("draft, video", look_for_draft, draft, other)
    reads = {PRUNED: (_at(draft.home, kept), _forward("draft", 1))}
    if every:
        reads[WHOLE] = (None, WHOLE_STEP)
    for name, (chosen, after) in reads.items():
        arguments = (other, chosen, draft_visual)
        position, cache = part(name, read, draft, *arguments, outputs=logits_and_cache)
        step(after, draft, cache, position, 1)
    return parts


def read_by_forward(model: VideoLM, cache: kv.KVCache) -> int:
    """Bytes that a forward over a few tokens has to read: every matrix of the decoder, and the
    cache. Of an embedding that is not the head too, only a few rows."""
    decoder = model.decoder
    read = sum(leaf.nbytes for leaf in jax.tree.leaves((decoder, cache.layers)))
    return read - (0 if decoder.head is None else decoder.embedding.get_value().nbytes)


def _block(model: VideoLM, cache: kv.KVCache, position: jax.Array, width: int) -> jax.Array:
    """Logits of a forward as ``forwards`` runs it."""
    batch = position.shape[0]
    fed, slot = jnp.zeros((batch, width), jnp.int32), jnp.zeros((batch,), jnp.int32)
    places = jnp.broadcast_to(position[:, None] + jnp.arange(width), (3, batch, width))
    return model.forward_block(fed, places, cache, slot)[0]


def _scores_alone(model: VideoLM, inputs: ModelInputs, plan: Plan) -> Callable[[], Any]:
    text = model.config.text
    batch, columns = inputs.token_ids.shape
    layers = plan.config.score_layers or text.num_layers
    queries = (batch, inputs.query_columns.shape[1], text.num_heads, text.head_dim)
    keys = (batch, columns, text.num_kv_heads, text.head_dim)

    @jax.jit
    def observed(inputs: ModelInputs, queries: Any, keys: Any) -> Any:
        found = Relevance(inputs, support(plan.config.scoring))
        for layer in range(layers):
            found.observe(layer, queries[layer], keys[layer])
        return found.scores()

    random = [
        [jax.random.normal(jax.random.key(layer), shape, model.dtype) for layer in range(layers)]
        for shape in (queries, keys)
    ]
    return lambda: observed(inputs, *random)


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
        selection=seconds(CHOICE),
        draft_vision=seconds("draft, video"),
        draft_prefill=seconds(PRUNED),
    )


def without_scores(times: StepTimes, found: Mapping[str, Mapping[str, Summary]]) -> StepTimes:
    """The same for the target alone, whose prefill scores nothing."""
    return replace(times, target_prefill=found[PREFILL]["ms"].median / 1e3)


def _forward(role: str, width: int) -> str:
    return f"{role}, {width} token{'s' if width > 1 else ''}"


def _at(home: Home | None, tree: Any) -> Any:
    """On all devices of a home, whole."""
    return jax.device_put(tree, None if home is None else NamedSharding(home.mesh, P()))
