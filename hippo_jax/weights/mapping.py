"""Stored tensor names to the weights that a model declares, and everything that does not fit.

A checkpoint may carry the hub's older names (``visual.*``, ``model.layers.*``) or the module names
of transformers 5 (``model.visual.*``, ``model.language_model.*``). Both are brought to the second
form, in which each family lists what it expects.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from hippo_jax.architectures.names import HFTensor
from hippo_jax.errors import HippoError
from hippo_jax.weights.safetensors_reader import FLOATS, StoredTensor, shorten

LM_HEAD = "lm_head.weight"
EMBEDDING = "model.language_model.embed_tokens.weight"

# Tried in turn, the first that matches wins. No canonical name matches a rule that changes it.
_RULES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^(?:model\.)?language_model\.lm_head\.", "lm_head."),
        (r"^(?:model\.)?language_model\.model\.", "model.language_model."),
        (r"^(?:model\.)?vision_tower\.vision_model\.", "model.vision_tower."),
        (
            r"^(visual|vision_tower|multi_modal_projector|language_model)\.",
            r"model.\1.",
        ),
        (r"^image_newline$", "model.image_newline"),
        (r"^model\.(embed_tokens|layers|norm)\.", r"model.language_model.\1."),
    )
)
# Tables that old files carry although every implementation computes them.
_COMPUTED = re.compile(r"(?:^|\.)(?:rotary_emb|rotary_pos_emb)\.(?:original_)?inv_freq$")


def canonical(name: str) -> str:
    """The transformers-5 module name of a stored name."""
    for pattern, replacement in _RULES:
        changed, count = pattern.subn(replacement, name, count=1)
        if count:
            return changed
    return name


@dataclass
class Problems:
    """All that is wrong with the tensors of a checkpoint, reported together."""

    missing: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    shape: list[str] = field(default_factory=list)
    dtype: list[str] = field(default_factory=list)
    infinite: list[str] = field(default_factory=list)
    overflow: list[str] = field(default_factory=list)

    def any(self) -> bool:
        """Whether something does not fit."""
        return any(vars(self).values())

    def raise_any(self, source: str) -> None:
        """One HippoError with every kind, its count and its first names; nothing if all is well."""
        kinds = (
            (self.missing, "missing"),
            (self.unknown, "not of this model"),
            (self.twice, "stored under two names"),
            (self.shape, "of another shape"),
            (self.dtype, "of a dtype that is not read"),
            (self.infinite, "with NaN or infinite values"),
            (self.overflow, "too large for the asked dtype (use bfloat16 or float32)"),
        )
        parts = [f"{len(names)} {what}: {shorten(names)}" for names, what in kinds if names]
        if parts:
            raise HippoError(f"{source}: tensors do not fit the model: {'; '.join(parts)}")


def by_canonical_name(
    stored: Mapping[str, StoredTensor], problems: Problems
) -> dict[str, StoredTensor]:
    """Stored tensors under their canonical names; tables nobody needs are left out."""
    found: dict[str, StoredTensor] = {}
    for name, tensor in stored.items():
        if _COMPUTED.search(name):
            continue
        key = canonical(name)
        if key in found:
            problems.twice.append(f"{name} and {found[key].name}")
        found[key] = tensor
    return found


def match(
    found: Mapping[str, StoredTensor], wanted: Mapping[str, HFTensor], problems: Problems
) -> dict[str, StoredTensor]:
    """Weight path -> its stored tensor, for all that fit; what does not goes into ``problems``."""
    fitting: dict[str, StoredTensor] = {}
    for path, expected in wanted.items():
        tensor = found.get(expected.name)
        if tensor is None:
            problems.missing.append(expected.name)
        elif tensor.shape != tuple(expected.shape):
            problems.shape.append(
                f"{tensor.name} {list(tensor.shape)} instead of {list(expected.shape)}"
            )
        elif tensor.dtype not in FLOATS:
            problems.dtype.append(f"{tensor.name} ({tensor.dtype})")
        else:
            fitting[path] = tensor
    names = {expected.name for expected in wanted.values()}
    problems.unknown += [tensor.name for key, tensor in found.items() if key not in names]
    return fitting
