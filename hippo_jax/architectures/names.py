"""How one weight stands in a Hugging Face file, and what published files call it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Prefixes = tuple[tuple[str, str], ...]
"""(prefix of canonical names, what stands in its place in published files), the first that fits."""

# Files that were written before transformers 5, by how deep their decoder lies.
FLAT: Prefixes = (("model.visual.", "visual."), ("model.language_model.", "model."))
NESTED: Prefixes = (
    ("model.multi_modal_projector.", "multi_modal_projector."),
    ("model.language_model.", "language_model.model."),
    ("lm_head.", "language_model.lm_head."),
)


def hub_name(name: str, prefixes: Prefixes) -> str:
    """The name that a canonical tensor has in a family's published files; the inverse of
    ``weights.mapping.canonical``."""
    for now, published in prefixes:
        if name.startswith(now):
            return published + name.removeprefix(now)
    return name


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

    def to_file(self, array: Any) -> Any:
        """Our array, numpy's or torch's, as the file holds it."""
        if self.transposed:
            array = array.reshape(-1, self.shape[0]).T
        return array.reshape(self.shape)
