"""One model on several devices: its forward in ``shard_map``, with the collectives written out.

Every device runs the same code on its own shards. A layer sees from the shapes of its weights what
was split and asks ``Shards`` for the sum or the other devices' part (one sum behind attention, one
behind the MLP, one at the embedding, one joining of the logits: arXiv 1909.08053, section 3).
Everything else is computed on every device alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P

from hippo_jax.architectures.cache import KVCache, LayerCache, PartialPrefill
from hippo_jax.architectures.parameters import declared, with_values
from hippo_jax.architectures.platform import traced_for
from hippo_jax.architectures.sharding import Home, specs_at
from hippo_jax.errors import HippoError

M = TypeVar("M", bound=nnx.Module)
T = TypeVar("T")


@dataclass(frozen=True)
class Shards:
    """The devices that share a model, as its layers see them inside ``shard_map``."""

    axis: str
    size: int
    first: int = 0
    groups: tuple[tuple[int, ...], ...] | None = None

    def index(self) -> jax.Array:
        """Which of the devices this is, int32."""
        return jax.lax.axis_index(self.axis) - self.first

    def sum(self, x: jax.Array) -> jax.Array:
        """The sum of every device's ``x``."""
        return jax.lax.psum(x, self.axis, axis_index_groups=self._groups())

    def gather(self, x: jax.Array) -> jax.Array:
        """Every device's ``x [..., W]`` side by side: ``[..., size * W]``."""
        if self.groups is None:
            return jax.lax.all_gather(x, self.axis, axis=x.ndim - 1, tiled=True)
        # Groups of different sizes know no other collective than sums and maxima.
        width = x.shape[-1]
        wide = jnp.zeros((*x.shape[:-1], self.size * width), x.dtype)
        start = jnp.clip(self.index(), 0, self.size - 1) * width
        return self.sum(jax.lax.dynamic_update_slice_in_dim(wide, x, start, axis=x.ndim - 1))

    def _groups(self) -> list[list[int]] | None:
        return None if self.groups is None else [list(group) for group in self.groups]


def shards_of(home: Home) -> Shards | None:
    """What the layers of a model at ``home`` need to know; ``None`` on one device."""
    if home.axis is None or home.size == 1:
        return None
    return Shards(home.axis, home.size, home.first, home.groups)


def bind(model: M, shards: Shards | None) -> M:
    """Tell every layer of a model, whose weights are local shards, who holds the others."""
    for _, module in nnx.iter_modules(model):
        if hasattr(module, "shards"):
            module.shards = shards
    return model


def cache_spec(axis: str | None) -> Any:
    """How the caches of one program lie: each device has its own heads, of all rows."""
    return KVCache(layers=P(None, axis), prompt_lengths=P())  # type: ignore[arg-type]


def prefill_spec(axis: str | None) -> Any:
    """The same for a prompt on its way through the layers."""
    return PartialPrefill(hidden=P(), blocks=P(None, None, axis), deep=P())  # type: ignore[arg-type]


def common_home(models: Sequence[Any]) -> Home | None:
    """The home of models that one program runs together, ``None`` without one.

    Raises:
        HippoError: they are not on one mesh.
    """
    homes = [model.home for model in models]
    found: Home | None = next((home for home in homes if home is not None), None)
    if found is None:
        return None
    apart = any(home is not None and home.mesh != found.mesh for home in homes)
    if apart or (None in homes and found.size > 1):
        raise HippoError(
            "the models are on different devices and one program cannot span them; load both on "
            "one mesh, or call hippo_generate outside of jit with a pair on two meshes"
        )
    return found


def on_devices(
    function: Callable[..., Any], models: Sequence[Any], *arguments: Any, outputs: Any = None
) -> Any:
    """``function(*models, *arguments)`` on the devices where the models' weights lie.

    Without a mesh, and where the weights are whole on each device, that is a plain call. Else it
    runs in ``shard_map``: the models it gets hold local shards and know their partners, arguments
    are the same on all devices (but for caches, which hold each device's heads), and so must be
    what it returns.

    Args:
        outputs: ``axis -> out_specs`` (a prefix of what ``function`` returns) where caches are
            returned; by default everything is the same on all devices.
    """
    home = common_home(models)
    if home is None:
        return function(*models, *arguments)
    with traced_for(home.mesh.devices.flat[0]):
        if home.axis is None or not (home.size > 1 or home.has_roles):
            return function(*models, *arguments)
        return _in_shard_map(function, models, home, arguments, outputs)


def _in_shard_map(
    function: Callable[..., Any],
    models: Sequence[Any],
    home: Home,
    arguments: Sequence[Any],
    outputs: Any,
) -> Any:
    axis = str(home.axis)
    flat, trees, specs = [], [], []
    for model in models:
        leaves, tree = jax.tree.flatten(model)
        flat.append(leaves)
        trees.append(tree)
        specs.append(leaf_specs(model))

    def local(flat: list[list[jax.Array]], arguments: Sequence[Any]) -> Any:
        shards = [shards_of(model.home) for model in models]
        bound = [
            bind(jax.tree.unflatten(tree, leaves), own)
            for tree, leaves, own in zip(trees, flat, shards, strict=True)
        ]
        values = function(*bound, *arguments)
        # The other devices computed something with their copies, which nobody wants to know.
        alone = len(models) == 1 and home.groups is not None
        return _from_first(values, home) if alone else values

    return jax.shard_map(
        local,
        mesh=home.mesh,
        in_specs=(specs, argument_specs(list(arguments), axis)),
        out_specs=P() if outputs is None else outputs(axis),
        check_vma=False,  # groups of devices and caches of one's own heads are beyond it
    )(flat, list(arguments))


def told_by(values: T, own: jax.Array, axes: str | Sequence[str]) -> T:
    """The values of the one device where ``own`` holds, on all devices along ``axes``. To add them
    up with zeros is exact; a sum of bools would be of another dtype."""
    return jax.tree.map(
        lambda x: jax.lax.psum(jnp.where(own, x, jnp.zeros_like(x)), axes).astype(x.dtype), values
    )


def _from_first(values: Any, home: Home) -> Any:
    """What the first device of ``home`` found, on all devices; caches stay where they are."""
    axis = str(home.axis)
    own = jax.lax.axis_index(axis) == home.first

    def send(node: Any) -> Any:
        return node if isinstance(node, LayerCache) else told_by(node, own, axis)

    return jax.tree.map(send, values, is_leaf=lambda node: isinstance(node, LayerCache))


def leaf_specs(model: Any) -> list[P]:
    """The partition of every leaf of ``model``, in the order of its leaves."""
    assert model.home is not None
    tree = with_values(model, specs_at(model.config, declared(model), model.home))
    return jax.tree.leaves(tree, is_leaf=lambda leaf: isinstance(leaf, P))


def argument_specs(arguments: Any, axis: str) -> Any:
    """Everything the same on all devices, but for the heads of caches."""

    def spec(node: Any) -> Any:
        if isinstance(node, LayerCache):
            return P(None, axis)
        return prefill_spec(axis) if isinstance(node, PartialPrefill) else P()

    own = (LayerCache, PartialPrefill)
    return jax.tree.map(spec, arguments, is_leaf=lambda node: isinstance(node, own))
