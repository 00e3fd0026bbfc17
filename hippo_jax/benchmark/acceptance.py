"""How many of the draft's tokens the target accepts, by what the draft sees of the video.

Every setting decodes the same clips in both schedules, and must give the target's own tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hippo_jax.architectures.video_lm import VideoLM
from hippo_jax.benchmark.measure import Once, directly
from hippo_jax.benchmark.ratios import paired_difference, ratio_error
from hippo_jax.decoding.config import DEFAULT_GAMMA, HippoConfig
from hippo_jax.decoding.generate import Generation, generate
from hippo_jax.decoding.stats import SpeculationStats, joined
from hippo_jax.errors import HippoError
from hippo_jax.inputs.model_inputs import ModelInputs
from hippo_jax.inputs.prepare import prepare_inputs
from hippo_jax.scheduling.hippo import hippo_generate
from hippo_jax.scheduling.one_device import advance, start
from hippo_jax.scheduling.plan import Plan, make_plan
from hippo_jax.scheduling.programs import ALL_ROUNDS
from hippo_jax.scheduling.state import finish
from hippo_jax.scoring.config import ScoringConfig

BATCH = 16  # clips at a time
NEW_TOKENS = 128
SCHEDULES = ("sequential", "parallel")
KEEP_RATIOS = (0.5, 0.25, 0.1, 0.05)
SELECTORS = {
    "holistic": ScoringConfig(),
    "attention alone": ScoringConfig(temporal=0.0, spatial=0.0),
    "temporal alone": ScoringConfig(attention=0.0, spatial=0.0),
    "spatial alone": ScoringConfig(attention=0.0, temporal=0.0),
    "specvlm": ScoringConfig(selector="specvlm"),
    "draft": ScoringConfig(selector="draft"),
    "uniform": ScoringConfig(selector="uniform"),
    "random": ScoringConfig(selector="random"),
}
REFERENCE = "holistic"  # what the other selectors are compared with, clip by clip


@dataclass(frozen=True)
class Setting:
    """What the draft sees.

    Attributes:
        name: for the table.
        keep_ratio: share of the visual tokens, from 0 (text alone) to 1 (all of them).
        scoring: which ones.
    """

    name: str
    keep_ratio: float
    scoring: ScoringConfig = SELECTORS[REFERENCE]

    def decode(self, pair: Any, inputs: ModelInputs, gamma: int, schedule: Any) -> Generation:
        """Greedy answers of the pair."""
        blind = self.keep_ratio == 0  # no selector can keep nothing
        config = HippoConfig(
            gamma=gamma,
            keep_ratio=1.0 if blind else self.keep_ratio,
            schedule=schedule,
            scoring=self.scoring,
        )
        if not blind:
            return hippo_generate(pair, inputs, max_new_tokens=NEW_TOKENS, config=config)
        plan, limit = make_plan(pair, inputs, NEW_TOKENS, None, None, None, None, config)
        return _decode_blind(pair.target, pair.draft, inputs, limit, plan)


@partial(jax.jit, static_argnames="plan")
def _decode_blind(
    target: VideoLM, draft: VideoLM, inputs: ModelInputs, limit: jax.Array, plan: Plan
) -> Generation:
    """The same program with the text alone for the draft."""
    nothing = jnp.full((inputs.token_ids.shape[0], 1), -1, jnp.int32)
    state = start(target, draft, inputs, limit, None, plan, kept=nothing)
    state = advance(target, draft, state, limit, None, jnp.int32(ALL_ROUNDS), plan)
    return Generation(*finish(state, plan))


def all_settings() -> tuple[Setting, ...]:
    """The ceiling, every selector at every keep ratio, the floor."""
    chosen = [
        Setting(name, ratio, scoring)
        for ratio in KEEP_RATIOS
        for name, scoring in SELECTORS.items()
    ]
    return (Setting("all tokens", 1.0), *chosen, Setting("no visual token", 0.0))


def measure_acceptance(
    pair: Any,
    clips: Sequence[Path],
    prompts: Sequence[str],
    *,
    gamma: int = DEFAULT_GAMMA,
    settings: Sequence[Setting] | None = None,
    batch: int | None = None,
    report: Callable[[str], None] = lambda line: None,
    once: Once = directly,
) -> dict[str, Any]:
    """Pooled counters of every setting over the same clips. A part of ``once`` is a batch.

    Args:
        clips: video files of one size; clip i is asked ``prompts[i]``.
        settings: ``None``: all of them.
        batch: clips at a time; ``None``: ``BATCH``.

    Raises:
        HippoError: no clips, or tokens that are not those of plain decoding.
    """
    if not clips:
        raise HippoError("acceptance is measured on clips; give at least one")
    settings = all_settings() if settings is None else settings
    cases = [(setting, schedule) for setting in settings for schedule in SCHEDULES]
    pooled: dict[tuple[Setting, str], list[SpeculationStats]] = {case: [] for case in cases}
    tokens = 0
    groups = list(groups_of(len(clips), batch))

    def count(members: Sequence[int], rows: int, number: int) -> dict[str, Any]:
        inputs = prepare_inputs(pair, [clips[i] for i in members], [prompts[i] for i in members])
        inputs = jax.device_put(inputs)
        expected = jax.device_get(generate(pair.target, inputs, max_new_tokens=NEW_TOKENS))
        counted = []
        for done, (setting, schedule) in enumerate(cases, 1):
            found = jax.device_get(setting.decode(pair, inputs, gamma, schedule))
            check_same(expected, found, f"{setting.name}, {setting.keep_ratio:g}, {schedule}")
            own = jax.tree.map(lambda x: x[:rows], found.stats)
            counted.append(plain_counters(own))
            report(
                f"batch {number} of {len(groups)}, {done} of {len(cases)}: {setting.name}, "
                f"keep ratio {setting.keep_ratio:g}, {schedule}: "
                f"acceptance {own.acceptance_rate:.3f}"
            )
        return {"tokens": int(expected.lengths[:rows].sum()), "cases": counted}

    for number, (members, rows) in enumerate(groups, 1):
        found = once(f"batch {number}", partial(count, members, rows, number))
        tokens += found["tokens"]
        for case, counted in zip(cases, found["cases"], strict=True):
            pooled[case].append(counters_of(counted))
    whole = {case: joined(parts) for case, parts in pooled.items()}
    return {
        "clips": len(clips),
        "gamma": gamma,
        "tokens": tokens,
        "visual_tokens": float(whole[cases[0]].visual_tokens.mean()),
        "same_tokens": True,  # else there had been an error
        "settings": [row(setting, whole) for setting in settings],
    }


def batches_of(
    pair: Any, clips: Sequence[Path], prompts: Sequence[str], batch: int | None = None
) -> Iterator[tuple[ModelInputs, int]]:
    """Batches of one compiled size, and how many rows of each count; the first clips fill up the
    last batch."""
    for members, rows in groups_of(len(clips), batch):
        inputs = prepare_inputs(pair, [clips[i] for i in members], [prompts[i] for i in members])
        yield jax.device_put(inputs), rows


def groups_of(count: int, batch: int | None = None) -> Iterator[tuple[list[int], int]]:
    """Which of ``count`` clips make each batch, and how many of them count."""
    size = min(BATCH if batch is None else batch, count)
    for first in range(0, count, size):
        rows = min(size, count - first)
        yield [*range(first, first + rows), *range(size - rows)], rows


def plain_counters(stats: SpeculationStats) -> dict[str, Any]:
    """Counters as JSON can say them, without which tokens were kept."""
    names = (field.name for field in fields(stats) if field.name != "kept_indices")
    return {name: np.asarray(getattr(stats, name)).tolist() for name in names}


def counters_of(counted: Mapping[str, Any]) -> SpeculationStats:
    """The counters that ``plain_counters`` said."""
    arrays: dict[str, Any] = {name: np.array(value) for name, value in counted.items()}
    kept: Any = np.zeros((len(arrays["rounds"]), 0), np.int32)
    return SpeculationStats(**arrays, kept_indices=kept)


def check_same(expected: Generation, found: Generation, setting: str) -> None:
    """Raise HippoError unless both are the same tokens."""
    other = (expected.tokens != found.tokens).any(axis=1) | (expected.lengths != found.lengths)
    if other.any():
        raise HippoError(
            f"not the target's own tokens ({setting}, row {int(np.argmax(other))} of the batch): "
            "decoding is at fault"
        )


def row(setting: Setting, whole: Mapping[tuple[Setting, str], SpeculationStats]) -> dict[str, Any]:
    """A setting's figures out of the pooled counters of all settings and schedules.

    ``minus_holistic``: acceptance in the parallel schedule, which judges every token by a proposal,
    minus that of the holistic scores at the same keep ratio.
    """
    schedules = {schedule: whole[setting, schedule] for schedule in SCHEDULES}
    found: dict[str, Any] = {
        "name": setting.name,
        "keep_ratio": setting.keep_ratio,
        "kept_visual_tokens": float(schedules["parallel"].kept_visual_tokens.mean()),
        **{schedule: figures(stats) for schedule, stats in schedules.items()},
    }
    reference = whole.get((Setting(REFERENCE, setting.keep_ratio), "parallel"))
    if reference is not None and setting.name != REFERENCE:
        pairs = [(s.accepted, s.judged) for s in (schedules["parallel"], reference)]
        apart, error = paired_difference(*pairs)
        found["minus_holistic"], found["minus_holistic_error"] = apart, _known(error)
    return found


def figures(stats: SpeculationStats) -> dict[str, float | None]:
    """Pooled over rows; ``None`` where nothing was counted."""
    return {
        "acceptance_rate": _known(stats.acceptance_rate),
        "acceptance_error": _known(ratio_error(stats.accepted, stats.judged)),
        "mat": _known(stats.mat),
        "mat_with_correction": _known(stats.mat_with_correction),
        "tokens_per_round": _known(stats.tokens_per_round),
    }


def _known(figure: float) -> float | None:
    """``None`` where nothing was counted, which JSON can say."""
    return figure if math.isfinite(figure) else None


def as_table(outcome: Mapping[str, Any]) -> str:
    """The outcome as a markdown table."""
    lines = [
        f"{outcome['clips']} clips, {outcome['tokens']} tokens, gamma {outcome['gamma']}, greedy; "
        "all tokens are those of the target alone. Acceptance in % (standard error over clips); "
        "minus holistic: parallel, clip by clip at the same keep ratio.",
        "",
        "| draft sees | visual tokens | acceptance, sequential | parallel | minus holistic "
        "| MAT (+ 1), sequential | parallel | tokens a round, sequential | parallel |",
        "|" + "---|" * 9,
    ]
    for line in outcome["settings"]:
        kinds = [line[schedule] for schedule in SCHEDULES]
        cells = [line["name"], f"{line['kept_visual_tokens']:g} of {outcome['visual_tokens']:g}"]
        cells += [percent(kind["acceptance_rate"], kind["acceptance_error"]) for kind in kinds]
        apart = line.get("minus_holistic")
        cells.append("" if apart is None else percent(apart, line["minus_holistic_error"], "+"))
        cells += [
            f"{digits(kind['mat'])} ({digits(kind['mat_with_correction'])})" for kind in kinds
        ]
        cells += [digits(kind["tokens_per_round"]) for kind in kinds]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def percent(share: float | None, error: float | None, sign: str = "") -> str:
    """In a table, with its standard error."""
    return f"{digits(share, 100, f'{sign}.1f')} ({digits(error, 100, '.1f')})"


def digits(figure: float | None, times: float = 1, form: str = ".2f") -> str:
    """In a table, where ``?`` is nothing counted."""
    return "?" if figure is None else format(times * figure, form)
