"""Pairs: loading, what is refused, and their placement as static metadata."""

import jax
import numpy as np
import pytest

import hippo_jax as hj
from hippo_jax import resources


@pytest.fixture(scope="module")
def pair() -> hj.ModelPair:
    return hj.load_pair("demo")


def test_a_pair_is_a_pytree_of_weights_and_its_placement_is_static(pair) -> None:
    leaves = jax.tree.leaves(pair)
    assert len(leaves) == len(jax.tree.leaves(pair.target)) + len(jax.tree.leaves(pair.draft))
    seen: list[hj.Placement] = []

    @jax.jit
    def first(pair: hj.ModelPair) -> jax.Array:
        seen.append(pair.placement)  # a Python value inside the trace
        return pair.draft.decoder.norm.weight[...][0]

    first(pair)
    assert seen == [hj.Placement()]


def test_models_may_be_given_and_meshes_chosen(pair) -> None:
    mesh = jax.make_mesh((2,), ("tp",), devices=jax.devices()[2:4])
    placed = hj.load_pair(
        target=pair.target,
        draft=resources.checkpoint_directory("demo", "draft"),
        placement=hj.Placement(draft=mesh),
    )
    assert placed.target is pair.target
    homes = {d for leaf in jax.tree.leaves(placed.draft) for d in leaf.devices()}
    assert homes == set(mesh.devices.flat)
    for ours, theirs in zip(
        jax.tree.leaves(placed.draft), jax.tree.leaves(pair.draft), strict=True
    ):
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "name"),
        ({"name": "nobody"}, "nobody"),
        ({"name": "demo", "target": "x"}, "not both"),
        ({"target": "x"}, "both"),
    ],
)
def test_what_makes_no_pair_is_one_line(arguments: dict, said: str) -> None:
    with pytest.raises(hj.HippoError, match=said):
        hj.load_pair(**arguments)


def test_generate_is_one_program_with_a_loop_and_no_host_in_it(pair) -> None:
    inputs = hj.prepare_inputs(pair, resources.clip(), "Describe the video.")
    text = str(
        jax.make_jaxpr(lambda m, i: hj.generate(m, i, max_new_tokens=8).tokens)(pair.draft, inputs)
    )
    assert "while[" in text
    assert "callback" not in text
