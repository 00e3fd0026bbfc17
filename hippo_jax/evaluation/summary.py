"""The figures of an evaluation, made of its lines.

Speed is of captions and quality of multiple-choice questions; no figure is of both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hippo_jax.decoding.stats import SpeculationStats
from hippo_jax.evaluation.choice import RULES

DRAWS, SEED = 2000, 0  # of the bootstrap
_COUNTERS = ("rounds", "round_tokens", "accepted", "judged", "visual_tokens", "kept_visual_tokens")


def summarize(rows: Sequence[Mapping[str, Any]], manifest: Mapping[str, Any]) -> dict[str, Any]:
    """All figures.

    Args:
        rows: one a sample, as ``runner`` wrote them.
        manifest: what was evaluated.
    """
    good = [row for row in rows if row["error"] is None]
    captions = [row for row in good if row["kind"] == "caption"]
    questions = [row for row in good if row["kind"] == "choice"]
    errors = [row for row in rows if row["error"] is not None]
    return {
        "manifest": dict(manifest),
        "samples": len(rows),
        "errors": [{"id": row["id"], "error": row["error"]} for row in errors],
        "speed": _speed(captions) if captions else None,
        "quality": _quality(questions) if questions else None,
        "check": _check(good),
    }


def pooled(rows: Sequence[Mapping[str, Any]]) -> SpeculationStats:
    """The counters of all rows, from which ``SpeculationStats`` makes its figures."""
    counted: dict[str, Any] = {
        name: np.array([row["stats"].get(name, row.get(name)) for row in rows])
        for name in _COUNTERS
    }
    runs: Any = np.array([run for row in rows for run in row["stats"]["runs"]], np.int64)
    kept: Any = np.zeros((0, 0), np.int32)  # which tokens were kept is not written down
    return SpeculationStats(**counted, runs=runs, kept_indices=kept)


def _speed(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    stats = pooled(rows)
    tokens = sum(len(row["tokens"]) for row in rows)
    seconds = sum(row["seconds"]["hippo"] for row in rows)
    found: dict[str, Any] = {
        "samples": len(rows),
        "tokens": tokens,
        "visual_tokens": float(stats.visual_tokens.mean()),
        "kept_visual_tokens": float(stats.kept_visual_tokens.mean()),
        "mat": _known(stats.mat),
        "mat_with_correction": _known(stats.mat_with_correction),
        "tokens_per_round": _known(stats.tokens_per_round),
        "acceptance_rate": _known(stats.acceptance_rate),
        "tokens_per_second": tokens / seconds,
    }
    both = [row for row in rows if "plain" in row["seconds"]]
    if both:
        found["plain_tokens_per_second"] = tokens_per_second(both, "plain")
        found["speedup"], found["speedup_interval"] = speedup(both)
    return found


def tokens_per_second(rows: Sequence[Mapping[str, Any]], way: str) -> float:
    """Tokens of all rows by the time that a way took for them.

    Both ways are given HIPPO's tokens: they give the same, up to ties within rounding.
    """
    return sum(len(row["tokens"]) for row in rows) / sum(row["seconds"][way] for row in rows)


def speedup(rows: Sequence[Mapping[str, Any]]) -> tuple[float, list[float] | None]:
    """Time of plain decoding by HIPPO's over all rows, and its 95 % interval.

    The interval is a percentile bootstrap over calls (samples, where each had a call of its own),
    with a fixed seed; ``None`` for fewer than two calls.
    """
    times = call_times(rows)
    whole = times.sum(axis=0)
    ratio = float(whole[0] / whole[1])
    if len(times) < 2:
        return ratio, None
    drawn = np.random.default_rng(SEED).integers(len(times), size=(DRAWS, len(times)))
    sums = times[drawn].sum(axis=1)
    low, high = np.percentile(sums[:, 0] / sums[:, 1], [2.5, 97.5])
    return ratio, [float(low), float(high)]


def call_times(rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Seconds ``[calls, 2]`` of plain decoding and of HIPPO's for the rows of each call."""
    calls: dict[int, list[float]] = {}
    for row in rows:
        one = calls.setdefault(row["batch"], [0.0, 0.0])
        one[0] += row["seconds"]["plain"]
        one[1] += row["seconds"]["hippo"]
    return np.array([calls[key] for key in sorted(calls)])


def _quality(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    tasks: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        for task in row["tasks"]:
            tasks.setdefault(task, []).append(row)
    if list(tasks) == ["all"]:  # no names were given
        tasks = {}
    by_task = {task: _accuracy(own) for task, own in tasks.items()}
    known = [one["accuracy"] for one in by_task.values() if one["accuracy"] is not None]
    return {
        "all": _accuracy(rows),
        "mean_of_tasks": float(np.mean(known)) if known else None,
        "tasks": by_task,
    }


def _accuracy(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Right answers among the questions whose answer is known, by the rule of the benchmark."""
    judged = [row for row in rows if row["answer"] is not None]
    unread = sum(row["letter"] is None for row in judged)
    counted = [row for row in judged if row["letter"] is not None or _counts_unread(row)]
    right = sum(row["letter"] == row["answer"] for row in counted)
    return {
        "questions": len(rows),
        "counted": len(counted),
        "right": right,
        "no_letter": unread,
        "accuracy": right / len(counted) if counted else None,
    }


def _counts_unread(row: Mapping[str, Any]) -> bool:
    return RULES[row["rule"]].counts_unread


def _check(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """How many answers are plain decoding's, token for token, and the first that is not."""
    compared = [row for row in rows if row["plain"] is not None]
    if not compared:
        return None
    other = [row for row in compared if not row["plain"]["equal"]]
    first = {"id": other[0]["id"], **other[0]["plain"]} if other else None
    return {"compared": len(compared), "equal": len(compared) - len(other), "first": first}


def _known(figure: float) -> float | None:
    """``None`` where nothing was counted, which JSON can say."""
    return figure if math.isfinite(figure) else None
