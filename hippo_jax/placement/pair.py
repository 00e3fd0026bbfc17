"""A target and its draft, with where they live as static metadata."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import Any

import jax

from hippo_jax.architectures.config import VideoLMConfig
from hippo_jax.architectures.int8 import check_quantize
from hippo_jax.architectures.registry import family_of
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
from hippo_jax.weights.source import WEIGHTS, locate


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
    quantize_target: str | None = None,
    quantize_draft: str | None = None,
    memory: MemoryOf = device_memory,
) -> ModelPair:
    """Load a target and a draft.

    Models that cannot share inputs, and weights that are more than the devices can hold, are
    refused before any is read; for models on the hub, before any is downloaded.

    Args:
        name: a pair of the zoo (``"demo"`` is the embedded one), or
        target, draft: what ``load_model`` takes, or loaded models.
        placement: where they go; by default both on the default device.
        dtype: as for ``load_model``.
        quantize_target, quantize_draft: as ``quantize`` of ``load_model``. An int8 draft never
            changes the answer; an int8 target is another model, whose own answer it is.
        memory: what a device can hold, by default what it says; ``lambda device: None`` checks
            nothing.

    Raises:
        HippoError: unknown name, a role missing, models that cannot share inputs (families, special
            ids, patches, time scale, tokenizers, pixel values), a loaded model elsewhere than its
            placement or quantization says, two meshes with devices of other processes, devices with
            too little memory.
    """
    placement = placement or Placement()
    quantize = check_quantize(quantize_target), check_quantize(quantize_draft)
    if name is not None:
        if target is not None or draft is not None:
            raise HippoError("give the name of a pair, or target= and draft=, not both")
        # The zoo is looked up here only, so that a pair of one's own needs no embedded files.
        from hippo_jax.resources import checkpoint_directory, pair_directory

        pair_directory(name)
        target, draft = checkpoint_directory(name, "target"), checkpoint_directory(name, "draft")
    if target is None or draft is None:
        raise HippoError("a pair needs a name, or both target= and draft=")

    placement.require_own_devices()
    target_home, draft_home = placement.homes()
    _check_source("target", target, target_home, quantize[0])
    _check_source("draft", draft, draft_home, quantize[1])
    # The configs say what fits, so that nobody waits for a load that must fail.
    (target_known, target_files), (draft_known, draft_files) = known(target), known(draft)
    configs = _config(target_known), _config(draft_known)
    family = family_of(configs[0].family)
    check_configs(*configs, family.shared)
    check_files(target_files, draft_files, family.processor)
    if not (isinstance(target, VideoLM) and isinstance(draft, VideoLM)):
        check_memory(pair_needs(target_known, draft_known, placement, dtype, quantize), memory)
    found = [
        source if isinstance(source, VideoLM) else load_at(source, dtype, home, quantize=small)
        for source, home, small in zip(
            (target, draft), (target_home, draft_home), quantize, strict=True
        )
    ]
    return ModelPair(found[0], found[1], placement)


def _check_source(role: str, source: Any, home: Home | None, quantize: str | None) -> None:
    """Refuse what is no source, and a loaded model that is not where it should be."""
    if not isinstance(source, VideoLM):
        if not isinstance(source, (str, os.PathLike)):
            raise HippoError(
                f"the {role} must be a directory, a hub id or a loaded model, got {source!r}"
            )
        return
    if home is not None and source.home != home:
        raise HippoError(
            "a loaded model is not where the placement wants it; load it with "
            "load_model(mesh=...), or give its source"
        )
    if quantize not in (None, source.quantize):
        raise HippoError(
            f"the {role} is loaded and not {quantize}; load it with "
            f"load_model(quantize={quantize!r}), or give its source"
        )


def known(source: Any) -> tuple[VideoLM | VideoLMConfig, str | None]:
    """A loaded model, or the config of weights none of which is loaded; and where its files are."""
    if isinstance(source, VideoLM):
        return source, source.source
    directory = locate(source, weights=False)
    if converted.is_converted(directory):
        found = manifest.read_manifest(directory)
        names = [name for name in ("config.json", "generation_config.json") if name in found.files]
        manifest.verify(directory, found.files, names)
        config = with_tied(read_config(directory), found.tied)
    elif any(fnmatch(path.name, pattern) for path in directory.iterdir() for pattern in WEIGHTS):
        config = open_checkpoint(directory).config
    else:  # on the hub still, or missing, which the load will say
        config = read_config(directory)
    return config, os.path.abspath(directory)


def _config(model: VideoLM | VideoLMConfig) -> VideoLMConfig:
    return model.config if isinstance(model, VideoLM) else model
