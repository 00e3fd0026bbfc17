"""What rows are decoded together, wherever the pair lives: on replicas, or over several devices."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np

from hippo_jax.decoding.arguments import make_settings
from hippo_jax.decoding.config import HippoConfig
from hippo_jax.decoding.generate import Generation, generate
from hippo_jax.inputs.model_inputs import ModelInputs, Row, assemble
from hippo_jax.placement.pair import ModelPair
from hippo_jax.scheduling.hippo import hippo_generate

HIPPO, PLAIN = "hippo", "plain"


@dataclass(frozen=True)
class Decoded:
    """The answers of a call and what it took.

    Attributes:
        generation: host arrays, one row for each row that was given.
        seconds: the whole call, prefill and decoding, inputs on the devices already.
    """

    generation: Generation
    seconds: float


class Calls(ABC):
    """A pair that decodes rows of one size in one call.

    Attributes:
        pair: on its devices.
        batch: rows that are decoded together.
        max_new_tokens: of every answer.
        config: of HIPPO decoding.
    """

    pair: ModelPair
    batch: int
    max_new_tokens: int
    config: HippoConfig

    @property
    @abstractmethod
    def rows(self) -> int:
        """Rows of one call."""

    @abstractmethod
    def inputs(self, rows: Sequence[Row]) -> ModelInputs:
        """A call's inputs, on the devices. Rows of one ``size_of``; copies of the first stand in
        for those that are missing."""

    @abstractmethod
    def compile(self, ways: Sequence[str], inputs: ModelInputs) -> Any:
        """Make the programs for inputs of this size and run each once, as a first run is slower
        than others.

        Args:
            ways: ``"hippo"``, ``"plain"``, or both.
        """

    @abstractmethod
    def decode(self, way: str, inputs: ModelInputs, rows: int) -> Decoded:
        """Answers of the first ``rows`` rows.

        Args:
            way: ``"hippo"`` or ``"plain"``.
            inputs: from ``inputs``.
        """

    def size_of(self, row: Row) -> Hashable:
        """What rows must share to go into one call."""
        alone = shapes(self.single(row))
        # The parts of several rows lie behind each other, so there buckets are not enough.
        return alone if self.batch == 1 else (alone, tuple(item.grid for item in row.media))

    def single(self, row: Row) -> ModelInputs:
        """The inputs of one row alone.

        Raises:
            HippoError: it does not fit the models, or leaves no room for the answer.
        """
        inputs = self.assembled([row])
        make_settings(self.pair.target, inputs, self.max_new_tokens, None, None, None, None)
        return inputs

    def assembled(self, rows: Sequence[Row]) -> ModelInputs:
        """The inputs of some rows, on the host."""
        return assemble(self.pair.target, list(rows), draft=self.pair.draft)

    def filled(self, rows: Sequence[Row]) -> list[Row]:
        """As many rows as a call has."""
        return [*rows, *[rows[0]] * (self.rows - len(rows))]

    def function(self, way: str) -> Callable[[ModelPair, ModelInputs], Generation]:
        """What a call does."""
        if way == HIPPO:
            return partial(hippo_generate, max_new_tokens=self.max_new_tokens, config=self.config)
        return lambda pair, inputs: generate(
            pair.target, inputs, max_new_tokens=self.max_new_tokens
        )


def shapes(inputs: ModelInputs) -> Hashable:
    """What a program is compiled for."""
    leaves, structure = jax.tree.flatten(inputs)
    return structure, tuple((np.shape(x), np.dtype(x.dtype).str) for x in leaves)
