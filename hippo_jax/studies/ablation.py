"""``hippo study ablation``: what each of the three scores does for acceptance.

HIPPO's ablation (arXiv 2601.08273): attention, temporal change and spatial variance each on and
off, with the share of kept tokens fixed; beside them the selectors that it is compared with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hippo_jax.benchmark.acceptance import Setting, measure_acceptance
from hippo_jax.benchmark.measure import Once, directly, machine
from hippo_jax.scoring.config import ScoringConfig
from hippo_jax.scoring.selection import check_keep_ratio
from hippo_jax.studies.charts import Bar, Bars
from hippo_jax.studies.material import Material
from hippo_jax.studies.study import Column, Study

WHOLE = "holistic"  # the name by which ``measure_acceptance`` knows what others are compared with
CHOICES = {
    WHOLE: ScoringConfig(),
    "attention + temporal": ScoringConfig(spatial=0.0),
    "attention + spatial": ScoringConfig(temporal=0.0),
    "temporal + spatial": ScoringConfig(attention=0.0),
    "attention": ScoringConfig(temporal=0.0, spatial=0.0),
    "temporal": ScoringConfig(attention=0.0, spatial=0.0),
    "spatial": ScoringConfig(attention=0.0, temporal=0.0),
    "uniform": ScoringConfig(selector="uniform"),
    "random": ScoringConfig(selector="random"),
    "draft": ScoringConfig(selector="draft"),
    "specvlm": ScoringConfig(selector="specvlm"),
}
COLUMNS = (
    Column("kept_by", "kept by"),
    Column("acceptance", "acceptance, %", ".1f"),
    Column("acceptance_error", "standard error", ".1f"),
    Column("acceptance_difference", "minus holistic", "+.1f"),
    Column("acceptance_difference_error", "its standard error", ".1f"),
    Column("mat", "MAT, parallel", ".2f"),
    Column("mat_difference", "minus holistic", "+.2f"),
    Column("tokens_per_round", "tokens a round, parallel", ".2f"),
    Column("tokens_per_round_difference", "minus holistic", "+.2f"),
    Column("sequential_mat", "MAT, sequential", ".2f"),
    Column("sequential_tokens_per_round", "tokens a round, sequential", ".2f"),
)


def study_ablation(
    material: Material,
    *,
    keep_ratio: float,
    gamma: int,
    report: Callable[[str], None] = lambda line: None,
    once: Once = directly,
) -> Study:
    """Acceptance, MAT and tokens a round by what chooses the kept tokens.

    Scores are normalised within each frame and added with weights 1 (on) and 0 (off):
    ``S = w_a N(attention) + w_t N(temporal) + w_s N(spatial)``, and the best ``keep_ratio`` of the
    tokens are kept (HIPPO, semantic-aware token preservation). Acceptance is accepted / judged
    draft tokens of the parallel schedule, which judges every token by a proposal. Differences of
    acceptance are taken clip by clip, with their standard error over clips.

    Raises:
        HippoError: a keep ratio outside 0 to 1, other tokens than the target's.
    """
    check_keep_ratio(keep_ratio)
    outcome = measure_acceptance(
        material.pair,
        material.videos,
        material.prompts,
        gamma=gamma,
        settings=[Setting(name, keep_ratio, scoring) for name, scoring in CHOICES.items()],
        batch=material.batch,
        report=report,
        once=once,
    )
    found = outcome["settings"]
    rows = tuple(_row(setting, found[0]) for setting in found)
    return Study(
        name="ablation",
        title="What each score does for acceptance",
        about=f"{material.said}, {outcome['tokens']} tokens, "
        f"{found[0]['kept_visual_tokens']:g} of {outcome['visual_tokens']:g} visual tokens kept, "
        f"gamma {gamma}, greedy",
        columns=COLUMNS,
        rows=rows,
        panels=(
            _bars("Acceptance, %, with its standard error over clips", rows, "acceptance"),
            _bars("Mean accepted tokens of a run (MAT), parallel schedule", rows, "mat"),
        ),
        machine=machine(),
        notes=(
            "Every answer is the target's own. MATs of the two schedules do not compare: a run "
            "goes on until a rejection in the parallel one and is one round in the other.",
        ),
    )


def _row(setting: Mapping[str, Any], whole: Mapping[str, Any]) -> dict[str, Any]:
    own, reference, turns = setting["parallel"], whole["parallel"], setting.get("sequential", {})
    return {
        "kept_by": setting["name"],
        "acceptance": _times(own["acceptance_rate"], 100),
        "acceptance_error": _times(own["acceptance_error"], 100),
        "acceptance_difference": _times(setting.get("minus_holistic", 0.0), 100),
        "acceptance_difference_error": _times(setting.get("minus_holistic_error", 0.0), 100),
        "mat": own["mat"],
        "mat_difference": _minus(own["mat"], reference["mat"]),
        "tokens_per_round": own["tokens_per_round"],
        "tokens_per_round_difference": _minus(
            own["tokens_per_round"], reference["tokens_per_round"]
        ),
        "sequential_mat": turns.get("mat"),
        "sequential_tokens_per_round": turns.get("tokens_per_round"),
    }


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else factor * value


def _minus(value: float | None, other: float | None) -> float | None:
    return None if value is None or other is None else value - other


def _bars(heading: str, rows: tuple[dict[str, Any], ...], key: str) -> Bars:
    """The holistic choice, parts of it and other selectors in a colour each."""

    def colour(name: str) -> int:
        return 0 if name == WHOLE else 1 if CHOICES[name].selector == WHOLE else 2

    return Bars(
        heading,
        tuple(
            Bar(row["kept_by"], row[key], row.get(f"{key}_error"), colour(row["kept_by"]))
            for row in rows
        ),
        form=".1f" if key == "acceptance" else ".2f",
    )
