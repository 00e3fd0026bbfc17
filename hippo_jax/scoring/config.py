"""``ScoringConfig``: which visual tokens the draft sees, one field for each open point."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax

from hippo_jax.errors import HippoError

Support = Literal["visual", "all"]
Neighbour = Literal["previous", "next", "both"]
Normaliser = Literal["minmax", "zscore", "none"]
Scope = Literal["global", "per_frame"]

SELECTORS = ("holistic", "random", "uniform", "specvlm", "draft")
SUPPORTS = ("visual", "all")
NEIGHBOURS = ("previous", "next", "both")
NORMALISERS = ("minmax", "zscore", "none")
SCOPES = ("global", "per_frame")


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise ``HippoError`` unless ``value`` is one of ``choices``."""
    if not (isinstance(value, str) and value in choices):
        known = ", ".join(repr(choice) for choice in choices)
        raise HippoError(f"{name} must be one of {known}, got {value!r}")


def check_crop(crop: object) -> None:
    """Raise ``HippoError`` unless ``crop`` is an odd whole number of at least 3."""
    whole = isinstance(crop, int) and not isinstance(crop, bool)
    if not (whole and crop >= 3 and crop % 2 == 1):  # type: ignore[operator]
        raise HippoError(f"crop must be an odd whole number of at least 3, got {crop!r}")


def check_weight(name: str, value: object) -> None:
    """Raise ``HippoError`` unless ``value`` is a finite number of at least 0."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not (number and math.isfinite(value) and value >= 0):  # type: ignore[arg-type, operator]
        raise HippoError(f"{name} must be a finite number of at least 0, got {value!r}")


@jax.tree_util.register_static
@dataclass(frozen=True)
class ScoringConfig:
    """How visual tokens are ranked. The defaults follow HIPPO (arXiv 2601.08273) where its text is
    known; each field says what the paper leaves open.

    Attributes:
        selector: ``"holistic"`` (default): the paper's three scores, taken from the target.
            ``"draft"``: the same three from the draft itself. ``"specvlm"``: the two stages of
            SpecVLM (arXiv 2508.16201). ``"random"`` and ``"uniform"``: baselines that look at
            nothing. Or a callable that takes a ``SelectionContext`` and returns float scores
            ``[N]``; it must be hashable, as a function is. Open: whether the paper's scores can
            all come from the target, whose last layer ends with its prefill.
        attention, temporal, spatial: weights of the three normalised scores, 1.0 each (default).
            One alone has the others at 0, and what has weight 0 is not computed. Open: the paper
            adds the scores; other weights are ours.
        attention_support: over which keys the softmax behind the attention score runs:
            ``"visual"``, the visual tokens alone, or ``"all"``, every key that the query sees.
            ``None`` (default) is ``"visual"`` for the holistic scores (the paper's formula) and
            ``"all"`` for SpecVLM. Open: whether the paper's own code renormalises so.
        crop: side of the window around a token over which the spatial score looks, 5 (default) in
            the paper. Odd, at least 3, so that the token stands in its middle. Open: border (cut
            off here), the token itself (left out here), sliding windows or tiles (sliding here).
        neighbour: the frame that the temporal score compares with: ``"previous"`` (default),
            ``"next"``, or ``"both"``, the mean of those that exist. A frame without the one asked
            for takes the other; a single frame scores 0. Open in the paper.
        normaliser: how scores are made comparable within each frame: ``"minmax"`` (default),
            ``"zscore"`` or ``"none"``. Open: the paper normalises per frame, but how is not known.
        scope: ``"global"`` (default): a row's tokens compete with each other. ``"per_frame"``:
            every frame keeps its share. Open in the paper. ``"uniform"`` and ``"specvlm"`` spread
            their picks themselves and always rank globally.
        specvlm_mass: share of the attention mass that stage one of SpecVLM takes, 0.4 (default),
            above 0 and at most 1.
        seed: of ``"random"``, 0 (default); from 0 to 2^32 - 1.
    """

    selector: str | Callable[..., Any] = "holistic"
    attention: float = 1.0
    temporal: float = 1.0
    spatial: float = 1.0
    attention_support: Support | None = None
    crop: int = 5
    neighbour: Neighbour = "previous"
    normaliser: Normaliser = "minmax"
    scope: Scope = "global"
    specvlm_mass: float = 0.4
    seed: int = 0

    def __post_init__(self) -> None:
        self._check_selector()
        weights = (self.attention, self.temporal, self.spatial)
        for name, value in zip(("attention", "temporal", "spatial"), weights, strict=True):
            check_weight(name, value)
        if not any(weights):
            raise HippoError(
                "attention, temporal and spatial are all 0; weigh at least one of them"
            )
        if self.attention_support is not None:
            check_choice("attention_support", self.attention_support, SUPPORTS)
        check_crop(self.crop)
        check_choice("neighbour", self.neighbour, NEIGHBOURS)
        check_choice("normaliser", self.normaliser, NORMALISERS)
        check_choice("scope", self.scope, SCOPES)
        check_weight("specvlm_mass", self.specvlm_mass)
        if not 0 < self.specvlm_mass <= 1:
            raise HippoError(
                f"specvlm_mass must be above 0 and at most 1, got {self.specvlm_mass!r}"
            )
        whole = isinstance(self.seed, int) and not isinstance(self.seed, bool)
        if not (whole and 0 <= self.seed < 2**32):
            raise HippoError(
                f"seed must be a whole number from 0 to {2**32 - 1}, got {self.seed!r}"
            )

    def _check_selector(self) -> None:
        if not callable(self.selector):
            check_choice("selector", self.selector, SELECTORS)
            return
        try:
            hash(self.selector)
        except TypeError as error:
            raise HippoError(
                f"a selector must be hashable, {type(self.selector).__name__} is not; give a "
                "function"
            ) from error

    @property
    def weights(self) -> tuple[float, float, float]:
        """Weights of attention, temporal change and spatial variance."""
        return self.attention, self.temporal, self.spatial
