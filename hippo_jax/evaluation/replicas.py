"""Replicas of a pair, a device each, that decode different rows in one call.

One program for each size, compiled before it is timed: ``jax.shard_map`` over the mesh axis
``"data"`` around ``hippo_generate`` and ``generate``, the weights copied to every device, the rows
split. A device's rows do not know of the others'.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from hippo_jax.decoding.config import HippoConfig
from hippo_jax.decoding.generate import Generation
from hippo_jax.errors import HippoError
from hippo_jax.evaluation.calls import Calls, Decoded, shapes
from hippo_jax.inputs.model_inputs import ModelInputs, Row
from hippo_jax.placement.pair import ModelPair

AXIS = "data"


@dataclass
class Replicas(Calls):
    """A pair on ``count`` devices of this process.

    Attributes:
        pair: given on one device or on the host; then a copy on each device.
        count: devices, one replica each.
        batch: rows of a replica.
        max_new_tokens: of every answer.
        config: of HIPPO decoding.

    Raises:
        HippoError: there are not as many devices, or the pair has devices of its own.
    """

    pair: ModelPair
    count: int = 1
    batch: int = 1
    max_new_tokens: int = 128
    config: HippoConfig = field(default_factory=HippoConfig)

    def __post_init__(self) -> None:
        devices = jax.local_devices()
        if self.count < 1 or self.batch < 1:
            raise HippoError("there must be at least one replica, and one row in each")
        if self.count > len(devices):
            raise HippoError(
                f"{self.count} replicas need as many devices, here are {len(devices)}; on a "
                f"CPU set XLA_FLAGS=--xla_force_host_platform_device_count={self.count}"
            )
        if self.pair.placement.target is not None:
            raise HippoError("replicas hold a whole pair each; load the pair without a placement")
        self._mesh = Mesh(np.array(devices[: self.count]), (AXIS,), axis_types=(AxisType.Auto,))
        self._split = NamedSharding(self._mesh, P(AXIS))
        # In place of what was given, so that a device need not hold it twice.
        self.pair = jax.device_put(self.pair, NamedSharding(self._mesh, P()))
        self._programs: dict[Hashable, Any] = {}

    @property
    def rows(self) -> int:
        """Rows of one call."""
        return self.count * self.batch

    def inputs(self, rows: Sequence[Row]) -> ModelInputs:
        """A call's inputs, on the devices: arrays ``[replicas, ...]``."""
        full = self.filled(rows)
        shares = [self.assembled(full[i : i + self.batch]) for i in range(0, self.rows, self.batch)]
        stacked = jax.tree.map(lambda *parts: np.stack([np.asarray(x) for x in parts]), *shares)
        return jax.block_until_ready(jax.device_put(stacked, self._split))

    def decode(self, way: str, inputs: ModelInputs, rows: int) -> Decoded:
        """Answers of the first ``rows`` rows."""
        (program,) = self.compile([way], inputs)
        begin = time.perf_counter()
        found = jax.block_until_ready(program(self.pair, inputs))
        seconds = time.perf_counter() - begin
        flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:rows], jax.device_get(found))
        return Decoded(flat, seconds)

    def compile(self, ways: Sequence[str], inputs: ModelInputs) -> list[Any]:
        """The programs for inputs of this size. Those that are new are compiled side by side and
        run once, as a first run is slower than others."""
        size = shapes(inputs)
        missing = [way for way in ways if (way, size) not in self._programs]
        with ThreadPoolExecutor(2) as pool:  # a compiler works on one core
            lowered = [self._lower(way, inputs) for way in missing]
            made = list(pool.map(lambda program: program.compile(), lowered))
        for way, program in zip(missing, made, strict=True):
            jax.block_until_ready(program(self.pair, inputs))
            self._programs[way, size] = program
        return [self._programs[way, size] for way in ways]

    def _lower(self, way: str, inputs: ModelInputs) -> Any:
        whole = jax.shard_map(
            partial(_own_rows, self.function(way)),
            mesh=self._mesh,
            in_specs=(P(), P(AXIS)),
            out_specs=P(AXIS),
            check_vma=False,
        )
        return jax.jit(whole).lower(self.pair, inputs)


def _own_rows(
    function: Callable[[ModelPair, ModelInputs], Generation], pair: ModelPair, inputs: ModelInputs
) -> Generation:
    """One device's part of a call: its share of the leading axis is one."""
    found = function(pair, jax.tree.map(lambda x: x[0], inputs))
    return jax.tree.map(lambda x: x[None], found)
