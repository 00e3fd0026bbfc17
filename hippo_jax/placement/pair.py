"""A target and its draft, with where they live as static metadata."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax

from hippo_jax.architectures.config import VideoLMConfig
from hippo_jax.architectures.sharding import Home
from hippo_jax.architectures.video_lm import VideoLM
from hippo_jax.errors import HippoError
from hippo_jax.inputs.compatibility import check_configs, check_files
from hippo_jax.placement.memory import MemoryOf, device_memory
from hippo_jax.placement.needs import check_memory, pair_needs
from hippo_jax.placement.placement import Placement
from hippo_jax.weights import converted, manifest
from hippo_jax.weights.checkpoint import open_checkpoint, read_config, with_tied
from hippo_jax.weights.load import load_at
from hippo_jax.weights.source import locate


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
    memory: MemoryOf = device_memory,
) -> ModelPair:
    """Load a target and a draft.

    A pair whose weights alone are more than the devices can hold is refused before any is read.

    Args:
        name: a pair of the zoo (``"demo"`` is the embedded one), or
        target, draft: what ``load_model`` takes, or loaded models.
        placement: where they go; by default both on the default device.
        dtype: as for ``load_model``.
        memory: what a device can hold, by default what it says; ``lambda device: None`` checks
            nothing.

    Raises:
        HippoError: unknown name, a role missing, models that cannot share inputs (families, special
            ids, patches, time scale, tokenizers, pixel values), a loaded model elsewhere than its
            placement says, devices with too little memory.
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

    target_home, draft_home = placement.homes()
    target, draft = _found("target", target, target_home), _found("draft", draft, draft_home)
    if not (isinstance(target, VideoLM) and isinstance(draft, VideoLM)):
        # The configs say what the weights need, so that nobody waits for a load that must fail.
        needs = pair_needs(_known(target), _known(draft), placement, dtype)
        check_memory(needs, memory)
    pair = ModelPair(
        target if isinstance(target, VideoLM) else load_at(target, dtype, target_home),
        draft if isinstance(draft, VideoLM) else load_at(draft, dtype, draft_home),
        placement,
    )
    check_configs(pair.target.config, pair.draft.config)
    check_files(pair.target.source, pair.draft.source)
    return pair


def _found(role: str, source: Any, home: Home | None) -> VideoLM | Path:
    """A loaded model that is where it should be, or the directory to load from."""
    if not isinstance(source, VideoLM):
        if not isinstance(source, (str, os.PathLike)):
            raise HippoError(
                f"the {role} must be a directory, a hub id or a loaded model, got {source!r}"
            )
        return locate(source)
    if home is not None and source.home != home:
        raise HippoError(
            "a loaded model is not where the placement wants it; load it with "
            "load_model(mesh=...), or give its source"
        )
    return source


def _known(source: VideoLM | Path) -> VideoLM | VideoLMConfig:
    """A loaded model, or the config of the weights in a directory, none of which is loaded."""
    if isinstance(source, VideoLM):
        return source
    if not converted.is_converted(source):
        return open_checkpoint(source).config
    found = manifest.read_manifest(source)
    configs = [name for name in ("config.json", "generation_config.json") if name in found.files]
    manifest.verify(source, found.files, configs)
    return with_tied(read_config(source), found.tied)
