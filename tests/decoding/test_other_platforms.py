"""Whole calls lower for GPUs and TPUs: nothing in them exists on a CPU alone.

Nothing is run there. What a backend's compiler makes of it, only that backend can show.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
import pytest
from support import families

import hippo_jax
from hippo_jax import HippoConfig, Sampling
from hippo_jax.architectures.attention import SCORE_BYTES, score_bytes
from hippo_jax.architectures.platform import _PLATFORM, platform
from hippo_jax.benchmark.cases import pair_case
from hippo_jax.decoding.generate import generate
from hippo_jax.inputs.model_inputs import ModelInputs
from hippo_jax.placement.pair import ModelPair, load_pair
from hippo_jax.placement.placement import Placement

PLATFORMS = {"cuda": "gpu", "tpu": "tpu"}
TOKENS = 8
SAMPLING = Sampling(temperature=0.7, top_k=20, top_p=0.9)


@pytest.fixture(params=PLATFORMS)
def lowered(request: pytest.FixtureRequest) -> Iterator[Callable[..., str]]:
    """Lowers a call for another platform, traced as it would be there."""
    jax.clear_caches()  # programs inside know no platform: they were traced for this one
    token = _PLATFORM.set(PLATFORMS[request.param])
    assert score_bytes() == SCORE_BYTES

    def lower(call: Callable[..., Any], *arguments: Any) -> str:
        traced = jax.jit(call).trace(*arguments)
        text: str = traced.lower(lowering_platforms=(request.param,)).as_text()
        return text

    yield lower
    _PLATFORM.reset(token)
    jax.clear_caches()


@pytest.fixture(scope="module")
def prompt() -> ModelInputs:
    return pair_case("demo", TOKENS).prompts()[0]


def own_calls(text: str) -> set[str]:
    """Custom calls, but those that only say where arrays lie."""
    found = set(re.findall(r"custom_call @([\w$.]+)", text))
    return found - {"Sharding", "SPMDFullToShardShape", "SPMDShardToFullShape"}


@pytest.mark.parametrize("quantize", [None, "int8"])
def test_plain_decoding(lowered, prompt: ModelInputs, quantize: str | None) -> None:
    target = load_pair("demo", quantize_target=quantize).target
    text = lowered(lambda m, i: generate(m, i, max_new_tokens=TOKENS), target, prompt)
    assert "stablehlo.while" in text and not own_calls(text)


@pytest.mark.parametrize("schedule", ["sequential", "parallel"])
@pytest.mark.parametrize("sampling", [None, SAMPLING])
def test_both_schedules(lowered, prompt: ModelInputs, schedule: Any, sampling: Any) -> None:
    config = HippoConfig(schedule=schedule)
    key = None if sampling is None else jax.random.key(0)

    def call(pair: ModelPair, inputs: ModelInputs) -> Any:
        return hippo_jax.hippo_generate(
            pair, inputs, max_new_tokens=TOKENS, config=config, sampling=sampling, key=key
        )

    text = lowered(call, load_pair("demo"), prompt)
    assert "stablehlo.while" in text and not own_calls(text)


@pytest.mark.parametrize("case", families.cases(), ids=str)
def test_every_family(lowered, case: families.FamilyCase) -> None:
    """With its own tower and places, from pixels to tokens."""
    pair, inputs = families.pair(case), families.inputs(case)

    def call(pair: ModelPair, inputs: ModelInputs) -> Any:
        return hippo_jax.hippo_generate(pair, inputs, max_new_tokens=TOKENS)

    assert not own_calls(lowered(call, pair, inputs))


@pytest.mark.parametrize("devices", [(1, 1), (2, 1)])
def test_one_program_over_devices_of_both_roles(
    lowered, prompt: ModelInputs, devices: tuple[int, int]
) -> None:
    pair = load_pair("demo", placement=Placement.on(*devices, one_program=True))

    def call(pair: ModelPair, inputs: ModelInputs) -> Any:
        return hippo_jax.hippo_generate(pair, inputs, max_new_tokens=TOKENS)

    if devices[0] != devices[1] and platform() == "tpu":
        with pytest.raises(ValueError, match="same size for TPU"):  # so ``Placement`` refuses it
            lowered(call, pair, prompt)
        return
    text = lowered(call, pair, prompt)
    assert "stablehlo.all_reduce" in text and not own_calls(text)
