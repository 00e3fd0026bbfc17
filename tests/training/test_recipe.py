"""Optimizer, checkpoints and the whole recipe at toy length."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hippo_jax.errors import HippoError
from hippo_jax.training.checkpointing import Progress, fresh, load_progress, save_progress
from hippo_jax.training.optimizer import initial_state, schedule, update, uses_muon
from hippo_jax.training.recipe import Recipe, recipe_with, train


def test_optimizer_reaches_a_minimum():
    goal = {"decoder.layers.0.kernel": jnp.ones((6, 4)) * 0.3, "head": jnp.arange(3.0) / 4}
    weights = jax.tree.map(jnp.zeros_like, goal)
    assert uses_muon("decoder.layers.0.kernel", goal["decoder.layers.0.kernel"])
    assert not uses_muon("head", goal["head"])

    def loss(weights):
        return sum(jnp.sum((weights[n] - goal[n]) ** 2) for n in goal)

    state = initial_state(weights)
    step = jax.jit(lambda w, s, rate: update(w, jax.grad(loss)(w), s, rate))
    for index in range(2000):
        weights, state = step(weights, state, jnp.float32(1 - index / 2000))
    assert loss(weights) < 1e-2


def test_schedule_warms_up_and_ends_at_zero():
    assert schedule(0, 100) < 0.1
    assert schedule(39, 1000) == 1
    assert schedule(999, 1000) == pytest.approx(0, abs=0.01)


def test_progress_survives_the_disk(tmp_path):
    weights = {"target.decoder.layers.0.kernel": jnp.ones((2, 3)), "a": jnp.zeros(4)}
    progress = fresh(weights, 7)
    gradients = jax.tree.map(jnp.ones_like, weights)
    weights, state = update(weights, gradients, progress.state, jnp.float32(1))
    save_progress(tmp_path / "s.npz", Progress(weights, state, 1, 7))
    loaded = load_progress(tmp_path / "s.npz")
    assert (loaded.step, loaded.total) == (1, 7)
    jax.tree.map(np.testing.assert_array_equal, loaded.weights, weights)
    jax.tree.map(np.testing.assert_array_equal, loaded.state, state)
    assert [p.name for p in tmp_path.iterdir()] == ["s.npz"]


def test_a_broken_checkpoint_is_one_clear_line(tmp_path):
    (tmp_path / "s.npz").write_bytes(b"not a checkpoint")
    with pytest.raises(HippoError, match=r"s\.npz"):
        load_progress(tmp_path / "s.npz")


def test_recipe_overrides():
    assert recipe_with({"seed": 3}, ["joint_steps=5"]) == Recipe(seed=3, joint_steps=5)
    with pytest.raises(HippoError, match="no field"):
        recipe_with({}, ["nonsense=1"])
    for wrong in ("joint_batch=0", "vision_steps=-1", "subset_share=2"):
        with pytest.raises(HippoError, match=wrong.split("=")[0]):
            recipe_with({}, [wrong])
    with pytest.raises(HippoError, match="not a number"):
        recipe_with({}, ["joint_steps=many"])


@pytest.mark.slow
def test_the_whole_recipe_from_nothing(tmp_path):
    from hippo_jax.training.export import export_pair, load_exported, rounded

    recipe = Recipe(
        vision_steps=2, vision_batch=1, joint_steps=2, joint_batch=1, draft_steps=2, draft_batch=1
    )
    weights = train(tmp_path, recipe)
    again = train(tmp_path, recipe)  # everything is done: nothing may change
    for role, own in weights.items():
        for name, value in own.items():
            np.testing.assert_array_equal(value, again[role][name])
    export_pair(weights, tmp_path)
    loaded = load_exported(tmp_path)
    for role, own in weights.items():
        for name, value in rounded(own).items():
            np.testing.assert_array_equal(value, loaded[role][name])
