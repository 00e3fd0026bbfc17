"""The outcome of ``measure_speed`` for people: three markdown tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hippo_jax.benchmark.ceilings import COPY, MATMUL
from hippo_jax.benchmark.measure import cell, where
from hippo_jax.benchmark.speed import DRAFT, PLAIN
from hippo_jax.placement.memory import as_text

SHARE_OF = "target, prefill"


def as_table(outcome: Mapping[str, Any]) -> str:
    """Ways, parts, and what they are fractions of."""
    return "\n".join([*_head(outcome), "", *_ways(outcome), "", *_parts(outcome)])


def _head(outcome: Mapping[str, Any]) -> Iterator[str]:
    case, limits = outcome["case"], outcome["ceilings"]
    millions = {role: number / 1e6 for role, number in case["parameters"].items()}
    yield (
        f"{case['name']}: target {millions['target']:.4g} M and draft {millions['draft']:.4g} M "
        f"parameters, {case['dtype']}, attention by {case['attention']}; "
        f"{case['visual_tokens']} visual tokens ({case['kept_visual_tokens']} kept), "
        f"{case['prompts']} prompts, "
        f"{outcome['ways'][PLAIN]['tokens']} new tokens in all, gamma {case['gamma']}, greedy, "
        f"median of {outcome['repeats']} (smallest to largest); {where(outcome['machine'])}"
    )
    yield ""
    yield f"Acceptance: {case['acceptance_from']}."
    yield (
        f"Measured limits: memory copies {cell(limits[COPY])} GB/s, products "
        f"{cell(limits[MATMUL])} GFLOP/s."
    )


def _ways(outcome: Mapping[str, Any]) -> Iterator[str]:
    heads = (
        "",
        "first token, s",
        "decode, ms a token",
        "tokens/s",
        "tokens a round",
        "ms a round",
        "speed without prefill",
        "speed with prefill",
        "memory, by the compiler",
    )
    yield f"| {' | '.join(heads)} |"
    yield "|" + "---|" * len(heads)
    for name, found in outcome["ways"].items():
        rounds, peak = found["tokens_per_round"], found["peak_bytes"]
        cells = [name, cell(found["prefill_s"]), cell(found["decode_ms_per_token"])]
        cells.append(f"{found['tokens_per_s']:.4g}")
        cells.append("" if rounds is None else f"{rounds:.2f}")
        by_round = found.get("decode_ms_per_round")
        cells.append("" if by_round is None else cell(by_round))
        cells += [f"{found['speed'][what]:.2f}" for what in ("decode", "whole")]
        cells.append("" if peak is None else as_text(peak))
        yield f"| {' | '.join(cells)} |"
    for name, why in outcome["peer"].get("missing", {}).items():
        yield f"| {name} | not measured: {why} |" + " |" * (len(heads) - 2)
    yield ""
    others = [
        name
        for name, found in outcome["ways"].items()
        if name != DRAFT and not found["same_tokens"]
    ]
    yield f"same tokens as the target alone: {'NO: ' + ', '.join(others) if others else 'yes'}"
    if outcome["overlap"]:
        yield _overlap(outcome["overlap"])
    if outcome["peer"]:
        settings = outcome["peer"]["settings"].items()
        for name, times in outcome["over_peer"].items():
            yield (
                f"{name}: {times['decode']:.2f} times the peer's best plain decoding without "
                f"prefill, {times['whole']:.2f} with it, {times['first']:.2f} to the first token"
            )
        yield "peer: " + ", ".join(f"{name} {value}" for name, value in settings if name != "rows")


def _overlap(found: Mapping[str, Any]) -> str:
    return (
        f"target on {found['target_on']}, draft on {found['draft_on']} in {found['draft_dtype']}: "
        f"a round takes {cell(found['round_ms'])} ms, the target's part alone "
        f"{cell(found['target_ms'])}, the draft's {cell(found['draft_ms'])}: "
        f"{found['over_slower']:.2f} times the slower one, {found['over_sum']:.2f} times both"
    )


def _parts(outcome: Mapping[str, Any]) -> Iterator[str]:
    yield "| part, alone | ms | share of a prefill | of the matmul rate | of the copy bandwidth |"
    yield "|---|---|---|---|---|"
    parts = outcome["parts"]
    whole = parts[SHARE_OF]["ms"]["median"]
    for name, found in parts.items():
        cells = [name, cell(found["ms"]), f"{100 * found['ms']['median'] / whole:.2f} %"]
        cells += [_percent(found[what]) for what in ("of_matmul", "of_copy")]
        yield f"| {' | '.join(cells)} |"
    one, eight = (parts.get(f"target, {q}") for q in ("1 token", "8 tokens"))
    if one and eight:
        ratio = eight["ms"]["median"] / one["ms"]["median"]
        yield ""
        yield f"a forward over 8 tokens takes {ratio:.2f} times one over 1"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f} %"
