"""What int8 weights change: logits of target and draft, and how many tokens are accepted.

Logits are compared where they choose the tokens of the float target's own answers, which both
models are made to read. Every pair of a float or int8 target with a float or int8 draft decodes the
same clips, and must give the tokens of its own target.
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
from hippo_jax.decoding.generate import generate
from hippo_jax.decoding.stats import SpeculationStats
from hippo_jax.errors import HippoError
from hippo_jax.inputs.model_inputs import ModelInputs
from hippo_jax.placement.memory import as_text
from hippo_jax.placement.pair import ModelPair
from hippo_jax.scheduling.hippo import hippo_generate

KINDS = ("float", "int8")
ROLES = ("target", "draft")


def measure_int8(
    pair: ModelPair,
    small: ModelPair,
    clips: Sequence[Path],
    prompts: Sequence[str],
    *,
    gamma: int = DEFAULT_GAMMA,
    report: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Distances of logits, acceptance and bytes of weights.

    Args:
        pair, small: the same pair as it is and with int8 weights, on one device.
        clips: video files of one size; clip i is asked ``prompts[i]``.

    Raises:
        HippoError: no clips, or tokens that are not those of the target alone.
    """
    if not clips:
        raise HippoError("int8 is measured on clips; give at least one")
    models = {role: (getattr(pair, role), getattr(small, role)) for role in ROLES}
    cases = [(t, d, schedule) for t in KINDS for d in KINDS for schedule in SCHEDULES]
    counted: dict[tuple[str, str, str], list[SpeculationStats]] = {case: [] for case in cases}
    apart: dict[str, list[dict[str, np.ndarray]]] = {role: [] for role in ROLES}
    same = 0
    for inputs, rows in batches_of(pair, clips, prompts):
        own = {
            kind: jax.device_get(generate(model, inputs, max_new_tokens=NEW_TOKENS))
            for kind, model in zip(KINDS, models["target"], strict=True)
        }
        tokens, lengths = own["float"].tokens, own["float"].lengths
        same += int((own["float"].tokens == own["int8"].tokens).all(axis=1)[:rows].sum())
        told = np.arange(tokens.shape[1]) < lengths[:, None]
        told[rows:] = False  # clips that fill up the batch
        for role in ROLES:
            first, second = (
                np.asarray(answer_logits(model, inputs, tokens, draft=role == "draft"))[told]
                for model in models[role]
            )
            apart[role].append(distances(first, second))
        for target, draft, schedule in cases:
            found = jax.device_get(
                hippo_generate(
                    ModelPair(_kind(models, "target", target), _kind(models, "draft", draft)),
                    inputs,
                    max_new_tokens=NEW_TOKENS,
                    config=HippoConfig(gamma=gamma, schedule=schedule),  # type: ignore[arg-type]
                )
            )
            check_same(own[target], found, f"{target} target, {draft} draft, {schedule}")
            cut = jax.tree.map(lambda x, rows=rows: x[:rows], found.stats)
            counted[target, draft, schedule].append(cut)
            report(f"{target} target, {draft} draft, {schedule}: {cut.acceptance_rate:.3f}")
    return {
        "machine": machine(),
        "clips": len(clips),
        "gamma": gamma,
        "same_answers": same,
        "weights": {
            role: dict(zip(KINDS, map(weight_bytes_of, models[role]), strict=True))
            for role in ROLES
        },
        "logits": {role: _pooled(found) for role, found in apart.items()},
        "acceptance": [
            {
                "target": target,
                "draft": draft,
                **{
                    schedule: figures(
                        jax.tree.map(
                            lambda *parts: np.concatenate(parts),
                            *counted[target, draft, schedule],
                        )
                    )
                    for schedule in SCHEDULES
                },
            }
            for target in KINDS
            for draft in KINDS
        ],
    }


def _kind(models: Mapping[str, tuple[VideoLM, VideoLM]], role: str, kind: str) -> VideoLM:
    return models[role][KINDS.index(kind)]


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
    lines = [
        f"{outcome['clips']} clips, {outcome['logits']['target']['positions']} tokens of the float "
        f"target's answers; int8 against float32; {where(outcome['machine'])}",
        "",
        "| | weights, float | int8 | largest difference of logits | mean difference "
        "| same first choice | mean KL, nats |",
        "|" + "---|" * 7,
    ]
    for role in ROLES:
        found, size = outcome["logits"][role], outcome["weights"][role]
        cells = [role, *(as_text(size[kind]) for kind in KINDS)]
        cells += [f"{found['largest_difference']:.3f}", f"{found['mean_difference']:.4f}"]
        cells += [f"{100 * found['same_top_token']:.2f} %", f"{found['mean_kl_nats']:.2g}"]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        f"Gamma {outcome['gamma']}, greedy; all tokens are those of the row's own target. The "
        f"two targets gave the same answer to {outcome['same_answers']} of {outcome['clips']} "
        "clips. Acceptance in % (standard error over clips).",
        "",
        "| target | draft | acceptance, sequential | parallel | tokens a round, sequential "
        "| parallel |",
        "|" + "---|" * 6,
    ]
    for row in outcome["acceptance"]:
        kinds = [row[schedule] for schedule in SCHEDULES]
        cells = [row["target"], row["draft"]]
        cells += [percent(kind["acceptance_rate"], kind["acceptance_error"]) for kind in kinds]
        cells += [digits(kind["tokens_per_round"]) for kind in kinds]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
