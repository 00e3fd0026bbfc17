"""What smaller weights change: logits of target and draft, answers, how many tokens are accepted.

Logits are compared where they choose the tokens of the float target's own answers, which both
models are made to read. Every pair of a float32 or smaller target with a float32 or smaller draft
decodes the same clips.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hippo_jax.architectures.parameters import values
from hippo_jax.architectures.video_lm import VideoLM
from hippo_jax.benchmark.acceptance import (
    NEW_TOKENS,
    SCHEDULES,
    batches_of,
    check_same,
    digits,
    figures,
    percent,
)
from hippo_jax.benchmark.measure import machine, where
from hippo_jax.decoding.config import DEFAULT_GAMMA, HippoConfig
from hippo_jax.decoding.generate import Generation, generate
from hippo_jax.decoding.stats import SpeculationStats, joined
from hippo_jax.errors import HippoError
from hippo_jax.inputs.model_inputs import ModelInputs
from hippo_jax.placement.memory import as_text
from hippo_jax.placement.pair import ModelPair
from hippo_jax.scheduling.hippo import hippo_generate

FLOAT = "float32"
ROLES = ("target", "draft")


def measure_precision(
    pair: ModelPair,
    small: ModelPair,
    clips: Sequence[Path],
    prompts: Sequence[str],
    *,
    kind: str,
    gamma: int = DEFAULT_GAMMA,
    reference: jax.Device | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Distances of logits, acceptance, bytes of weights, and whether answers stay the same.

    Args:
        pair, small: the same pair in float32 and with smaller weights, on one device.
        clips: video files of one size; clip i is asked ``prompts[i]``.
        kind: what the smaller weights are, such as ``"int8"``.
        reference: another device, whose float32 answers those of this one should be.

    Raises:
        HippoError: no clips, or tokens that are not those of the target alone though the target
            computes in float32 (in bfloat16 or float16 ties within rounding may part them; such
            clips are counted).
    """
    if not clips:
        raise HippoError(f"{kind} is measured on clips; give at least one")
    kinds = (FLOAT, kind)
    models = {
        role: dict(zip(kinds, (getattr(pair, role), getattr(small, role)), strict=True))
        for role in ROLES
    }
    other = None if reference is None else jax.device_put(pair.target, reference)
    cases = [(t, d, schedule) for t in kinds for d in kinds for schedule in SCHEDULES]
    counted: dict[tuple[str, str, str], list[SpeculationStats]] = {case: [] for case in cases}
    apart: dict[str, list[dict[str, np.ndarray]]] = {role: [] for role in ROLES}
    equal = dict.fromkeys(cases, 0)
    same = as_reference = 0
    for inputs, rows in batches_of(pair, clips, prompts):
        own = {
            name: jax.device_get(generate(model, inputs, max_new_tokens=NEW_TOKENS))
            for name, model in models["target"].items()
        }
        tokens, lengths = own[FLOAT].tokens, own[FLOAT].lengths
        same += _equal(own[FLOAT], own[kind], rows)
        if other is not None:
            moved = jax.device_put(inputs, reference)
            again = jax.device_get(generate(other, moved, max_new_tokens=NEW_TOKENS))
            as_reference += _equal(own[FLOAT], again, rows)
        told = np.arange(tokens.shape[1]) < lengths[:, None]
        told[rows:] = False  # clips that fill up the batch
        for role in ROLES:
            first, second = (
                np.asarray(answer_logits(model, inputs, tokens, draft=role == "draft"))[told]
                for model in models[role].values()
            )
            apart[role].append(distances(first, second))
        for case in cases:
            target, draft, schedule = case
            found = jax.device_get(
                hippo_generate(
                    ModelPair(models["target"][target], models["draft"][draft]),
                    inputs,
                    max_new_tokens=NEW_TOKENS,
                    config=HippoConfig(gamma=gamma, schedule=schedule),  # type: ignore[arg-type]
                )
            )
            if models["target"][target].dtype == jnp.float32:
                check_same(own[target], found, f"{target} target, {draft} draft, {schedule}")
            equal[case] += _equal(own[target], found, rows)
            cut = jax.tree.map(lambda x, rows=rows: x[:rows], found.stats)
            counted[case].append(cut)
            report(f"{target} target, {draft} draft, {schedule}: {cut.acceptance_rate:.3f}")
    return {
        "machine": machine(),
        "kind": kind,
        "clips": len(clips),
        "gamma": gamma,
        "same_answers": same,
        "as_reference": None if other is None else as_reference,
        "weights": {
            role: {name: weight_bytes_of(model) for name, model in models[role].items()}
            for role in ROLES
        },
        "logits": {role: _pooled(found) for role, found in apart.items()},
        "acceptance": [
            {
                "target": target,
                "draft": draft,
                **{
                    schedule: figures(joined(counted[target, draft, schedule]))
                    | {"own_answers": equal[target, draft, schedule]}
                    for schedule in SCHEDULES
                },
            }
            for target in kinds
            for draft in kinds
        ],
    }


