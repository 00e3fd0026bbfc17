"""``hippo study gamma``: how many tokens the draft should propose at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

from hippo_jax.benchmark.acceptance import NEW_TOKENS
from hippo_jax.benchmark.measure import Once, directly, machine
from hippo_jax.benchmark.parts import measured_parts, step_times, without_scores
from hippo_jax.benchmark.recording import pattern_of
from hippo_jax.benchmark.timed import hippo_decoder, plain_decoder
from hippo_jax.decoding.config import HippoConfig
from hippo_jax.errors import HippoError
from hippo_jax.scheduling.plan import make_plan
from hippo_jax.scheduling.time_model import (
    Schedule,
    plain_seconds,
    predict_wall,
    prefill_seconds,
    replay,
)
from hippo_jax.scoring.selection import check_keep_ratio
from hippo_jax.studies.charts import Lines
from hippo_jax.studies.material import Material
from hippo_jax.studies.study import Column, Study
from hippo_jax.studies.sweep import PLAIN, check_repeats, measure_ways, point

GAMMAS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16)
SCHEDULES: tuple[Schedule, ...] = ("sequential", "parallel")
COLUMNS = (
    Column("schedule", "schedule"),
    Column("gamma", "gamma", "g"),
    Column("acceptance", "acceptance, %", ".1f"),
    Column("mat", "MAT", ".2f"),
    Column("tokens_per_round", "tokens a round", ".2f"),
    Column("prefill_s", "prefill, s a clip"),
    Column("decode_ms_per_token", "decode, ms a token"),
    Column("whole_s", "s a clip"),
    Column("whole_speedup", "speed", ".2f"),
    Column("modelled_one_device_s", "modelled, s a clip on one device"),
    Column("modelled_own_devices_s", "modelled, s a clip with devices of their own"),
    Column("modelled_own_devices_speedup", "modelled, speed with devices of their own", ".2f"),
    Column("modelled_one_device_ms_per_token", "modelled, decode, ms a token on one device"),
    Column(
        "modelled_own_devices_ms_per_token",
        "modelled, decode, ms a token with devices of their own",
    ),
)
MODELLED_DECODE = ("modelled_one_device_ms_per_token", "modelled_own_devices_ms_per_token")


def study_gamma(
    material: Material,
    *,
    gammas: Sequence[int] = GAMMAS,
    keep_ratio: float,
    repeats: int,
    report: Callable[[str], None] = lambda line: None,
    once: Once = directly,
) -> Study:
    """Tokens a round and time of both schedules by gamma, the length of a chunk.

    HIPPO's video parallel speculative decoding (its two modes are PEARL's pre-verify and
    post-verify, arXiv 2408.11850) and plain speculative decoding, measured on one device, where
    the models take turns. With devices of their own a parallel round takes
    ``max(gamma * t_draft, t_target(gamma)) + hop`` and a sequential one
    ``gamma * t_draft + t_target(gamma + 1) + 2 hop``: that is modelled by
    ``scheduling.time_model`` from forwards measured alone in the same turns and from where the
    draft was right in these answers, with ``hop = 0``: it says what two such devices could do at
    best, on the first clip's sizes.

    Raises:
        HippoError: a gamma below 1 or above the room of an answer, no repeat, other tokens than the
            target's.
    """
    check_repeats(repeats)
    check_keep_ratio(keep_ratio)
    for gamma in gammas:
        if not 1 <= gamma <= NEW_TOKENS:
            raise HippoError(f"gamma must be from 1 to {NEW_TOKENS}, got {gamma}")
    prompts, pair = material.inputs(), material.pair
    settings: dict[str, tuple[Schedule, int]] = {
        f"{schedule}, gamma {gamma}": (schedule, gamma)
        for schedule in SCHEDULES
        for gamma in gammas
    }
    decoders = {PLAIN: plain_decoder(pair.target, NEW_TOKENS)}
    for name, (schedule, gamma) in settings.items():
        config = HippoConfig(gamma=gamma, schedule=schedule, keep_ratio=keep_ratio)
        decoders[name] = hippo_decoder(pair, NEW_TOKENS, config)
    longest = HippoConfig(gamma=max(gammas), schedule="parallel", keep_ratio=keep_ratio)
    plan, _ = make_plan(pair, prompts[0], NEW_TOKENS, None, None, None, None, longest)
    ways, parts = measure_ways(
        dict.fromkeys(decoders, prompts),
        decoders,
        dict.fromkeys(settings, PLAIN),
        repeats,
        report,
        others=measured_parts(pair, prompts[0], plan),
        once=once,
    )
    # In the parallel schedule every token is judged, so its runs say where the draft was right.
    judged = ways[f"parallel, gamma {gammas[0]}"].answers
    patterns = [
        pattern_of(runs.tolist(), len(tokens))
        for runs, tokens in zip(judged.pooled.runs, judged.tokens, strict=True)
    ]
    times = step_times(parts)
    later = sum(len(pattern) - 1 for pattern in patterns)  # the first token is the prefill's
    alone = fmean(plain_seconds(without_scores(times, parts), len(one)) for one in patterns)
    rows: list[dict[str, Any]] = [
        {
            **dict.fromkeys((column.key for column in COLUMNS), ""),
            "schedule": PLAIN,
            **ways[PLAIN].times,
            "whole_speedup": 1.0,
            "modelled_one_device_s": alone,
            "modelled_own_devices_s": alone,
            "modelled_own_devices_speedup": 1.0,
            **dict.fromkeys(MODELLED_DECODE, 1e3 * times.verify_time(1)),
        }
    ]
    for name, (schedule, gamma) in settings.items():
        way = ways[name]
        replayed = [replay(pattern, gamma, schedule) for pattern in patterns]
        walls, decode = {}, {}
        for concurrent, key in enumerate(MODELLED_DECODE):
            walls[concurrent] = fmean(
                predict_wall(times, one, bool(concurrent)) for one in replayed
            )
            first = prefill_seconds(times, schedule, gamma, bool(concurrent))
            decode[key] = 1e3 * len(patterns) * (walls[concurrent] - first) / max(1, later)
        rows.append(
            {
                "schedule": schedule,
                "gamma": gamma,
                **way.counters,
                **way.times,
                "whole_speedup": way.speedup(ways[PLAIN])["whole_speedup"],
                "modelled_one_device_s": walls[False],
                "modelled_own_devices_s": walls[True],
                "modelled_own_devices_speedup": alone / walls[True],
                **decode,
            }
        )
    across = tuple(str(gamma) for gamma in gammas)

    def lines(heading: str, keys: dict[str, str], plain: str | None = None) -> Lines:
        series = {
            f"{schedule}{said}": [point(row[key]) for row in rows if row["schedule"] == schedule]
            for key, said in keys.items()
            for schedule in SCHEDULES
        }
        if plain is not None:
            series[PLAIN] = [point(rows[0][plain])] * len(across)
        return Lines(heading, "gamma, tokens that the draft proposes at once", across, series)

    return Study(
        name="gamma",
        title="How many tokens the draft should propose at once; times with devices of their own "
        "are modelled",
        about=f"{material.said}, {sum(map(len, patterns))} new tokens in all, keep ratio "
        f"{keep_ratio:g}, greedy, median of {repeats} (smallest to largest)",
        columns=COLUMNS,
        rows=tuple(rows),
        panels=(
            lines("Tokens a round", {"tokens_per_round": ""}),
            lines(
                "Seconds a clip, measured on one device, by turns", {"whole_s": ""}, plain="whole_s"
            ),
            lines(
                "Decoding, ms a token, modelled",
                dict(zip(MODELLED_DECODE, (", one device", ", own devices"), strict=True)),
                plain=MODELLED_DECODE[0],
            ),
        ),
        machine=machine(),
        notes=(
            "Every answer is the target's own. The model takes an exchange between devices as "
            "free.",
        ),
    )
