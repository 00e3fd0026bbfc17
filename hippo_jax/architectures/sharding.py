"""Where each weight lies on a mesh: one table from logical axes to the axis that devices share.

Layers name the dimensions of their weights (see ``architectures.parameters``). A dimension in the
table is split where its units (heads, hidden units, vocabulary rows) divide evenly; all others are
whole on every device.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from hippo_jax.architectures.config import VideoLMConfig
from hippo_jax.architectures.parameters import Declared
from hippo_jax.architectures.registry import family_of
from hippo_jax.errors import HippoError

# Axes of meshes: devices that share a model, and, in a program for two models, which of the two a
# device works for (groups of one size), or all devices of both (groups of different sizes).
TENSOR_AXIS, ROLE_AXIS, DEVICE_AXIS = "tp", "role", "device"


def axis_units(config: VideoLMConfig) -> dict[str, int]:
    """The table: every logical axis that may be split, with the number of its indivisible units.

    A projection into heads or into the hidden units of an MLP is split by columns, the one out of
    them by rows, so that a pair of projections needs one sum over the devices.
    """
    text = config.text
    return {
        "q_heads": text.num_heads,
        "kv_heads": text.num_kv_heads,
        "mlp": text.intermediate_size,
        "vocab": text.vocab_size,
        **family_of(config.family).vision_axes(config.vision),
    }


def split_axes(config: VideoLMConfig, size: int) -> frozenset[str]:
    """The logical axes that are split over ``size`` devices.

    Key heads that do not divide stay whole if each device's query heads read one and the same of
    them (few key heads, many devices): every device then computes all, and keeps its own. If that
    does not hold either, or the query heads do not divide, attention is whole on every device.
    """
    units = axis_units(config)
    split = {axis for axis, count in units.items() if size > 1 and count % size == 0}
    queries, keys = units["q_heads"], units["kv_heads"]
    if "q_heads" in split and keys % size and size % keys:
        split.discard("q_heads")
    if "q_heads" not in split:
        split.discard("kv_heads")
    assert queries % keys == 0
    return frozenset(split)


def automatic(mesh: Mesh) -> Mesh:
    """``mesh`` with every axis of type ``Auto``: the models leave sharding of values to XLA.

    ``jax.make_mesh`` makes ``Explicit`` axes unless told otherwise.
    """
    if not isinstance(mesh, Mesh):
        raise HippoError(f"mesh must be a jax.sharding.Mesh, this is a {type(mesh).__name__}")
    if all(kind == AxisType.Auto for kind in mesh.axis_types):
        return mesh
    return Mesh(mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,) * len(mesh.axis_names))


@jax.tree_util.register_static
@dataclass(frozen=True)
class Home:
    """The devices of one model.

    Attributes:
        mesh: every device that a program with this model runs on, axes of type ``Auto``.
        axis: the mesh axis over which weights are split, ``None`` if they are whole everywhere.
        size: devices that share the model, along ``axis``.
        first: index of the first of them along ``axis``. The devices before and behind belong to
            another model of the same program. They get copies of this model's shards, for all
            devices of a program have arguments of one shape.
    """

    mesh: Mesh
    axis: str | None = TENSOR_AXIS
    size: int = 1
    first: int = 0

    @staticmethod
    def of(mesh: Mesh) -> Home:
        """A model on all of ``mesh``, split over its axis ``"tp"`` where it has one."""
        mesh = automatic(mesh)
        axis = TENSOR_AXIS if TENSOR_AXIS in mesh.axis_names else None
        return Home(mesh, axis, 1 if axis is None else mesh.shape[axis])

    @property
    def total(self) -> int:
        """Devices along the axis, those of other models included."""
        return 1 if self.axis is None else self.mesh.shape[self.axis]

    @property
    def has_roles(self) -> bool:
        """Whether the mesh holds devices of another model."""
        return ROLE_AXIS in self.mesh.axis_names or self.size != self.total

    @property
    def groups(self) -> tuple[tuple[int, ...], ...] | None:
        """The axis cut into this model's devices and the others; ``None`` without others."""
        if self.size == self.total:
            return None
        ends = (0, self.first, self.first + self.size, self.total)
        cut = (tuple(range(a, b)) for a, b in itertools.pairwise(ends))
        return tuple(group for group in cut if group)

    def owner(self, slot: int) -> int:
        """Which shard the device at index ``slot`` of the axis holds."""
        return (slot - self.first) % self.size

    def spec(self, axes: Sequence[str | None], split: frozenset[str]) -> P:
        """The partition of a weight with these logical axes: at most one dimension is split."""
        names: list[str | None] = [None] * len(axes)
        for dimension, axis in enumerate(axes):
            if axis in split:
                names[dimension] = self.axis
                break
        return P(*names)

    def stored_shape(self, shape: Sequence[int], spec: P) -> tuple[int, ...]:
        """The global shape of the array that holds a weight of ``shape``: longer than the weight
        where devices of another model hold copies."""
        return tuple(
            extent if name is None else extent // self.size * self.total
            for extent, name in zip(shape, spec, strict=True)
        )

    def sharding(self, spec: P) -> jax.sharding.Sharding:
        """The sharding of such an array."""
        return NamedSharding(self.mesh, spec)


def specs_at(
    config: VideoLMConfig, weights: Mapping[str, Declared], home: Home | None
) -> dict[str, P]:
    """The partition of every declared weight, by path; whole everywhere without a home."""
    split = frozenset[str]() if home is None else split_axes(config, home.size)
    return {
        path: P(*[None] * len(item.axes)) if home is None else home.spec(item.axes, split)
        for path, item in weights.items()
    }