def _equal(first: Generation, second: Generation, rows: int) -> int:
    """How many of the first rows say the same."""
    both = (first.tokens == second.tokens).all(axis=1) & (first.lengths == second.lengths)
    return int(both[:rows].sum())


def weight_bytes_of(model: VideoLM) -> int:
    """Bytes of its arrays."""
    return sum(array.nbytes for array in values(model).values())


@partial(jax.jit, static_argnames="draft")
def answer_logits(
    model: VideoLM, inputs: ModelInputs, tokens: jax.Array, *, draft: bool = False
) -> jax.Array:
    """The logits that choose each of ``tokens [B, L]`` behind the prompts: float32 ``[B, L, V]``.

    ``draft``: as for ``VideoLM.encode_video``; the whole prompt is read all the same.
    """
    batch, length = tokens.shape
    visual = model.encode_video(inputs, draft=draft)
    first, cache = model.prefill(inputs, 1, visual=visual)
    positions = jnp.asarray(inputs.next_position)[:, None] + jnp.arange(length)
    positions = jnp.broadcast_to(positions, (3, batch, length))
    behind, _ = model.forward_block(tokens, positions, cache, jnp.zeros(batch, jnp.int32))
    return jnp.concatenate([first[:, None], behind[:, :-1]], axis=1)


def distances(first: np.ndarray, second: np.ndarray) -> dict[str, np.ndarray]:
    """For each of N positions, from logits ``[N, V]``: largest and mean absolute difference,
    whether both prefer one token, and the divergence KL(first, second) of what they would say, in
    nats."""
    first, second = first.astype(np.float64), second.astype(np.float64)
    gap = np.abs(first - second)
    logs = [x - x.max(axis=1, keepdims=True) for x in (first, second)]
    logs = [x - np.log(np.exp(x).sum(axis=1, keepdims=True)) for x in logs]
    return {
        "largest": gap.max(axis=1),
        "mean": gap.mean(axis=1),
        "same_top": first.argmax(axis=1) == second.argmax(axis=1),
        "kl": (np.exp(logs[0]) * (logs[0] - logs[1])).sum(axis=1),
    }


def _pooled(found: Sequence[Mapping[str, np.ndarray]]) -> dict[str, float]:
    whole = {name: np.concatenate([part[name] for part in found]) for name in found[0]}
    return {
        "positions": len(whole["kl"]),
        "largest_difference": float(whole["largest"].max()),
        "mean_difference": float(whole["mean"].mean()),
        "same_top_token": float(whole["same_top"].mean()),
        "mean_kl_nats": float(whole["kl"].mean()),
    }


def as_table(outcome: Mapping[str, Any]) -> str:
    """The outcome as two markdown tables."""
    kinds = (FLOAT, outcome["kind"])
    lines = [
        f"{outcome['clips']} clips, {outcome['logits']['target']['positions']} tokens of the "
        f"float32 target's answers; {kinds[1]} against {FLOAT}; {where(outcome['machine'])}",
        "",
        f"| | weights, {kinds[0]} | {kinds[1]} | largest difference of logits | mean difference "
        "| same first choice | mean KL, nats |",
        "|" + "---|" * 7,
    ]
    for role in ROLES:
        found, size = outcome["logits"][role], outcome["weights"][role]
        cells = [role, *(as_text(size[kind]) for kind in kinds)]
        cells += [f"{found['largest_difference']:.3f}", f"{found['mean_difference']:.4f}"]
        cells += [f"{100 * found['same_top_token']:.2f} %", f"{found['mean_kl_nats']:.2g}"]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        f"Gamma {outcome['gamma']}, greedy. The two targets gave the same answer to "
        f"{outcome['same_answers']} of {outcome['clips']} clips. Acceptance in % (standard error "
        "over clips). Own answers: clips to which the pair said what its target says alone.",
        "",
        "| target | draft | acceptance, sequential | parallel | tokens a round, sequential "
        "| parallel | own answers, sequential | parallel |",
        "|" + "---|" * 8,
    ]
    for row in outcome["acceptance"]:
        found = [row[schedule] for schedule in SCHEDULES]
        cells = [row["target"], row["draft"]]
        cells += [percent(one["acceptance_rate"], one["acceptance_error"]) for one in found]
        cells += [digits(one["tokens_per_round"]) for one in found]
        cells += [str(one["own_answers"]) for one in found]
        lines.append(f"| {' | '.join(cells)} |")
    if outcome["as_reference"] is not None:
        lines += [
            "",
            f"In {FLOAT} the target says on the CPU what it says here to "
            f"{outcome['as_reference']} of {outcome['clips']} clips.",
        ]
    return "\n".join(lines)
