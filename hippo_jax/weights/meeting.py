"""Processes that share a mesh connect before they load."""

from __future__ import annotations

import functools

import jax
import numpy as np
from jax.sharding import PartitionSpec as P

from hippo_jax.architectures.sharding import Home
from hippo_jax.architectures.tensor_parallel import shards_of
from hippo_jax.errors import HippoError


def meet(home: Home | None) -> None:
    """Connect the processes whose devices hold a model, once for each mesh.

    CPU processes connect in the first collective of a group of devices and give up after 30
    seconds, for which XLA has no setting; once connected they wait for half an hour. One process
    may compile or read its prompt that much longer than the other, so it is done here, where all
    are about equally far.

    Raises:
        HippoError: another process did not come, or none of the devices is this process's.
    """
    if home is None:
        return
    processes = {device.process_index for device in home.mesh.devices.flat}
    if jax.process_index() not in processes:
        raise HippoError(
            "the mesh has no device of this process; models on devices of several processes need "
            "Placement(..., one_program=True)"
        )
    if len(processes) == 1:
        return
    try:
        _connect(home)
    except (RuntimeError, ValueError) as error:  # jax raises either
        line = str(error).splitlines()[0]
        raise HippoError(
            "the processes of this mesh did not connect; each of them must load the same models, "
            f"within 30 s of the others: {line[:200]}"
        ) from error


@functools.cache
def _connect(home: Home) -> None:
    """A sum over the devices of the model, and one over all."""
    shards = shards_of(home)

    def sums(x: jax.Array) -> jax.Array:
        own = x if shards is None else shards.sum(x)
        return jax.lax.psum(own, home.mesh.axis_names)

    everywhere = jax.shard_map(sums, mesh=home.mesh, in_specs=P(), out_specs=P(), check_vma=False)
    jax.block_until_ready(jax.jit(everywhere)(np.float32(1)))
