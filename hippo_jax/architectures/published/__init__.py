"""The published sizes of every family without their weights: each config and where it was seen.

One JSON file a size stands beside this module. Nothing is downloaded, so a size can be planned for
or checked before its checkpoint is at hand. Each file names the public source of its config and the
published number of parameters; what could not be checked is listed there, never filled in silently.
Other releases of a size (base, thinking, chat, single-image) have the same shapes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from hippo_jax.architectures.config import VideoLMConfig
from hippo_jax.architectures.registry import family_of
from hippo_jax.errors import HippoError

_FOLDER = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Published:
    """One published size.

    Attributes:
        name: family and size, such as ``qwen2.5-vl-7b``.
        hub: its id on the Hugging Face hub.
        source: the public files that the config was read from.
        verified: whether every field that decides names and shapes of weights was seen there.
        unverified: the fields that were not, each with what stands in its place and why.
        parameters: how many the publisher or its files say there are, ``None`` if that was not
            found. To three digits where only the size of the files was found.
        parameters_source: where that number was seen.
        config: contents of ``config.json``, as far as they decide the model.
    """

    name: str
    hub: str
    source: str
    verified: bool
    unverified: tuple[str, ...]
    parameters: int | None
    parameters_source: str | None
    config: Mapping[str, Any] = field(hash=False, repr=False)

    @property
    def model_type(self) -> str:
        """Its family, as ``config.json`` names it."""
        return str(self.config["model_type"])


def published_names() -> tuple[str, ...]:
    """The names of all sizes, family by family, small ones first."""
    names = (path.stem for path in _FOLDER.glob("*.json"))
    return tuple(sorted(names, key=_family_and_size))


@cache
def published(name: str) -> Published:
    """A size with its sources.

    Raises:
        HippoError: no size has this name.
    """
    names = published_names()
    if name not in names:
        raise HippoError(f"no published size is called {name!r}; there are: {', '.join(names)}")
    content = json.loads((_FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return Published(name=name, **{**content, "unverified": tuple(content["unverified"])})


def published_config(name: str) -> VideoLMConfig:
    """The sizes of a model, as ``load_model`` would read them from its directory.

    Raises:
        HippoError: no size has this name, or its family is not supported.
    """
    size = published(name)
    return family_of(size.model_type).config_from_hf(size.config, None)


def _family_and_size(name: str) -> tuple[str, float]:
    family, _, billions = name.rpartition("-")
    return family, float(billions.removesuffix("b"))
