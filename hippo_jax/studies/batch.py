"""``hippo study batch``: does speculation pay when several videos are decoded together?

HIPPO (arXiv 2601.08273) measures one video at a time and leaves larger batches open.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hippo_jax.benchmark.acceptance import NEW_TOKENS
from hippo_jax.benchmark.measure import Once, Summary, directly, machine
from hippo_jax.benchmark.timed import hippo_decoder, plain_decoder
from hippo_jax.decoding.config import HippoConfig
from hippo_jax.errors import HippoError
from hippo_jax.scoring.selection import check_keep_ratio
from hippo_jax.studies.charts import Lines
from hippo_jax.studies.material import Material
from hippo_jax.studies.study import Column, Study
from hippo_jax.studies.sweep import Way, check_repeats, measure_ways, point

BATCHES = (1, 8, 16, 32)
COLUMNS = (
    Column("batch", "rows", "g"),
    Column("plain_tokens_per_s", "target alone, tokens/s"),
    Column("hippo_tokens_per_s", "sequential, tokens/s"),
    Column("whole_speedup", "speed", ".2f"),
    Column("decode_speedup", "speed without prefill", ".2f"),
    Column("acceptance", "acceptance, %", ".1f"),
    Column("tokens_per_round", "tokens a round and row", ".2f"),
    Column("plain_waiting", "row-steps waited, target alone, %", ".1f"),
    Column("hippo_waiting", "row-rounds waited, sequential, %", ".1f"),
    Column("tokens_per_round_waiting", "tokens a round and row, waiting counted", ".2f"),
)


def waiting(steps: Sequence[int], batch: int) -> float:
    """Share of a batch's row-steps in which a row was done and waited for others.

    Rows run until the slowest is done: of ``batch * max`` row-steps of each batch ``sum`` are of
    use, so ``1 - sum / (batch * max)`` over all batches together; 0 where there were no steps.

    Args:
        steps: of every row, batch after batch.
    """
    table = np.asarray(steps).reshape(-1, batch)
    most = batch * table.max(axis=1).sum()
    return 1 - float(table.sum() / most) if most else 0.0


def study_batch(
    material: Material,
    *,
    batches: Sequence[int] = BATCHES,
    keep_ratio: float,
    gamma: int,
    repeats: int,
    report: Callable[[str], None] = lambda line: None,
    once: Once = directly,
) -> Study:
    """Tokens a second with and without a draft, by how many clips are decoded together.

    A batch reads the weights once for all rows, so a forward over more tokens is no longer free
    and speculation has less to win; and every row waits for the slowest, in tokens for plain
    decoding and in rounds for speculation, whose rows differ by luck as well as by length. With
    r_i the rounds of row i the share that waits is ``1 - sum r_i / (B max r_i)``. All clips are
    decoded at each batch size; where they do not fill the last batch the first ones come again.

    Raises:
        HippoError: a batch that has more rows than there are clips, no repeat, other tokens than
            the target's.
    """
    check_repeats(repeats)
    check_keep_ratio(keep_ratio)
    for batch in batches:
        if not 1 <= batch <= len(material.videos):
            raise HippoError(
                f"a batch of {batch} rows needs from 1 to {len(material.videos)}, the number of "
                "clips; give more clips or other --values"
            )
    plain = plain_decoder(material.pair.target, NEW_TOKENS)
    config = HippoConfig(gamma=gamma, schedule="sequential", keep_ratio=keep_ratio)
    hippo = hippo_decoder(material.pair, NEW_TOKENS, config)
    prompts = {batch: material.inputs(batch) for batch in batches}
    decoders = {(batch, kind): kind for batch in batches for kind in (plain, hippo)}
    names = {
        key: f"{key[0]} rows, {'target alone' if key[1] is plain else 'sequential'}"
        for key in decoders
    }
    ways, _ = measure_ways(
        {names[key]: prompts[key[0]] for key in decoders},
        {names[key]: kind for key, kind in decoders.items()},
        {names[batch, hippo]: names[batch, plain] for batch in batches},
        repeats,
        report,
        once=once,
    )
    rows = tuple(
        _row(batch, ways[names[batch, plain]], ways[names[batch, hippo]]) for batch in batches
    )

    def lines(heading: str, **keys: str) -> Lines:
        series = {said: [point(row[key]) for row in rows] for key, said in keys.items()}
        return Lines(heading, "rows decoded together", tuple(map(str, batches)), series)

    return Study(
        name="batch",
        title="What a draft is worth when several videos are decoded together",
        about=f"{material.said}, gamma {gamma}, keep ratio {keep_ratio:g}, greedy, median of "
        f"{repeats} (smallest to largest)",
        columns=COLUMNS,
        rows=rows,
        panels=(
            lines(
                "Tokens a second, prefill included",
                plain_tokens_per_s="target alone",
                hippo_tokens_per_s="sequential",
            ),
            lines(
                "Speed, times the target alone",
                whole_speedup="with prefill",
                decode_speedup="without prefill",
            ),
            lines(
                "Waiting for the slowest row, % of all row-steps or row-rounds",
                plain_waiting="target alone",
                hippo_waiting="sequential",
            ),
        ),
        machine=machine(),
        notes=("Every answer is that of the target alone in the same batch.",),
    )


def _row(batch: int, plain: Way, hippo: Way) -> dict[str, Any]:
    stats = hippo.answers.pooled
    lost = waiting(stats.rounds.tolist(), batch)
    counters = hippo.counters
    committed = counters["tokens_per_round"]
    return {
        "batch": batch,
        "plain_tokens_per_s": _rate(plain),
        "hippo_tokens_per_s": _rate(hippo),
        **hippo.speedup(plain),
        **counters,
        # The first token comes with the prefill.
        "plain_waiting": 100 * waiting([len(row) - 1 for row in plain.answers.tokens], batch),
        "hippo_waiting": 100 * lost,
        "tokens_per_round_waiting": None if committed is None else committed * (1 - lost),
    }


def _rate(way: Way) -> Summary:
    """Tokens a second out of seconds a row."""
    tokens = sum(map(len, way.answers.tokens)) / len(way.answers.tokens)
    whole = way.times["whole_s"]
    return Summary(tokens / whole.median, tokens / whole.high, tokens / whole.low)
