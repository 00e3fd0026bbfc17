"""How much of a caption is right: attributes counted slot by slot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from hippo_jax.training.domain import Scene
from hippo_jax.training.language import NOTHING, SLOTS, Slot, attributes, parse

MISSING = "(not said)"
INVENTED = "(invented)"


@dataclass
class Score:
    """Counts over captions; every figure is derived from them."""

    right: Counter[str] = field(default_factory=Counter)  # by attribute
    total: Counter[str] = field(default_factory=Counter)
    confusion: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    captions: int = 0
    perfect: int = 0

    @property
    def accuracy(self) -> float:
        """Share of attributes that are right."""
        return sum(self.right.values()) / max(1, sum(self.total.values()))

    @property
    def exact(self) -> float:
        """Share of captions with every attribute right."""
        return self.perfect / max(1, self.captions)

    def by_attribute(self) -> dict[str, float]:
        return {name: self.right[name] / count for name, count in sorted(self.total.items())}

    def worst(self, count: int = 10) -> list[tuple[tuple[str, str, str], int]]:
        """The commonest `(attribute, truth, said)` mistakes."""
        return self.confusion.most_common(count)


def score_captions(pairs: Iterable[tuple[Scene, str]]) -> Score:
    """Scores `(scene, caption text)` pairs.

    Every attribute of the truth counts once. An object that is left out or invented makes all
    attributes of its slot wrong: for an invented one, those that the text states.
    """
    score = Score()
    for scene, text in pairs:
        said = parse(text)
        slots = attributes(scene)
        mistakes = sum(_score_slot(score, slots[name], said.get(name, {})) for name in SLOTS)
        score.captions += 1
        score.perfect += mistakes == 0
    return score


def _score_slot(score: Score, truth: Slot, said: Slot) -> int:
    present = said.get("object") == truth.get("object")
    if not present and truth.get("object") == NOTHING:
        names = list(said) or ["object"]
    else:
        names = list(truth)
    mistakes = 0
    for name in names:
        expected, got = truth.get(name, INVENTED), said.get(name, MISSING)
        right = present and expected == got
        score.total[name] += 1
        score.right[name] += right
        if not right:
            score.confusion[name, expected, got] += 1
            mistakes += 1
    return mistakes
