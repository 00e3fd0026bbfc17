"""A model as the list of its arrays, to be handed to the same programs round after round.

A module is a tree of Python objects, which ``jit`` takes apart anew whenever it is called: for a
large model that takes longer than a small draft's step. A list is taken apart in no time.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import jax

from hippo_jax.architectures.video_lm import VideoLM


class _Form:
    """A model without its arrays. Compared by identity, which costs nothing: ``_form`` gives equal
    models one form."""

    def __init__(self, tree: Any) -> None:
        self.tree = tree


@lru_cache(maxsize=64)
def _form(tree: Hashable) -> _Form:
    return _Form(tree)


@partial(jax.tree_util.register_dataclass, data_fields=["arrays"], meta_fields=["form"])
@dataclass(frozen=True)
class FlatModel:
    """The arrays of a model, shared with it."""

    arrays: list[jax.Array]
    form: _Form

    @classmethod
    def of(cls, model: VideoLM) -> FlatModel:
        """Take ``model`` apart."""
        arrays, tree = jax.tree.flatten(model)
        return cls(arrays, _form(tree))

    def model(self) -> VideoLM:
        """Put it together again, around whatever the arrays are by now."""
        found: VideoLM = jax.tree.unflatten(self.form.tree, self.arrays)
        return found
