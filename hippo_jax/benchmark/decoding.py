"""Prefill and plain decoding, beside transformers on the same weights if asked."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from hippo_jax.architectures.parameters import count
from hippo_jax.architectures.video_lm import VideoLM
from hippo_jax.benchmark.measure import Run, cell, interleave, machine, plain, where
from hippo_jax.benchmark.peer_transformers import require_torch
from hippo_jax.benchmark.shapes import random_prompt, random_video_lm, small
from hippo_jax.decoding.arguments import Settings
from hippo_jax.decoding.generate import decode_loop, prefill_state
from hippo_jax.errors import HippoError
from hippo_jax.inputs.model_inputs import ModelInputs

GRID = (4, 28, 56)  # 1568 visual tokens


def compare(
    *, new_tokens: int, repeats: int, peer: str | None, report: Callable[[str], None]
) -> dict[str, Any]:
    """Seconds of prefill and milliseconds a decoded token, ours and the peer's, in one run.

    ``"same_tokens"`` says whether both gave the same greedy tokens.
    """
    if peer == "transformers":
        require_torch()
    config = small()
    _check(new_tokens, repeats, config.text.max_positions)
    model = random_video_lm(config)
    inputs, row = random_prompt(model, GRID)
    report(f"{count(model) / 1e6:.0f} M parameters, {len(row.ids)} prompt tokens")
    tokens: dict[str, list[int]] = {}
    runs: dict[str, Run] = {"hippo_jax": _ours(model, inputs, new_tokens, tokens)}
    if peer == "transformers":
        runs["transformers"] = _transformers(model, row, new_tokens, tokens)
    results = interleave(runs, repeats, report)
    outcome: dict[str, Any] = {
        "machine": machine(),
        "parameters": count(model),
        "visual_tokens": int(inputs.visual_tokens.sum()),
        "new_tokens": new_tokens,
        "repeats": repeats,
        "results": plain(results),
    }
    if peer:
        outcome["same_tokens"] = tokens["hippo_jax"] == tokens[peer]
        outcome["ratio"] = {
            what: results[peer][what].median / results["hippo_jax"][what].median
            for what in results["hippo_jax"]
        }
    return outcome


def _check(new_tokens: int, repeats: int, positions: int) -> None:
    longest = positions // 2
    if not 2 <= new_tokens <= longest or repeats < 1:
        raise HippoError(f"the benchmark needs 2 to {longest} new tokens and at least 1 repeat")


def _ours(model: VideoLM, inputs: ModelInputs, new_tokens: int, tokens: dict) -> Run:
    settings = Settings(capacity=new_tokens + 1)  # no end token: every run does the same work
    limit = np.int32(new_tokens + 1)
    inputs = jax.device_put(inputs)

    def prefill(model: VideoLM, inputs: ModelInputs, limit: Any) -> Any:
        return prefill_state(model, inputs, limit, None, settings)

    def decode(model: VideoLM, state: Any, next_position: Any, limit: Any) -> Any:
        return decode_loop(model, state, next_position, limit, None, settings)

    prefill_lowered = jax.jit(prefill).lower(model, inputs, limit)
    prefill_program = prefill_lowered.compile()
    decode_program = (
        jax.jit(decode)
        .lower(model, prefill_lowered.out_info, inputs.next_position, limit)
        .compile()
    )

    def run() -> dict[str, float]:
        begin = time.perf_counter()
        state = prefill_program(model, inputs, limit)
        jax.block_until_ready(state)
        middle = time.perf_counter()
        final = decode_program(model, state, inputs.next_position, limit)
        jax.block_until_ready(final.tokens)
        end = time.perf_counter()
        tokens["hippo_jax"] = np.asarray(final.tokens)[0].tolist()
        return _measured(middle - begin, end - middle, new_tokens)

    return run


def _transformers(model: VideoLM, row: Any, new_tokens: int, tokens: dict) -> Run:
    from hippo_jax.benchmark.peer_transformers import TransformersPeer

    peer = TransformersPeer(model, threads=os.cpu_count() or 1)
    inputs = peer.inputs(row)

    def run() -> dict[str, float]:
        prefill, _ = peer.run(inputs, 1)
        whole, tokens["transformers"] = peer.run(inputs, new_tokens + 1)
        return _measured(prefill, whole - prefill, new_tokens)

    return run


def _measured(prefill: float, decode: float, new_tokens: int) -> dict[str, float]:
    return {"prefill_s": prefill, "decode_ms_per_token": 1e3 * decode / new_tokens}


def as_table(outcome: Mapping[str, Any]) -> str:
    """The outcome as a markdown table."""
    lines = [
        f"{outcome['parameters'] / 1e6:.0f} M parameters, {outcome['visual_tokens']} visual "
        f"tokens, {outcome['new_tokens']} new tokens, median of {outcome['repeats']} "
        f"(smallest to largest); {where(outcome['machine'])}",
        "",
        "| | prefill, s | decode, ms a token |",
        "|---|---|---|",
    ]
    for name, found in outcome["results"].items():
        cells = [cell(found[what]) for what in ("prefill_s", "decode_ms_per_token")]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    if "ratio" in outcome:
        ratio = outcome["ratio"]
        lines.append(f"| ratio | {ratio['prefill_s']:.2f} | {ratio['decode_ms_per_token']:.2f} |")
    if "same_tokens" in outcome:
        lines += ["", f"same greedy tokens: {'yes' if outcome['same_tokens'] else 'NO'}"]
    return "\n".join(lines)
