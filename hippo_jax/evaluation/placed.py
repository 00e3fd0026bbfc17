"""A pair split over several devices that decodes the rows of a call.

Nothing is compiled ahead, as models on meshes of their own are no one program: a first call of each
size compiles, and is not timed.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import jax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from hippo_jax.decoding.config import HippoConfig
from hippo_jax.decoding.generate import Generation
from hippo_jax.errors import HippoError
from hippo_jax.evaluation.calls import Calls, Decoded, shapes
from hippo_jax.inputs.model_inputs import ModelInputs, Row
from hippo_jax.placement.pair import ModelPair


@dataclass
class PlacedPair(Calls):
    """A pair as it was placed. Plain decoding runs on the target's devices.

    Attributes:
        pair: loaded with a placement.
        batch: rows of a call.
        max_new_tokens: of every answer.
        config: of HIPPO decoding.

    Raises:
        HippoError: no row in a call, or a pair without a placement.
    """

    pair: ModelPair
    batch: int = 1
    max_new_tokens: int = 128
    config: HippoConfig = field(default_factory=HippoConfig)

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise HippoError("there must be at least one row in a call")
        mesh = self.pair.placement.target
        if mesh is None:
            raise HippoError("the pair has no placement; load it with one, or use replicas")
        self._everywhere = NamedSharding(mesh, P())
        self._known: set[Hashable] = set()

    @property
    def rows(self) -> int:
        """Rows of one call."""
        return self.batch

    def inputs(self, rows: Sequence[Row]) -> ModelInputs:
        """A call's inputs, whole on each of the target's devices."""
        own = self.assembled(self.filled(rows))
        return jax.block_until_ready(jax.device_put(own, self._everywhere))

    def decode(self, way: str, inputs: ModelInputs, rows: int) -> Decoded:
        """Answers of the first ``rows`` rows."""
        self.compile([way], inputs)
        begin = time.perf_counter()
        found = self._call(way, inputs)
        seconds = time.perf_counter() - begin
        return Decoded(jax.tree.map(lambda x: x[:rows], jax.device_get(found)), seconds)

    def compile(self, ways: Sequence[str], inputs: ModelInputs) -> None:
        """Run what no call of this size has run before."""
        for way in ways:
            key = way, shapes(inputs)
            if key not in self._known:
                self._call(way, inputs)
                self._known.add(key)

    def _call(self, way: str, inputs: ModelInputs) -> Generation:
        return jax.block_until_ready(self.function(way)(self.pair, inputs))
