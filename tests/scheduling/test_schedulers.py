"""Draft and target on devices of their own: the same tokens and counters as on one device."""

from typing import Any

import pytest
from support.pairs import Shape
from support.placements import PLACES, assert_same, placed
from support.speculative_cases import MIXED, Case

from hippo_jax.decoding.sampling import Greedy, Sampling
from hippo_jax.scoring.config import ScoringConfig


def chosen_by(selector: str, **keywords: Any) -> tuple[tuple[str, Any], ...]:
    """What a ``HippoConfig`` says of it."""
    return (("scoring", ScoringConfig(selector=selector)), *keywords.items())


MAXIMAL = Sampling(0.9, top_k=12, coupling="maximal")
SHAPES = [
    Shape("parallel", 3, 3, 0.5, (3, 9, 17, 22)),
    Shape("sequential", 2, 3, 0.5, (3, 9, 17, 22), MIXED),
    Shape("parallel", 4, 2, 0.5, (5,), MAXIMAL),
    Shape("parallel", 1, 2, 1.0, (), Greedy(1.3)),
    Shape("sequential", 3, 2, 0.25, (5,), MAXIMAL),
    # Who chooses the tokens and when, and where the draft's prompt stands.
    Shape("parallel", 3, 2, 0.5, keywords=chosen_by("draft")),
    Shape("sequential", 3, 2, 0.5, keywords=chosen_by("uniform", draft_positions="packed")),
    Shape("parallel", 2, 2, 0.25, keywords=chosen_by("holistic", score_layers=1)),
    Shape("sequential", 4, 2, 0.5, keywords=chosen_by("draft", draft_positions="packed")),
]


# The others take as long again each: `pytest -m slow tests/scheduling`.
ORDINARY = {
    ("one program, 1 + 1", 2),
    ("one program, 2 + 2", 1),
    ("one program, 3 + 1", 0),
    ("two meshes, 1 + 1", 1),
    ("two meshes, 3 + 2", 0),
    ("one mesh", 1),
}


def cases() -> list:
    return [
        pytest.param(
            place,
            shape,
            id=f"{place}-{index}-{shape.schedule}-{shape.gamma}",
            marks=() if (place, index) in ORDINARY else pytest.mark.slow,
        )
        for place in PLACES
        for index, shape in enumerate(SHAPES)
    ]


@pytest.mark.parametrize(("place", "shape"), cases())
def test_every_placement_says_the_same(place: str, shape: Shape) -> None:
    for seed in range(4):
        case = Case(shape, seed)
        expected = case.speculative()
        case.pair = placed(case.pair, PLACES[place]())
        assert_same(case.speculative(), expected)
