"""A pair on one device: plain decoding beside HIPPO decoding in one run, and its forwards alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from hippo_jax.architectures.parameters import count
from hippo_jax.benchmark.forwards import forwards
from hippo_jax.benchmark.measure import Run, Summary, cell, interleave, machine, plain, where
from hippo_jax.benchmark.timed import Answers, hippo_decoder, plain_decoder, timed
from hippo_jax.decoding.config import HippoConfig
from hippo_jax.errors import HippoError
from hippo_jax.inputs.prepare import prepare_inputs
from hippo_jax.placement.pair import load_pair
from hippo_jax.resources import clip, clip_names
from hippo_jax.scheduling.state import SpeculativeState

PLAIN = "target alone"
DRAFT = "draft alone"  # its own text, which need not be the target's
WAYS = {
    "sequential, full draft": HippoConfig(schedule="sequential", keep_ratio=1.0),
    "sequential": HippoConfig(schedule="sequential"),
    "parallel": HippoConfig(schedule="parallel"),
}


def compare_pair(
    *, pair: str, new_tokens: int, repeats: int, gamma: int, report: Callable[[str], None]
) -> dict[str, Any]:
    """Describe the embedded clips with the target alone and with the pair, greedily, ending where
    the text ends.

    Per way of decoding: seconds a clip until the first token (of HIPPO with scoring and the
    draft's prefill; in the parallel schedule its first chunk too), milliseconds for each further
    token, and seconds a clip in all. ``"speed"`` is the target's time divided by the way's own,
    without prefill (``"decode"``) and with it (``"whole"``). ``"same_tokens"`` says whether all
    ways gave the target's tokens. ``"steps"`` are forwards on their own: a round of the sequential
    schedule is gamma draft steps and one target forward of gamma + 1 tokens.

    Raises:
        HippoError: numbers that do not fit, an unknown pair.
    """
    if new_tokens < 2 or repeats < 1:
        raise HippoError("the benchmark needs at least 2 new tokens and 1 repeat")
    ways = {name: replace(config, gamma=gamma) for name, config in WAYS.items()}
    models = load_pair(pair)
    names = clip_names()
    inputs = [prepare_inputs(models, clip(name), "Describe the video.") for name in names]
    prompts = [jax.device_put(one) for one in inputs]
    answers = {name: Answers() for name in (PLAIN, DRAFT, *ways)}
    runs: dict[str, Run] = {}
    for name, model in ((PLAIN, models.target), (DRAFT, models.draft)):
        runs[name] = timed(prompts, plain_decoder(model, new_tokens), answers[name])
    caches: dict[str, SpeculativeState] = {}
    for name, config in ways.items():
        report(f"compiling: {name}")
        decoder = hippo_decoder(models, new_tokens, config)
        runs[name] = timed(prompts, decoder, answers[name])
        caches[name] = decoder.begin(prompts[0])
    steps = _steps(models, caches["sequential, full draft"], caches["sequential"], gamma)
    results = interleave({**runs, **steps}, repeats, report)
    return {
        "machine": machine(),
        "pair": pair,
        "parameters": {"target": count(models.target), "draft": count(models.draft)},
        "clips": len(names),
        "visual_tokens": int(inputs[0].visual_tokens[0]),
        "kept_visual_tokens": int((np.asarray(caches["sequential"].kept) >= 0).sum()),
        "max_new_tokens": new_tokens,
        "gamma": gamma,
        "repeats": repeats,
        "tokens": {name: sum(map(len, found.tokens)) for name, found in answers.items()},
        "tokens_per_round": {name: _tokens_per_round(answers[name]) for name in ways},
        "results": plain({name: results[name] for name in runs}),
        "steps": plain({name: results[name] for name in steps}),
        "speed": {name: _speed(results[PLAIN], results[name]) for name in runs},
        "same_tokens": same_tokens(answers),
    }


def same_tokens(answers: Mapping[str, Answers]) -> bool:
    """Whether every way but the draft alone gave the target's tokens."""
    return all(found.tokens == answers[PLAIN].tokens for n, found in answers.items() if n != DRAFT)


def _steps(
    models: Any, full: SpeculativeState, pruned: SpeculativeState, gamma: int
) -> dict[str, Run]:
    """Forwards alone: the target's of 1 and gamma + 1 tokens, the draft's behind all visual tokens
    and behind those that were kept."""
    target, draft = models.target, models.draft
    cases = {
        "target, 1 token": (target, full.target_cache, full.target_prompt, 1),
        f"target, {gamma + 1} tokens": (target, full.target_cache, full.target_prompt, gamma + 1),
        "draft, 1 token": (draft, full.draft_cache, full.draft_prompt, 1),
        "draft, 1 token, pruned": (draft, pruned.draft_cache, pruned.draft_prompt, 1),
    }
    return {
        name: forwards(model, cache, prompt.next_position, width)
        for name, (model, cache, prompt, width) in cases.items()
        if cache is not None  # on one device both are there
    }


def _tokens_per_round(answers: Answers) -> float | None:
    later = sum(map(len, answers.tokens)) - len(answers.tokens)
    return later / answers.rounds if answers.rounds else None


def _speed(target: Mapping[str, Summary], own: Mapping[str, Summary]) -> dict[str, float]:
    parts = {"decode": "decode_ms_per_token", "whole": "whole_s"}
    return {name: target[what].median / own[what].median for name, what in parts.items()}


def as_table(outcome: Mapping[str, Any]) -> str:
    """The outcome as two markdown tables."""
    millions = {role: number / 1e6 for role, number in outcome["parameters"].items()}
    lines = [
        f"{outcome['pair']}: target {millions['target']:.2f} M and draft {millions['draft']:.2f} M "
        f"parameters, {outcome['visual_tokens']} visual tokens ({outcome['kept_visual_tokens']} "
        f"kept), {outcome['clips']} clips, {outcome['tokens'][PLAIN]} new tokens in all, gamma "
        f"{outcome['gamma']}, greedy, median of {outcome['repeats']} (smallest to largest); "
        f"{where(outcome['machine'])}",
        "",
        "| | prefill, s a clip | decode, ms a token | ms a round | tokens a round "
        "| speed without prefill | speed with prefill |",
        "|" + "---|" * 7,
    ]
    for name, found in outcome["results"].items():
        speed, rounds = outcome["speed"][name], outcome["tokens_per_round"].get(name)
        cells = [cell(found["prefill_s"]), cell(found["decode_ms_per_token"])]
        cells.append(cell(found["decode_ms_per_round"]) if "decode_ms_per_round" in found else "")
        cells.append("" if rounds is None else f"{rounds:.2f}")
        cells += [f"{speed['decode']:.2f}", f"{speed['whole']:.2f}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", f"same tokens as the target alone: {'yes' if outcome['same_tokens'] else 'NO'}"]
    lines += ["", "| one forward, in a loop | ms |", "|---|---|"]
    lines += [f"| {name} | {cell(found['ms'])} |" for name, found in outcome["steps"].items()]
    return "\n".join(lines)
