"""Muon for the matrices inside blocks, AdamW for everything else.

Muon (Jordan et al., 2024) replaces a matrix's momentum by its nearest semi-orthogonal matrix,
found by a few Newton-Schulz steps. The learning rate is an argument of every update, so that a
resumed run may follow another schedule than it began with.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

Weights = dict[str, jax.Array]

MUON_RATE = 0.012
ADAM_RATE = 2e-3
_MOMENTUM = 0.95
_BETA1, _BETA2 = 0.9, 0.98
_NEWTON_SCHULZ = (3.4445, -4.775, 2.0315)
_NEWTON_SCHULZ_STEPS = 5
_MUON_PARTS = (".layers.", ".blocks.", ".merger.")


class OptimizerState(NamedTuple):
    """Running moments by weight name (`second` for AdamW's weights only)."""

    first: Weights
    second: Weights
    step: jax.Array


def uses_muon(name: str, value: jax.Array) -> bool:
    return value.ndim >= 2 and any(p in f".{name}" for p in _MUON_PARTS)


def initial_state(weights: Weights) -> OptimizerState:
    zeros = {name: jnp.zeros_like(value) for name, value in weights.items()}
    second = {n: jnp.zeros_like(v) for n, v in weights.items() if not uses_muon(n, v)}
    return OptimizerState(zeros, second, jnp.zeros((), jnp.int32))


def update(
    weights: Weights, gradients: Weights, state: OptimizerState, rate: jax.Array
) -> tuple[Weights, OptimizerState]:
    """One step; `rate` scales both learning rates (1 = full)."""
    norm = jnp.sqrt(sum(jnp.sum(jnp.square(g)) for g in gradients.values()))
    clip = jnp.minimum(1.0, 5.0 / (norm + 1e-6))
    step = state.step + 1
    new: Weights = {}
    first, second = {}, {}
    for name, value in weights.items():
        gradient = gradients[name] * clip
        if uses_muon(name, value):
            first[name] = _MOMENTUM * state.first[name] + gradient
            direction = _orthogonal(gradient + _MOMENTUM * first[name])
            new[name] = value - rate * MUON_RATE * direction
        else:
            first[name] = _BETA1 * state.first[name] + (1 - _BETA1) * gradient
            second[name] = _BETA2 * state.second[name] + (1 - _BETA2) * jnp.square(gradient)
            mean = first[name] / (1 - _BETA1**step)
            spread = jnp.sqrt(second[name] / (1 - _BETA2**step)) + 1e-8
            new[name] = value - rate * ADAM_RATE * mean / spread
    return new, OptimizerState(first, second, step)


def _orthogonal(matrix: jax.Array) -> jax.Array:
    """The nearest semi-orthogonal `[in, out]` matrix, scaled for its shape."""
    if matrix.ndim == 3:  # packed q, k, v: three matrices
        return jnp.stack([_orthogonal(matrix[:, i]) for i in range(matrix.shape[1])], axis=1)
    rows, columns = matrix.shape
    x = matrix if rows <= columns else matrix.T
    x = x / (jnp.linalg.norm(x) + 1e-7)
    a, b, c = _NEWTON_SCHULZ
    for _ in range(_NEWTON_SCHULZ_STEPS):
        gram = x @ x.T
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    x = x if rows <= columns else x.T
    return x * max(1.0, columns / rows) ** 0.5


def schedule(step: int, total: int, warmup: int = 40, decay: float = 0.6) -> float:
    """Warm-up, constant, then linear decay to zero over the last `decay` of the run."""
    left = (total - step) / max(1.0, decay * total)
    return max(0.0, min((step + 1) / warmup, left, 1.0))
