"""Draft and target on devices of their own: the same tokens and counters as on one device."""

import jax
import numpy as np
import pytest
from support.pairs import Shape
from support.speculative_cases import MIXED, Case

import hippo_jax as hj
from hippo_jax.decoding.sampling import Greedy, Sampling
from hippo_jax.placement.pair import ModelPair
from hippo_jax.placement.placement import Placement
from hippo_jax.weights.load import place_model

MAXIMAL = Sampling(0.9, top_k=12, coupling="maximal")
PLACES = {
    "one program, 1 + 1": lambda: Placement.on(1, 1, one_program=True),
    "one program, 2 + 2": lambda: Placement.on(2, 2, one_program=True),
    "one program, 3 + 1": lambda: Placement.on(3, 1, one_program=True),
    "one program, 2 + 4": lambda: Placement.on(2, 4, one_program=True),
    "two meshes, 1 + 1": lambda: Placement.on(1, 1),
    "two meshes, 3 + 2": lambda: Placement.on(3, 2),
    "one mesh": lambda: Placement(*[Placement.on(2, 1).target] * 2),
}
SHAPES = [
    Shape("parallel", 3, 3, 0.5, (3, 9, 17, 22)),
    Shape("sequential", 2, 3, 0.5, (3, 9, 17, 22), MIXED),
    Shape("parallel", 4, 2, 0.5, (5,), MAXIMAL),
    Shape("parallel", 1, 2, 1.0, (), Greedy(1.3)),
    Shape("sequential", 3, 2, 0.25, (5,), MAXIMAL),
]


def placed(pair: ModelPair, placement: Placement) -> ModelPair:
    target, draft = placement.homes()
    return ModelPair(place_model(pair.target, target), place_model(pair.draft, draft), placement)


def assert_same(found: hj.Generation, expected: hj.Generation) -> None:
    np.testing.assert_array_equal(found.lengths, expected.lengths)
    np.testing.assert_array_equal(found.tokens, expected.tokens)
    for ours, theirs in zip(
        jax.tree.leaves(found.stats), jax.tree.leaves(expected.stats), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"{s.schedule}-{s.gamma}")
@pytest.mark.parametrize("place", PLACES)
def test_every_placement_says_the_same(place: str, shape: Shape) -> None:
    for seed in range(4):
        case = Case(shape, seed)
        expected = case.speculative()
        case.pair = placed(case.pair, PLACES[place]())
        assert_same(case.speculative(), expected)
