"""Counters of speculative decoding and the figures made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SpeculationStats:
    """What happened to the draft's proposals, a row each.

    The figures below the counters are pooled over all rows (and over any leading axes that
    ``pmap`` or ``vmap`` added). They are Python floats, ``nan`` where nothing was counted.

    **A run means something else in each schedule, so never compare their MATs.** Sequential: a run
    is one round, so ``mat`` is at most gamma. Parallel: a run goes on through fully accepted rounds
    until a token is rejected, so ``mat`` may exceed gamma by far. What can be compared is
    ``tokens_per_round`` (a round is one forward of the target), and best of all the time.

    A run that the end of the answer cut short is left out; tokens behind the end count nowhere.

    Attributes:
        rounds: int32 ``[B]``, verdicts of the target while the row ran. The parallel schedule
            counts the one that the prefill's logits give (it judges the draft's first token); the
            sequential schedule takes the first token from the prefill and judges nothing by it.
        round_tokens: int32 ``[B]``, tokens committed in those rounds.
        accepted: int32 ``[B]``, draft tokens that became part of the answer.
        judged: int32 ``[B]``, those and the rejected ones. Draft tokens behind a rejection or
            behind the end of the answer were never judged.
        runs: int32 ``[B, capacity]``, accepted tokens of each finished run, -1 behind them.
        visual_tokens: int32 ``[B]``, visual tokens of the prompt.
        kept_visual_tokens: int32 ``[B]``, those that the draft saw.
        kept_indices: int32 ``[B, K]``, which ones, counted within the row, -1 behind them.
    """

    rounds: jax.Array
    round_tokens: jax.Array
    accepted: jax.Array
    judged: jax.Array
    runs: jax.Array
    visual_tokens: jax.Array
    kept_visual_tokens: jax.Array
    kept_indices: jax.Array

    @property
    def mat(self) -> float:
        """Mean accepted tokens: draft tokens of a finished run (PEARL's count)."""
        runs = np.asarray(self.runs)
        return _ratio(runs[runs >= 0].sum(), (runs >= 0).sum())

    @property
    def mat_with_correction(self) -> float:
        """The same with the target's own token that ends each run (one more)."""
        return self.mat + 1.0

    @property
    def tokens_per_round(self) -> float:
        """Tokens committed for each verdict of the target."""
        return _ratio(np.asarray(self.round_tokens).sum(), np.asarray(self.rounds).sum())

    @property
    def acceptance_rate(self) -> float:
        """Accepted draft tokens / judged draft tokens."""
        return _ratio(np.asarray(self.accepted).sum(), np.asarray(self.judged).sum())


def joined(calls: Sequence[SpeculationStats]) -> SpeculationStats:
    """The counters of several calls as those of one, on the host. Widths of ``runs`` and
    ``kept_indices`` may differ."""

    def together(*parts: Any) -> np.ndarray:
        arrays = [np.asarray(part) for part in parts]
        if arrays[0].ndim == 2:
            width = max(array.shape[1] for array in arrays)
            arrays = [
                np.pad(array, ((0, 0), (0, width - array.shape[1])), constant_values=-1)
                for array in arrays
            ]
        return np.concatenate(arrays)

    return jax.tree.map(together, *calls)


def _ratio(count: Any, of: Any) -> float:
    return float(count) / float(of) if of else float("nan")
