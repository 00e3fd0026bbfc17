"""Ratios of sums over clips, such as accepted / judged tokens, and how far chance moves them.

Tokens of one clip hang together, so clips are what is counted as independent. Errors are standard
errors to first order in the clips; ``nan`` where one clip, or none, says nothing about them.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def ratio_error(counts: Any, of: Any) -> float:
    """Standard error of ``sum(counts) / sum(of)``, a number a clip each."""
    return _spread(_influence(counts, of))


def paired_difference(first: tuple[Any, Any], second: tuple[Any, Any]) -> tuple[float, float]:
    """The first ratio minus the second over the same clips, and the standard error of that.

    Args:
        first, second: counts and what they are counts of.
    """
    (a, a_of), (b, b_of) = first, second
    difference = np.sum(a) / np.sum(a_of) - np.sum(b) / np.sum(b_of)
    return float(difference), _spread(_influence(a, a_of) - _influence(b, b_of))


def _influence(counts: Any, of: Any) -> np.ndarray:
    """How far each clip pulls the ratio away from what the clips say together."""
    counts, of = np.asarray(counts, float), np.asarray(of, float)
    total = of.sum()
    return (counts - counts.sum() / total * of) / total if total else np.full(len(of), np.nan)


def _spread(influence: np.ndarray) -> float:
    n = len(influence)
    return float(np.sqrt(n / (n - 1) * np.sum(influence**2))) if n > 1 else float("nan")
