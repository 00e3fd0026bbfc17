"""Pairs: loading, what is refused, and their placement as static metadata."""

import dataclasses

import jax
import numpy as np
import pytest

import hippo_jax as hj
from hippo_jax import resources
from hippo_jax.placement import pair as pair_module


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
    placement = hj.Placement.on(2, jax.devices()[2:4])
    mesh = placement.draft
    target = hj.load_model(pair.target.source, mesh=placement.target)
    placed = hj.load_pair(
        target=target,
        draft=resources.checkpoint_directory("demo", "draft"),
        placement=placement,
    )
    assert placed.target is target
    with pytest.raises(hj.HippoError, match="not where the placement wants it"):
        hj.load_pair(target=pair.target, draft=target, placement=placement)
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


@pytest.mark.parametrize(
    ("field", "value"),
    [("video_token_id", 5), ("tokens_per_second", 3.0), ("text_position_rule", "extent")],
)
def test_models_that_cannot_share_inputs_are_refused(pair, field: str, value) -> None:
    other = hj.load_model(resources.checkpoint_directory("demo", "draft"))
    other.config = dataclasses.replace(other.config, **{field: value})
    with pytest.raises(hj.HippoError, match=field):
        hj.load_pair(target=pair.target, draft=other)


def test_a_draft_with_other_windows_gets_its_own_layout(pair) -> None:
    other = hj.load_model(resources.checkpoint_directory("demo", "draft"))
    vision = dataclasses.replace(other.config.vision, window_size=56, full_attention_layers=(1,))
    other.config = dataclasses.replace(other.config, vision=vision)
    other.vision.config = vision
    both = hj.load_pair(target=pair.target, draft=other)
    shared = hj.prepare_inputs(both, resources.clip(), "What?")
    alone = hj.prepare_inputs(other, resources.clip(), "What?")
    expected = other.encode_video(alone)
    np.testing.assert_array_equal(other.encode_video(shared, draft=True), expected)
    assert not np.allclose(other.encode_video(shared), expected)


def test_a_loaded_model_must_be_where_the_placement_says(pair) -> None:
    mesh = jax.make_mesh((2,), ("tp",), devices=jax.devices()[2:4])
    with pytest.raises(hj.HippoError, match="mesh"):
        hj.load_pair(target=pair.target, draft=pair.draft, placement=hj.Placement(draft=mesh))


def test_two_meshes_over_several_processes_are_refused_before_loading(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Told at the first round they would cost the load of both models."""
    placement = hj.Placement.on(1, 1)
    monkeypatch.setattr(jax, "process_index", lambda: 1)  # another one's devices
    monkeypatch.setattr(pair_module, "load_at", lambda *_, **__: pytest.fail("loaded"))
    with pytest.raises(hj.HippoError, match="driven from one process") as caught:
        hj.load_pair("demo", placement=placement)
    assert "\n" not in str(caught.value)
