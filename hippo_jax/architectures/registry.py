"""The families, by the ``model_type`` of their ``config.json``."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from hippo_jax.architectures.family import Family
from hippo_jax.errors import HippoError

__all__ = ["FAMILIES", "Family", "family_of"]

# Each is a folder beside this file, whose module ``family`` holds its ``FAMILY``.
_FOLDERS = (
    "internvl",
    "llava_onevision",
    "qwen2_5_vl",
    "qwen2_vl",
    "qwen3_vl",
)

FAMILIES: Mapping[str, Family] = {
    name: import_module(f"hippo_jax.architectures.{name}.family").FAMILY for name in _FOLDERS
}


def family_of(model_type: str) -> Family:
    """The family of a ``config.json`` by its ``model_type``.

    Raises:
        HippoError: the architecture is not one of ours.
    """
    if model_type not in FAMILIES:
        raise HippoError(
            f"architecture {model_type!r} is not supported; supported: {', '.join(FAMILIES)}"
        )
    return FAMILIES[model_type]
