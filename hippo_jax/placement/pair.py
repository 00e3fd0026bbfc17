"""A target and its draft, with where they live as static metadata."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import jax

from hippo_jax.architectures.sharding import Home
from hippo_jax.architectures.video_lm import VideoLM
from hippo_jax.errors import HippoError
from hippo_jax.inputs.compatibility import check_configs, check_files
from hippo_jax.placement.placement import Placement
from hippo_jax.weights.load import load_at


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ModelPair:
    """A pytree of two models of one family; its placement is static."""

    target: VideoLM
    draft: VideoLM
    placement: Placement = field(default_factory=Placement, metadata={"static": True})

    @property
    def tokenizer(self) -> Any:
        """The target's tokenizer."""
        return self.target.tokenizer


def load_pair(
    name: str | None = None,
    *,
    target: Any = None,
    draft: Any = None,
    placement: Placement | None = None,
    dtype: Any = None,
) -> ModelPair:
    """Load a target and a draft.

    Args:
        name: a pair of the zoo (``"demo"`` is the embedded one), or
        target, draft: what ``load_model`` takes, or loaded models.
        placement: where they go; by default both on the default device.
        dtype: as for ``load_model``.

    Raises:
        HippoError: unknown name, a role missing, models that cannot share inputs (families, special
            ids, patches, time scale, tokenizers, pixel values), a loaded model elsewhere than its
            placement says.
    """
    placement = placement or Placement()
    if name is not None:
        if target is not None or draft is not None:
            raise HippoError("give the name of a pair, or target= and draft=, not both")
        # The zoo is looked up here only, so that a pair of one's own needs no embedded files.
        from hippo_jax.resources import checkpoint_directory, pair_directory

        pair_directory(name)
        target, draft = checkpoint_directory(name, "target"), checkpoint_directory(name, "draft")
    if target is None or draft is None:
        raise HippoError("a pair needs a name, or both target= and draft=")

    def load(source: Any, home: Home | None) -> VideoLM:
        if not isinstance(source, VideoLM):
            return load_at(source, dtype, home)
        if home is not None and source.home != home:
            raise HippoError(
                "a loaded model is not where the placement wants it; load it with "
                "load_model(mesh=...), or give its source"
            )
        return source

    homes = placement.homes()
    pair = ModelPair(load(target, homes[0]), load(draft, homes[1]), placement)
    check_configs(pair.target.config, pair.draft.config)
    check_files(pair.target.source, pair.draft.source)
    return pair
