"""``HippoConfig``: how draft and target work together, one field for each choice."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import jax

from hippo_jax.errors import HippoError
from hippo_jax.scoring.config import ScoringConfig

DEFAULT_GAMMA = 5


@jax.tree_util.register_static
@dataclass(frozen=True)
class HippoConfig:
    """Settings of ``hippo_generate``. None of them changes what is generated, only how fast.

    Attributes:
        gamma: tokens that the draft proposes a round, 5 by default (the paper uses 3 to 7).
            ``"auto"`` is 5; ``plan_schedule`` chooses by measuring.
        keep_ratio: share of a row's visual tokens that the draft sees, above 0 and at most 1;
            0.1 by default as in the paper. A row keeps ``max(1, ceil(keep_ratio * its own))``.
        schedule: ``"sequential"``: the draft proposes gamma tokens, then the target checks them and
            adds one of its own. ``"parallel"`` (the paper's VPSD, PEARL's state machine): both
            work at the same time, the target on the last chunk while the draft makes the next.
            ``"auto"`` (default): parallel where the pair's placement gives them devices of their
            own, else sequential. ``plan_schedule`` measures which is faster.
        scoring: which visual tokens are kept.
        score_layers: the target's first k layers give the attention scores; ``None`` (default):
            all. The paper averages over all layers; fewer would let the draft start earlier.
        draft_positions: ``"retained"`` (default): kept tokens and the text after them stand where
            they stood in the whole prompt, so draft and target agree on positions. ``"packed"``:
            the draft's prompt is numbered anew without gaps, as in SpecVLM.
    """

    gamma: int | Literal["auto"] = DEFAULT_GAMMA
    keep_ratio: float = 0.1
    schedule: Literal["auto", "sequential", "parallel"] = "auto"
    scoring: ScoringConfig = field(default_factory=ScoringConfig)
    score_layers: int | None = None
    draft_positions: Literal["retained", "packed"] = "retained"

    def __post_init__(self) -> None:
        if self.gamma != "auto" and not (_is_int(self.gamma) and self.gamma >= 1):
            raise HippoError(f'gamma must be at least 1, or "auto", got {self.gamma!r}')
        ratio = self.keep_ratio
        if (
            isinstance(ratio, bool)
            or not isinstance(ratio, (int, float))
            or not (math.isfinite(ratio) and 0 < ratio <= 1)
        ):
            raise HippoError(f"keep_ratio must be above 0 and at most 1, got {ratio!r}")
        if self.schedule not in ("auto", "sequential", "parallel"):
            raise HippoError(
                f'schedule must be "auto", "sequential" or "parallel", got {self.schedule!r}'
            )
        if not isinstance(self.scoring, ScoringConfig):
            raise HippoError(f"scoring must be a ScoringConfig, got {self.scoring!r}")
        if self.score_layers is not None and not (
            _is_int(self.score_layers) and self.score_layers >= 1
        ):
            raise HippoError(f"score_layers must be at least 1, or None, got {self.score_layers!r}")
        if self.draft_positions not in ("retained", "packed"):
            raise HippoError(
                f'draft_positions must be "retained" or "packed", got {self.draft_positions!r}'
            )


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
