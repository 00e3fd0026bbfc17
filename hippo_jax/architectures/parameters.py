"""One declaration per weight: shape, logical axes and initialiser stand where the layer is built.

From that single place follow the abstract model (shapes without memory), the sharding of every
weight (its logical axes through the table in ``sharding``), random initialisation, and the target
that a checkpoint is restored into.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

Init = Literal["normal", "zeros", "ones"]
M = TypeVar("M", bound=nnx.Module)


@dataclass(frozen=True)
class Declared:
    """What a layer declared of one weight. ``axes`` names every dimension (None: unnamed)."""

    shape: tuple[int, ...]
    dtype: Any
    axes: tuple[str | None, ...]


def weight(
    rngs: nnx.Rngs,
    shape: tuple[int, ...],
    axes: tuple[str | None, ...],
    init: Init = "normal",
    scale: float = 0.02,
) -> nnx.Param[jax.Array]:
    """Declare a float32 weight. The loader decides the dtype that it is stored in."""
    if len(shape) != len(axes):
        raise ValueError(f"{len(axes)} axis names for a weight of shape {shape}")
    if init == "normal":
        value = scale * jax.random.normal(rngs.params(), shape, jnp.float32)
    elif init == "zeros":
        value = jnp.zeros(shape, jnp.float32)
    else:
        value = jnp.ones(shape, jnp.float32)
    return nnx.Param(value, axes=axes)


def _flat(model: nnx.Module) -> list[tuple[tuple[Any, ...], nnx.Variable[Any]]]:
    return [(tuple(path), variable) for path, variable in nnx.to_flat_state(nnx.state(model))]


def declared(model: nnx.Module) -> dict[str, Declared]:
    """Every weight of ``model`` (abstract or real) by its dotted path."""
    return {
        ".".join(map(str, path)): Declared(
            tuple(variable.get_value().shape),
            variable.get_value().dtype,
            variable.get_metadata("axes"),
        )
        for path, variable in _flat(model)
    }


def values(model: nnx.Module) -> dict[str, jax.Array]:
    """Every weight's array by its dotted path."""
    return {".".join(map(str, path)): variable.get_value() for path, variable in _flat(model)}


def with_values(model: M, new: Mapping[str, Any]) -> M:
    """``model`` with every weight replaced; ``new`` must hold exactly the declared paths."""
    graph, state = nnx.split(model)
    flat = [(tuple(path), variable) for path, variable in nnx.to_flat_state(state)]
    paths = {".".join(map(str, path)) for path, _ in flat}
    if paths != set(new):
        raise ValueError(f"weights do not fit the model: {sorted(paths ^ set(new))[:8]}")
    replaced = [(path, variable.replace(new[".".join(map(str, path))])) for path, variable in flat]
    return nnx.merge(graph, nnx.from_flat_state(replaced))


def count(model: nnx.Module) -> int:
    """Number of parameters."""
    total = 0
    for item in declared(model).values():
        size = 1
        for extent in item.shape:
            size *= extent
        total += size
    return total
