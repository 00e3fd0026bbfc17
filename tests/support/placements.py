"""Pairs on devices of their own, and how answers are compared."""

import jax
import numpy as np

import hippo_jax as hj
from hippo_jax.placement.pair import ModelPair
from hippo_jax.placement.placement import Placement
from hippo_jax.weights.load import place_model

PLACES = {
    "one program, 1 + 1": lambda: Placement.on(1, 1, one_program=True),
    "one program, 2 + 2": lambda: Placement.on(2, 2, one_program=True),
    "one program, 3 + 1": lambda: Placement.on(3, 1, one_program=True),
    "one program, 2 + 4": lambda: Placement.on(2, 4, one_program=True),
    "two meshes, 1 + 1": lambda: Placement.on(1, 1),
    "two meshes, 3 + 2": lambda: Placement.on(3, 2),
    "one mesh": lambda: Placement(*[Placement.on(2, 1).target] * 2),
}


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
