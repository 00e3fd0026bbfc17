"""``hippo study position-bias``: does a score prefer the border of the frame?

The paper's motivation (HIPPO, arXiv 2601.08273): of the tenth of visual tokens that get most
attention, tokens at the frame's border make a far larger share than of all tokens, and with the
holistic score their share falls back to what chance gives. What the paper calls the border is not
known; here it is a ring of ``border`` tokens around each frame's grid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from hippo_jax.benchmark.acceptance import NEW_TOKENS, Setting, check_same
from hippo_jax.benchmark.measure import Once, directly, machine
from hippo_jax.decoding.generate import generate
from hippo_jax.errors import HippoError
from hippo_jax.inputs.model_inputs import ModelInputs, VisualTable
from hippo_jax.scoring.attention import attention_relevance
from hippo_jax.scoring.config import ScoringConfig
from hippo_jax.scoring.picture import seen_frames
from hippo_jax.scoring.selection import check_keep_ratio, select_tokens
from hippo_jax.scoring.selectors import SelectionContext, selector_scores
from hippo_jax.studies.charts import Bar, Bars
from hippo_jax.studies.heat_maps import HeatMaps
from hippo_jax.studies.material import Material
from hippo_jax.studies.study import Column, Study

RAW, HOLISTIC = "attention alone, not normalised", "holistic"
WAYS = {
    RAW: ScoringConfig(temporal=0.0, spatial=0.0, normaliser="none"),
    "attention alone": ScoringConfig(temporal=0.0, spatial=0.0),
    "temporal alone": ScoringConfig(attention=0.0, spatial=0.0),
    "spatial alone": ScoringConfig(attention=0.0, temporal=0.0),
    HOLISTIC: ScoringConfig(),
}
COLUMNS = (
    Column("score", "score"),
    Column("border_share", "border tokens among the kept, %", ".1f"),
    Column("error", "standard error over clips", ".1f"),
    Column("all_share", "border tokens among all (chance), %", ".1f"),
    Column("times_chance", "times chance", ".2f"),
)


def border_tokens(table: VisualTable, width: int) -> np.ndarray:
    """Which visual tokens stand within ``width`` tokens of their frame's edge, bool ``[N]``; false
    on padding."""
    if width < 1:
        raise HippoError(f"--border {width}: at least one token is needed")
    y, x, high, wide = (np.asarray(getattr(table, n)) for n in ("y", "x", "height", "width"))
    near = (y < width) | (x < width) | (y >= high - width) | (x >= wide - width)
    return near & np.asarray(table.valid)


def border_shares(table: VisualTable, kept: Any, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Share of border tokens among the kept ones and among all, float ``[B]`` each.

    Args:
        kept: int ``[B, K]``, ordinals within the row, -1 behind them.
    """
    border, rows = border_tokens(table, width), np.asarray(table.row)
    valid = np.asarray(table.valid)
    of_kept, of_all = [], []
    for row, chosen in enumerate(np.asarray(kept)):
        own = border[valid & (rows == row)]
        of_kept.append(own[chosen[chosen >= 0]].mean())
        of_all.append(own.mean())
    return np.array(of_kept), np.array(of_all)


