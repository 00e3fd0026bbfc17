"""Where each weight lies on a mesh: one table from logical axes to the mesh axis ``"tp"``.

Layers name the dimensions of their weights (see ``architectures.parameters``). Those in the table
are split over ``"tp"``, all others are whole on every device, and so is every weight on a mesh that
has no such axis. The forward pass needs nothing more: XLA derives the collectives.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from hippo_jax.errors import HippoError

TENSOR_AXIS = "tp"

# A projection into heads or into the hidden units of an MLP is split by columns, the one out of
# them by rows, so that a pair of projections needs one sum over the devices.
SPLIT_AXES = frozenset({"q_heads", "kv_heads", "mlp", "vocab", "vision_heads", "vision_mlp"})


def automatic(mesh: Mesh) -> Mesh:
    """``mesh`` with every axis of type ``Auto``: the models leave sharding of values to XLA.

    ``jax.make_mesh`` makes ``Explicit`` axes unless told otherwise.
    """
    if not isinstance(mesh, Mesh):
        raise HippoError(f"mesh must be a jax.sharding.Mesh, this is a {type(mesh).__name__}")
    if all(kind == AxisType.Auto for kind in mesh.axis_types):
        return mesh
    return Mesh(mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,) * len(mesh.axis_names))


def weight_spec(axes: Sequence[str | None], shape: Sequence[int], mesh: Mesh) -> P:
    """The partition of one weight: at most one dimension over ``"tp"``, where it divides evenly."""
    size = mesh.shape.get(TENSOR_AXIS, 1)
    spec: list[str | None] = [None] * len(shape)
    if size > 1:
        for dimension, (axis, extent) in enumerate(zip(axes, shape, strict=True)):
            if axis in SPLIT_AXES and extent % size == 0:
                spec[dimension] = TENSOR_AXIS
                break
    return P(*spec)


def weight_sharding(
    axes: Sequence[str | None], shape: Sequence[int], mesh: Mesh
) -> jax.sharding.Sharding:
    """The sharding of one weight on ``mesh`` (see :func:`weight_spec`)."""
    return NamedSharding(automatic(mesh), weight_spec(axes, shape, mesh))
