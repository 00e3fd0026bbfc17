"""Rotary tables: the same numbers by either way, and worked out once in a whole prefill."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hippo_jax.architectures import rope
from hippo_jax.architectures.platform import _PLATFORM
from hippo_jax.architectures.rope import cos_and_sin
from hippo_jax.benchmark.cases import pair_case


@pytest.mark.parametrize(
    ("shape", "looped"),
    [
        ((1, 7, 32), False),  # a few tokens of a verification
        ((2, 40, 32), True),
        ((300, 1, 20), True),
        ((2, 700, 5), False),  # no halves
    ],
)
def test_a_loop_makes_the_same_numbers(shape: tuple[int, ...], looped: bool) -> None:
    angles = 1e3 * jax.random.normal(jax.random.key(0), shape)
    found = jax.jit(cos_and_sin)(angles)
    for array, function in zip(found, (jnp.cos, jnp.sin), strict=True):
        assert array.shape == shape
        np.testing.assert_array_equal(array, jax.jit(function)(angles))
    assert ("scan[" in str(jax.make_jaxpr(lambda x: cos_and_sin(x))(angles))) is looped
    token = _PLATFORM.set("gpu")  # where these functions cost nothing, and a loop does
    assert "scan[" not in str(jax.make_jaxpr(lambda x: cos_and_sin(x))(angles))
    _PLATFORM.reset(token)


@pytest.mark.slow
def test_a_prefill_works_them_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled as users do, which the slow tests are: tower and decoder have one loop each."""
    case = pair_case("demo", 2)
    (inputs, *_), model = case.prompts(), case.pair.target

    def cosines() -> int:
        program = jax.jit(lambda model, inputs: model.prefill(inputs, 2)[0])
        return len(re.findall(r" cosine\(", program.lower(model, inputs).compile().as_text()))

    assert cosines() == 2
    monkeypatch.setattr(rope, "LOOPED", 2**60)
    assert cosines() > model.config.text.num_layers
