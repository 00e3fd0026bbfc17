"""Muon for the matrices inside blocks, Adam for everything else, both from optax.

The learning rates here are full rates; every update is scaled by the schedule's value, which the
loop passes in, so that a resumed run may follow another schedule than it began with.
"""

from __future__ import annotations

from typing import Any

import jax
import optax
from optax.contrib import MuonDimensionNumbers

Weights = dict[str, jax.Array]
OptimizerState = Any  # optax's own pytree

MUON_RATE = 0.012
ADAM_RATE = 2e-3
LARGEST_NORM = 5.0  # of all gradients together
_MUON_PARTS = (".layers.", ".blocks.", ".merger.")
# Kernels are [in, out]; packed q, k, v [in, 3, out] are three matrices.
_MATRIX = MuonDimensionNumbers(reduction_axis=0, output_axis=1)
_PACKED = MuonDimensionNumbers(reduction_axis=0, output_axis=2)


def uses_muon(name: str, value: jax.Array) -> bool:
    """Whether a weight is a matrix inside a block; embeddings, heads and vectors are not."""
    return value.ndim >= 2 and any(p in f".{name}" for p in _MUON_PARTS)


def _dimensions(weights: Weights) -> dict[str, MuonDimensionNumbers | None]:
    """Which axes of each weight Muon takes as a matrix; optax passes masked weights too."""
    return {
        name: None
        if isinstance(value, optax.MaskedNode) or not uses_muon(name, value)
        else (_MATRIX if value.ndim == 2 else _PACKED)
        for name, value in weights.items()
    }


def _labels(weights: Weights) -> dict[str, str]:
    return {name: "muon" if uses_muon(name, v) else "adam" for name, v in weights.items()}


# Momentum without bias correction, as Muon was first published and the embedded pair was trained;
# optax's own momentum, switched off here, corrects it.
_MUON = optax.chain(
    optax.trace(0.95, nesterov=True),
    optax.contrib.muon(
        MUON_RATE, beta=0.0, nesterov=False, muon_weight_dimension_numbers=_dimensions
    ),
)

OPTIMIZER = optax.chain(
    optax.clip_by_global_norm(LARGEST_NORM),
    optax.partition(
        {"muon": _MUON, "adam": optax.adam(ADAM_RATE, b2=0.98)},
        _labels,
    ),
)


def initial_state(weights: Weights) -> OptimizerState:
    """Moments of a fresh run."""
    return OPTIMIZER.init(weights)


def update(
    weights: Weights, gradients: Weights, state: OptimizerState, rate: jax.Array
) -> tuple[Weights, OptimizerState]:
    """One step; ``rate`` scales both learning rates (1 = full)."""
    updates, state = OPTIMIZER.update(gradients, state, weights)
    return optax.apply_updates(weights, jax.tree.map(lambda u: rate * u, updates)), state


def schedule(step: int, total: int, warmup: int = 40, decay: float = 0.6) -> float:
    """Warm-up, constant, then linear decay to zero over the last ``decay`` of the run."""
    left = (total - step) / max(1.0, decay * total)
    return max(0.0, min((step + 1) / warmup, left, 1.0))
