"""``hippo study keep-ratio``: how much of the video the draft needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hippo_jax.benchmark.acceptance import NEW_TOKENS
from hippo_jax.benchmark.measure import Once, directly, machine
from hippo_jax.benchmark.timed import hippo_decoder, plain_decoder
from hippo_jax.decoding.config import HippoConfig
from hippo_jax.scoring.selection import check_keep_ratio
from hippo_jax.studies.charts import Lines
from hippo_jax.studies.material import Material
from hippo_jax.studies.study import Column, Study
from hippo_jax.studies.sweep import PLAIN, check_repeats, measure_ways, point

KEEP_RATIOS = (1.0, 0.5, 0.25, 0.1, 0.05, 0.02)
COLUMNS = (
    Column("keep_ratio", "share kept", "g"),
    Column("kept_visual_tokens", "visual tokens", "g"),
    Column("acceptance", "acceptance, %", ".1f"),
    Column("mat", "MAT", ".2f"),
    Column("tokens_per_round", "tokens a round", ".2f"),
    Column("prefill_s", "prefill, s a clip"),
    Column("decode_ms_per_token", "decode, ms a token"),
    Column("whole_s", "s a clip"),
    Column("decode_speedup", "speed without prefill", ".2f"),
    Column("whole_speedup", "speed with prefill", ".2f"),
)


def study_keep_ratio(
    material: Material,
    *,
    keep_ratios: Sequence[float] = KEEP_RATIOS,
    schedule: Any = "sequential",
    gamma: int,
    repeats: int,
    report: Callable[[str], None] = lambda line: None,
    once: Once = directly,
) -> Study:
    """MAT, tokens a round, acceptance and time as the draft sees less and less.

    A clip of N visual tokens keeps ``ceil(ratio * N)`` for the draft (HIPPO keeps a tenth, its
    pruning ratio of 90 %); the target always sees all. Time falls with the draft's prompt and
    rises as its proposals get worse. Prefill ends with the first token and includes scores,
    choice and the draft's prompt; speeds are the target's median time divided by the way's own.

    Raises:
        HippoError: ratios outside 0 to 1, no repeat, other tokens than the target's.
    """
    check_repeats(repeats)
    for ratio in keep_ratios:
        check_keep_ratio(ratio)
    prompts = material.inputs()
    decoders = {PLAIN: plain_decoder(material.pair.target, NEW_TOKENS)}
    names = {f"keep ratio {ratio:g}": ratio for ratio in keep_ratios}
    for name, ratio in names.items():
        config = HippoConfig(gamma=gamma, schedule=schedule, keep_ratio=ratio)
        decoders[name] = hippo_decoder(material.pair, NEW_TOKENS, config)
    ways, _ = measure_ways(
        dict.fromkeys(decoders, prompts),
        decoders,
        dict.fromkeys(names, PLAIN),
        repeats,
        report,
        once=once,
    )
    rows: list[dict[str, Any]] = [
        {
            "keep_ratio": PLAIN,
            **dict.fromkeys(("kept_visual_tokens", "acceptance", "mat", "tokens_per_round"), ""),
            **ways[PLAIN].times,
            **ways[PLAIN].speedup(ways[PLAIN]),
        }
    ]
    for name, ratio in names.items():
        way = ways[name]
        kept = float(way.answers.pooled.kept_visual_tokens.mean())
        rows.append(
            {
                "keep_ratio": ratio,
                "kept_visual_tokens": kept,
                **way.counters,
                **way.times,
                **way.speedup(ways[PLAIN]),
            }
        )
    settings = tuple(f"{ratio:g}" for ratio in keep_ratios)

    def lines(heading: str, **keys: str) -> Lines:
        series = {said: [point(row[key]) for row in rows[1:]] for key, said in keys.items()}
        return Lines(heading, "share of the visual tokens that the draft sees", settings, series)

    whole = lines("Seconds a clip", whole_s="HIPPO, all in all", prefill_s="HIPPO, its prefill")
    plain = {
        f"{PLAIN}, all in all": [point(rows[0]["whole_s"])] * len(names),
        f"{PLAIN}, its prefill": [point(rows[0]["prefill_s"])] * len(names),
    }
    return Study(
        name="keep-ratio",
        title="How much of the video the draft needs",
        about=f"{material.said}, {sum(map(len, ways[PLAIN].answers.tokens))} new tokens in all, "
        f"{schedule} schedule, gamma {gamma}, greedy, median of {repeats} (smallest to largest)",
        columns=COLUMNS,
        rows=tuple(rows),
        panels=(
            lines("Mean accepted tokens of a run (MAT)", mat=f"{schedule} schedule"),
            lines("Tokens a round", tokens_per_round=f"{schedule} schedule"),
            lines("Acceptance, %", acceptance="accepted / judged draft tokens"),
            Lines(whole.heading, whole.across, settings, {**whole.series, **plain}),
        ),
        machine=machine(),
        notes=("Every answer is the target's own.",),
    )
