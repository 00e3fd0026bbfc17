"""Which visual tokens the draft sees: scores of every visual token, and the choice among them."""

from hippo_jax.scoring.attention import attention_relevance
from hippo_jax.scoring.features import spatial_variance, temporal_change
from hippo_jax.scoring.fusion import holistic_scores
from hippo_jax.scoring.selection import select_tokens

__all__ = [
    "attention_relevance",
    "holistic_scores",
    "select_tokens",
    "spatial_variance",
    "temporal_change",
]
