"""``load_model``: a directory, a hub id or a converted directory to a model on its devices."""

from __future__ import annotations

import os
from typing import Any

import jax
import numpy as np

from hippo_jax.architectures.int8 import check_quantize, with_int8_kernels
from hippo_jax.architectures.parameters import declared, values, with_values
from hippo_jax.architectures.sharding import Home, specs_at
from hippo_jax.architectures.video_lm import VideoLM, abstract_model
from hippo_jax.errors import HippoError
from hippo_jax.weights import converted
from hippo_jax.weights.checkpoint import Checkpoint, open_checkpoint
from hippo_jax.weights.host import default_device, default_dtype, parse_dtype, place, place_weight
from hippo_jax.weights.meeting import meet
from hippo_jax.weights.source import locate


def load_model(
    source: str | os.PathLike[str],
    *,
    dtype: Any = None,
    mesh: jax.sharding.Mesh | None = None,
    revision: str | None = None,
    quantize: str | None = None,
) -> VideoLM:
    """Load a video-LLM.

    Weights stream tensor by tensor from the files to their final dtype, layout and devices: above
    the model itself no more than the tensor in hand takes memory. Only safetensors are read.

    Args:
        source: a Hugging Face directory, ``organisation/name`` on the hub, or a directory made by
            ``convert``.
        dtype: ``"float32"``, ``"bfloat16"`` or ``"float16"`` (or a numpy or jax dtype) of every
            weight. Default: float32 on CPUs, bfloat16 on TPUs and on GPUs of compute capability 8
            and above, float16 on older GPUs.
        mesh: split the weights over its axis ``"tp"``; the model then runs on these devices
            together. Default: the default device.
        revision: branch, tag or commit on the hub.
        quantize: ``"int8"``: kernels of the decoder's layers and of the vision tower as int8 with a
            float32 scale for each output (``architectures.int8`` says which and why not the
            others), everything else in ``dtype``. That is another model with answers of its own.

    Raises:
        HippoError: the source cannot be found, is of an architecture that is not supported, is
            damaged or unfinished, its tensors do not fit the model (all of them are named), or
            ``quantize`` is something else.
    """
    return load_at(source, dtype, None if mesh is None else Home.of(mesh), revision, quantize)


def load_at(
    source: str | os.PathLike[str],
    dtype: Any,
    home: Home | None,
    revision: str | None = None,
    quantize: str | None = None,
) -> VideoLM:
    """``load_model`` to a home, which may be a part of a mesh."""
    if not isinstance(source, (str, os.PathLike)):
        raise HippoError(f"source must be a directory or a hub id, got {source!r}")
    quantize = check_quantize(quantize)
    asked = None if dtype is None else parse_dtype(dtype)
    meet(home)
    directory = locate(source, revision)
    device = default_device() if home is None else home.mesh.devices.flat[0]
    target = default_dtype(device) if asked is None else asked
    if converted.is_converted(directory):
        model = converted.load(directory, target, home, quantize)
    else:
        model = _from_files(open_checkpoint(directory), target, home, quantize)
    model.home = home
    model.source = os.path.abspath(directory)  # the tokenizer is read later, perhaps elsewhere
    return model


def place_model(model: VideoLM, home: Home | None) -> VideoLM:
    """A model whose weights are whole, on the host or on one device, copied to ``home``."""
    meet(home)
    specs = specs_at(model.config, declared(model), home)
    weights = {
        path: place(np.asarray(value), np.dtype(value.dtype), specs[path], home)[0]
        for path, value in values(model).items()
    }
    placed = with_values(model, weights)
    placed.home = home
    return placed


def _from_files(
    checkpoint: Checkpoint, dtype: np.dtype[Any], home: Home | None, quantize: str | None
) -> VideoLM:
    checkpoint.require_fitting(dtype)
    model = abstract_model(checkpoint.config)
    wanted = declared(model)
    model = model if quantize is None else with_int8_kernels(model)
    specs = specs_at(checkpoint.config, declared(model), home)
    weights: dict[str, jax.Array] = {}
    for path, item in wanted.items():
        source = checkpoint.weight(path, item.shape)
        placed, finite = place_weight(path, source, dtype, specs, home)
        weights |= placed
        if not finite:
            checkpoint.raise_with_values(dtype)
    return with_values(model, weights)
