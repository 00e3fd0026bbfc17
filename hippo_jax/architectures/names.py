"""How one weight stands in a Hugging Face file."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class HFTensor:
    """A tensor of a checkpoint.

    Attributes:
        name: canonical name (transformers 5 modules: ``model.visual.*``,
            ``model.language_model.*``, ``lm_head.weight``).
        shape: its shape in the file.
        transposed: the file holds ``[out, in ...]`` and we hold ``[in, out]``.
    """

    name: str
    shape: tuple[int, ...]
    transposed: bool = False

    def to_ours(self, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """The file's array in our layout and declared ``shape``."""
        if self.transposed:
            array = array.reshape(self.shape[0], -1).T
        return array.reshape(shape)

    def to_file(self, array: np.ndarray) -> np.ndarray:
        """Our array as the file holds it."""
        if self.transposed:
            array = array.reshape(-1, self.shape[0]).T
        return array.reshape(self.shape)
