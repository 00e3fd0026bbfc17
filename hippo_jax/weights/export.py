"""``save_hf``: a model of ours to a directory that transformers loads."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hippo_jax.architectures.names import hub_name
from hippo_jax.architectures.parameters import values
from hippo_jax.architectures.video_lm import VideoLM
from hippo_jax.errors import HippoError
from hippo_jax.weights.durable import side_copy, write_json
from hippo_jax.weights.host import converted, parse_dtype
from hippo_jax.weights.manifest import MANIFEST, UNFINISHED
from hippo_jax.weights.safetensors_reader import FLOATS, SINGLE_NAME, read_json
from hippo_jax.weights.source import side_files

_FORMAT_NAMES = {dtype: name for name, dtype in FLOATS.items()}


def save_hf(
    model: VideoLM,
    directory: str | os.PathLike[str],
    *,
    dtype: Any = "float32",
    config: Mapping[str, Any] | None = None,
) -> Path:
    """Write ``model.safetensors``, ``config.json`` and the files that make a complete checkpoint.

    Tensors get the names of the family's published files, which transformers and other readers
    know. The files replace earlier ones of the same names one by one, each only when it is whole;
    the weights come last. Tokenizer and processor files are copied from ``model.source``.

    Args:
        directory: made if it is not there.
        dtype: of the weights in the file: ``"float32"``, ``"bfloat16"`` or ``"float16"``.
        config: contents of ``config.json``. Default: that of ``model.source``.

    Raises:
        HippoError: neither ``config`` nor a source that has one, a quantized model, weights that
            are not finite in ``dtype``, or the directory cannot be written.
    """
    if model.quantize is not None:
        raise HippoError(
            f"the kernels of this model are {model.quantize} and cannot be saved; load it again "
            "without quantize"
        )
    target = parse_dtype(dtype)
    place = Path(directory).expanduser()
    source = None if model.source is None else Path(model.source)
    if config is None:
        if source is None:
            raise HippoError("this model was made without files: give save_hf its config")
        config = read_json(source / "config.json")
    tied = {"tie_word_embeddings": model.config.text.tied}
    stated = {**config, **tied, "dtype": target.name}
    stated.pop("torch_dtype", None)  # the older name of the same field
    if isinstance(text := stated.get("text_config"), Mapping):  # where it may be said again
        stated["text_config"] = {**text, **tied}
    try:
        place.mkdir(parents=True, exist_ok=True)
        if source is not None and source.resolve() != place.resolve():
            for path in side_files(source):
                if path.name not in (MANIFEST, UNFINISHED):
                    side_copy(path, place / path.name)
        write_json(place / "config.json", stated)
        _write_weights(model, place / SINGLE_NAME, target)
    except OSError as error:
        raise HippoError(f"{place}: cannot write here: {error.strerror or error}") from None
    return place


def _write_weights(model: VideoLM, path: Path, dtype: np.dtype[Any]) -> None:
    """One safetensors file, tensor by tensor: no more than one is on the host at a time."""
    weights = values(model)
    names = {
        ours: (hub_name(item.name, model.family.hub_prefixes), item)
        for ours, item in model.family.hf_tensors(model.config).items()
    }
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, item in names.values():
        size = int(np.prod(item.shape)) * dtype.itemsize
        header[name] = {
            "dtype": _FORMAT_NAMES[dtype],
            "shape": list(item.shape),
            "data_offsets": [position, position + size],
        }
        position += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors start at a multiple of eight
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            file.write(len(text).to_bytes(8, "little"))
            file.write(text)
            for ours, (name, item) in names.items():
                array, finite = converted(item.to_file(np.asarray(weights[ours])), dtype)
                if not finite:
                    raise HippoError(f"{name} is not finite in {dtype.name}: nothing was saved")
                # Bytes, because numpy does not hand out bfloat16 as a buffer.
                file.write(array.reshape(-1).view(np.uint8).data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