def study_position_bias(
    material: Material,
    *,
    keep_ratio: float,
    border: int = 1,
    gamma: int,
    report: Callable[[str], None] = lambda line: None,
    once: Once = directly,
) -> Study:
    """Share of border tokens among the kept ones by each score, clip by clip, then averaged.

    For a clip whose score keeps the set K of its N visual tokens, and the set B of those at the
    border: ``|K and B| / |K|``, beside ``|B| / N``, which any choice that does not look at the
    place gives on average. "attention alone, not normalised" is the plain mean of the target's
    attention over layers, heads and text rows, as a method that looks at attention alone would
    rank; the other rows are normalised within each frame first, as HIPPO does.

    The answers with the holistic choice are compared with the target's own.

    Raises:
        HippoError: a border below 1 token or a keep ratio outside 0 to 1, other tokens than the
            target's.
    """
    check_keep_ratio(keep_ratio)
    if border < 1:
        raise HippoError(f"--border {border}: at least one token is needed")
    shares: dict[str, list[float]] = {name: [] for name in WAYS}
    everywhere: list[float] = []
    setting = Setting(HOLISTIC, keep_ratio)
    maps: HeatMaps | None = None
    for number, (read, rows) in enumerate(material.batches(), 1):
        look = partial(_look, material.pair, read, rows, setting, gamma, border, number == 1)
        found = once(f"batch {number}", look)
        for name in WAYS:
            shares[name] += found["kept"][name]
        everywhere += found["all"]
        if maps is None:
            frames = tuple(seen_frames(material.pair, jax.device_get(read())))
            shown = {name: (np.array(s), np.array(k)) for name, (s, k) in found["shown"].items()}
            maps = HeatMaps("Scores of the first clip", frames, shown, border)
        report(f"{len(everywhere)} of {len(material.videos)} clips done")
    rows_found = [_row(name, shares[name], everywhere) for name in WAYS]
    assert maps is not None
    chance = 100 * float(np.mean(everywhere))
    bars = tuple(
        Bar(row["score"], row["border_share"], row["error"], int(row["score"] != HOLISTIC))
        for row in rows_found
    )
    heading = f"Border tokens among the {100 * keep_ratio:g} % with the highest score, %"
    return Study(
        name="position-bias",
        title="Which scores prefer the border of the frame",
        about=f"{material.said}, {100 * keep_ratio:g} % of the visual tokens kept, border "
        f"{border} token{'s' if border > 1 else ''} wide, mean over clips",
        columns=COLUMNS,
        rows=tuple(rows_found),
        panels=(
            Bars(heading, bars, line=(chance, f"among all tokens: {chance:.1f}")),
            maps,
        ),
        machine=machine(),
        notes=("Every answer with the holistic choice is the target's own.",),
    )


def _look(
    pair: Any,
    read: Callable[[], ModelInputs],
    rows: int,
    setting: Setting,
    gamma: int,
    border: int,
    shown: bool,
) -> dict[str, Any]:
    """The shares in the first ``rows`` rows of a batch, and what the picture shows of it."""
    inputs = read()
    own = generate(pair.target, inputs, max_new_tokens=NEW_TOKENS)
    found = setting.decode(pair, inputs, gamma, "sequential")
    own, found = jax.device_get((own, found))
    check_same(own, found, f"{HOLISTIC}, {setting.keep_ratio:g}")
    scores, kept = jax.device_get(_choices(pair.target, inputs, setting.keep_ratio))
    shares = {name: border_shares(inputs.table, kept[name], border) for name in WAYS}
    return {
        "kept": {name: of_kept[:rows].tolist() for name, (of_kept, _) in shares.items()},
        "all": shares[HOLISTIC][1][:rows].tolist(),
        "shown": _first_row(inputs, scores, kept) if shown else None,
    }


def _row(name: str, shares: Sequence[float], everywhere: Sequence[float]) -> dict[str, Any]:
    share, chance, count = np.mean(shares), np.mean(everywhere), len(shares)
    return {
        "score": name,
        "border_share": 100 * float(share),
        "error": 100 * float(np.std(shares, ddof=1) / count**0.5) if count > 1 else None,
        "all_share": 100 * float(chance),
        "times_chance": float(share / chance),
    }


@partial(jax.jit, static_argnames="keep_ratio")
def _ranked(
    inputs: ModelInputs, relevance: jax.Array, features: jax.Array, keep_ratio: float
) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    scores, kept = {}, {}
    for name, config in WAYS.items():
        context = SelectionContext(inputs, keep_ratio, relevance, features, config)
        scores[name] = selector_scores(context)
        kept[name] = select_tokens(scores[name], inputs, keep_ratio)
    return scores, kept


@jax.jit
def _features(model: Any, inputs: ModelInputs) -> jax.Array:
    return model.visual_features(inputs, model.encode_video(inputs))


def _choices(
    target: Any, inputs: ModelInputs, keep_ratio: float
) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """Scores ``[N]`` and kept tokens ``[B, K]`` of every way."""
    relevance = attention_relevance(target, inputs)
    return _ranked(inputs, relevance, _features(target, inputs), keep_ratio)


def _first_row(
    inputs: ModelInputs, scores: Any, kept: Any
) -> dict[str, tuple[list[Any], list[Any]]]:
    """Scores of the batch's first row, token by token, and which of them were kept."""
    own = np.asarray(inputs.table.valid) & (np.asarray(inputs.table.row) == 0)
    shown: dict[str, tuple[list[Any], list[Any]]] = {}
    for name in (RAW, HOLISTIC):
        chosen = np.zeros(own.sum(), bool)
        chosen[kept[name][0][kept[name][0] >= 0]] = True
        shown[name.replace(", ", ",\n")] = (scores[name][own].tolist(), chosen.tolist())
    return shown
