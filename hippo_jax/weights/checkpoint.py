"""A Hugging Face directory made ready to read: config, and one stored tensor for every weight."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hippo_jax.architectures.config import VideoLMConfig
from hippo_jax.architectures.names import HFTensor
from hippo_jax.architectures.registry import family_of
from hippo_jax.errors import HippoError
from hippo_jax.weights.host import all_finite, fits
from hippo_jax.weights.mapping import EMBEDDING, LM_HEAD, Problems, by_canonical_name, match
from hippo_jax.weights.safetensors_reader import StoredTensor, read_checkpoint, read_json


@dataclass(frozen=True)
class Checkpoint:
    """An opened directory; no tensor has been read yet.

    Attributes:
        config: with ``tied`` as the files have it, whatever ``config.json`` says.
        tensors: weight path -> stored tensor, for those that fit.
        names: weight path -> how the file holds it.
        problems: what does not fit, still to be raised.
    """

    directory: Path
    config: VideoLMConfig
    tensors: dict[str, StoredTensor]
    names: dict[str, HFTensor]
    problems: Problems

    def require_fitting(self, dtype: np.dtype[Any]) -> None:
        """Raise one HippoError if names or shapes do not fit, with the non-finite tensors too."""
        if self.problems.any():
            self.raise_with_values(dtype)

    def raise_with_values(self, dtype: np.dtype[Any]) -> None:
        """Look at the values of every tensor and raise all problems together."""
        for tensor in self.tensors.values():
            view = tensor.view()
            if not fits(view, dtype):
                kind = self.problems.overflow if all_finite(view) else self.problems.infinite
                kind.append(tensor.name)
        self.problems.raise_any(str(self.directory))

    def weight(self, path: str, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
        """A weight as a view of its file, in our layout and ``shape``; nothing is copied."""
        return self.names[path].to_ours(np.asarray(self.tensors[path].view()), shape)


def read_config(directory: Path) -> VideoLMConfig:
    """``config.json`` with ``generation_config.json`` beside it.

    Raises:
        HippoError: absent, malformed, or of an architecture that is not supported.
    """
    path = directory / "config.json"
    if not path.is_file():
        raise HippoError(f"{directory}: no config.json here; give the directory of a checkpoint")
    config = read_json(path)
    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        raise HippoError(f"{path}: it names no model_type; is this the config of a model?")
    generation_path = directory / "generation_config.json"
    generation = read_json(generation_path) if generation_path.is_file() else None
    try:
        return family_of(model_type[:80]).config_from_hf(config, generation)
    except HippoError as error:
        raise HippoError(f"{directory}: {_one_line(error)}") from None
    # What a config of the right type and wrong contents can lead to.
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
        raise HippoError(f"{path}: cannot be understood: {_one_line(error)}") from None


def _one_line(error: BaseException) -> str:
    """The message on one line and cut in its middle: a config's values may be of any length."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 400 else f"{text[:250]} ... {text[-100:]}"


def with_tied(config: VideoLMConfig, tied: bool) -> VideoLMConfig:
    """``config`` with the logits taken from the embedding or from a matrix of their own."""
    return replace(config, text=replace(config.text, tied=tied))


def open_checkpoint(directory: Path) -> Checkpoint:
    """Read the headers and match every stored tensor with a declared weight.

    Raises:
        HippoError: no readable config or weights. Tensors that do not fit are collected instead,
            for :meth:`Checkpoint.require_fitting`.
    """
    config = read_config(directory)
    stored = read_checkpoint(directory)
    layers = max(config.text.num_layers, getattr(config.vision, "depth", 0))
    if layers > len(stored):
        # Also keeps a garbled config from making names for a billion layers.
        raise HippoError(
            f"{directory}: config.json speaks of {layers} layers, the files hold"
            f" {len(stored)} tensors; config and weights are of different models"
        )
    problems = Problems()
    found = by_canonical_name(stored, problems)
    config = with_tied(config, _is_tied(found, config.text.tied))
    if config.text.tied:
        found.pop(LM_HEAD, None)
    names = family_of(config.family).hf_tensors(config)
    return Checkpoint(directory, config, match(found, names, problems), names, problems)


def _is_tied(found: dict[str, StoredTensor], flag: bool) -> bool:
    """What the files hold decides: some say untied and have no head, some tied and have one."""
    head, embedding = found.get(LM_HEAD), found.get(EMBEDDING)
    if head is None:
        return True
    if not flag or embedding is None:
        return False
    if (head.dtype, head.shape) != (embedding.dtype, embedding.shape):
        return False
    return head.bytes_equal(embedding)
