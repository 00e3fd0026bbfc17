"""What scoring and choosing visual tokens add to the target's prefill."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import jax

from hippo_jax.architectures.parameters import count
from hippo_jax.architectures.video_lm import VideoLM
from hippo_jax.benchmark.decoding import GRID
from hippo_jax.benchmark.measure import cell, interleave, machine, plain, where
from hippo_jax.benchmark.shapes import random_prompt, random_video_lm, small
from hippo_jax.decoding.config import HippoConfig
from hippo_jax.inputs.model_inputs import ModelInputs
from hippo_jax.scoring.attention import Relevance
from hippo_jax.scoring.selection import select_tokens
from hippo_jax.scoring.selectors import SelectionContext, scope, selector_scores, support

TAIL = 128  # free slots of the cache


def measure_scoring(*, repeats: int, report: Callable[[str], None]) -> dict[str, Any]:
    """Seconds of a prefill, and of a prefill with the default (holistic) scores and the choice of
    a tenth of the visual tokens, on random weights.

    Both run in each turn, in alternating order; ``"ratio"`` is taken turn by turn. Where prefills
    differ from turn to turn by more than scoring costs, the ratio says little: ``"relevance_s"``
    (attention scores of all layers) and ``"choice_s"`` (the other scores, fusion, selection) are
    the same work on random arrays, alone, and ``"share"`` is their sum over the prefill.
    ``"compiled"``
    is XLA's own account of both programs: bytes of temporary memory, and operations. It counts a
    loop's body once, so the operations of both are too few where a long prompt's attention goes
    block by block.
    """
    model = random_video_lm(small())
    inputs, row = random_prompt(model, GRID)
    inputs = jax.device_put(inputs)
    report(f"{count(model) / 1e6:.0f} M parameters, {len(row.ids)} prompt tokens")
    programs = {
        "prefill": jax.jit(_prefill).lower(model, inputs).compile(),
        "scored": jax.jit(_scored).lower(model, inputs).compile(),
    }
    alone = _alone(model, inputs)
    order = list(programs)

    def run() -> dict[str, float]:
        order.reverse()
        found = {}
        for name in order:
            begin = time.perf_counter()
            jax.block_until_ready(programs[name](model, inputs))
            found[f"{name}_s"] = time.perf_counter() - begin
        for name, call in alone.items():
            begin = time.perf_counter()
            jax.block_until_ready(call())
            found[f"{name}_s"] = time.perf_counter() - begin
        found["ratio"] = found["scored_s"] / found["prefill_s"]
        found["share"] = (found["relevance_s"] + found["choice_s"]) / found["prefill_s"]
        return found

    return {
        "machine": machine(),
        "parameters": count(model),
        "visual_tokens": int(inputs.visual_tokens.sum()),
        "query_tokens": int((inputs.query_columns >= 0).sum()),
        "keep_ratio": HippoConfig().keep_ratio,
        "repeats": repeats,
        "results": plain(interleave({"both": run}, repeats, report))["both"],
        "compiled": {name: _account(program) for name, program in programs.items()},
    }


def _prefill(model: VideoLM, inputs: ModelInputs) -> Any:
    return model.prefill(inputs, TAIL)


def _scored(model: VideoLM, inputs: ModelInputs) -> Any:
    """The prefill as ``hippo_generate`` runs it for the target, and the kept tokens."""
    config = HippoConfig()
    relevance = Relevance(inputs, support(config.scoring))
    visual = model.encode_video(inputs)
    logits, cache = model.prefill(inputs, TAIL, visual=visual, observe=relevance.observe)
    context = SelectionContext(
        inputs=inputs,
        keep_ratio=config.keep_ratio,
        relevance=relevance.scores(),
        features=None if visual is None else model.visual_features(inputs, visual),
        config=config.scoring,
    )
    kept = select_tokens(
        selector_scores(context), inputs, config.keep_ratio, scope=scope(config.scoring)
    )
    return logits, cache, kept


def _alone(model: VideoLM, inputs: ModelInputs) -> dict[str, Callable[[], Any]]:
    """The two parts of scoring without the prefill, compiled."""
    config, text = HippoConfig(), model.config.text
    batch, columns = inputs.token_ids.shape
    rows, lines = inputs.query_columns.shape[1], inputs.table.row.shape[0]
    shapes = (
        (text.num_layers, batch, rows, text.num_heads, text.head_dim),
        (text.num_layers, batch, columns, text.num_kv_heads, text.head_dim),
        (lines, text.hidden_size),
    )
    keys = jax.random.split(jax.random.key(0), len(shapes))
    queries, prompt_keys, features = map(jax.random.normal, keys, shapes)

    @jax.jit
    def relevance(inputs: ModelInputs, queries: jax.Array, prompt_keys: jax.Array) -> jax.Array:
        found = Relevance(inputs, support(config.scoring))
        for layer in range(text.num_layers):
            found.observe(layer, queries[layer], prompt_keys[layer])
        return found.scores()

    @jax.jit
    def choice(inputs: ModelInputs, relevance: jax.Array, features: jax.Array) -> jax.Array:
        context = SelectionContext(inputs, config.keep_ratio, relevance, features, config.scoring)
        scores = selector_scores(context)
        return select_tokens(scores, inputs, config.keep_ratio, scope=scope(config.scoring))

    scores = relevance(inputs, queries, prompt_keys)
    return {
        "relevance": lambda: relevance(inputs, queries, prompt_keys),
        "choice": lambda: choice(inputs, scores, features),
    }


def _account(program: Any) -> dict[str, float | None]:
    """``None`` where a backend does not say."""
    cost, memory = program.cost_analysis(), program.memory_analysis()
    cost = cost[0] if isinstance(cost, list) else cost or {}
    return {
        "operations": cost.get("flops"),
        "temporary_bytes": getattr(memory, "temp_size_in_bytes", None),
    }


def as_table(outcome: Mapping[str, Any]) -> str:
    """The outcome as a markdown table."""
    found = outcome["results"]
    operations = [outcome["compiled"][name]["operations"] for name in ("prefill", "scored")]
    more = ""
    if all(operations):
        share = 100 * (operations[1] / operations[0] - 1)
        more = f"{share:.2f} % more operations by XLA's count, which counts a loop's body once"
    return "\n".join(
        [
            f"{outcome['parameters'] / 1e6:.0f} M parameters, {outcome['visual_tokens']} visual "
            f"tokens, {outcome['query_tokens']} tokens of text behind them, keep ratio "
            f"{outcome['keep_ratio']:g}, median of {outcome['repeats']} (smallest to largest); "
            f"{where(outcome['machine'])}",
            "",
            "| | seconds |",
            "|---|---|",
            f"| prefill | {cell(found['prefill_s'])} |",
            f"| prefill, scores, choice | {cell(found['scored_s'])} |",
            f"| ratio, turn by turn | {_ratio(found['ratio'])} |",
            f"| attention scores alone | {cell(found['relevance_s'])} |",
            f"| other scores and choice alone | {cell(found['choice_s'])} |",
            f"| both of them / prefill | {_ratio(found['share'])} |",
            *(["", more] if more else []),
        ]
    )


def _ratio(summary: Mapping[str, float]) -> str:
    return f"{summary['median']:.4f} ({summary['low']:.4f} to {summary['high']:.4f})"
