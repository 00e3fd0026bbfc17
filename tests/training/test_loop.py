"""A stage that is interrupted goes on where it was and ends with the same weights."""

from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hippo_jax.training import loop
from hippo_jax.training.loop import Stage, run_stage
from hippo_jax.training.optimizer import update

STEPS = 12


def batches(make, first: int, total: int, **options) -> Iterator[dict[str, np.ndarray]]:
    """In place of the worker process: the data of a step depends on the step alone."""
    for step in range(first, total):
        yield make(step=step, **options)


def make(step: int, stop_at: int) -> dict[str, np.ndarray]:
    if step == stop_at:
        raise KeyboardInterrupt
    return {"goal": np.random.default_rng(step).standard_normal((4, 3)).astype(np.float32)}


def start() -> dict[str, jax.Array]:
    return {"decoder.layers.0.kernel": jnp.ones((4, 3)), "head": jnp.zeros(3)}


def step(weights, state, batch, rate):
    def loss(weights):
        middle = weights["decoder.layers.0.kernel"] - batch["goal"]
        return jnp.sum(jnp.square(middle + weights["head"]))

    weights, state = update(weights, jax.grad(loss)(weights), state, rate)
    return weights, state, {"loss": jnp.zeros(())}


def stage(stop_at: int) -> Stage:
    return Stage(
        name="toy",
        total=STEPS,
        make=make,
        options={"stop_at": stop_at},
        update=step,
        save_seconds=0.0,
    )


@pytest.mark.parametrize("stop_at", [1, 5, STEPS - 1])
def test_an_interrupted_stage_ends_like_an_unbroken_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: int
) -> None:
    monkeypatch.setattr(loop, "prefetch", batches)
    (tmp_path / "a").mkdir()
    unbroken = run_stage(tmp_path / "a", stage(-1), start)
    (tmp_path / "b").mkdir()
    with pytest.raises(KeyboardInterrupt):
        run_stage(tmp_path / "b", stage(stop_at), start)

    def never() -> dict[str, jax.Array]:
        raise AssertionError("the stage began anew")

    resumed = run_stage(tmp_path / "b", stage(-1), never)
    assert any(not np.array_equal(unbroken[name], start()[name]) for name in unbroken)
    for name, value in unbroken.items():
        np.testing.assert_allclose(resumed[name], value, rtol=1e-6, atol=1e-7)
