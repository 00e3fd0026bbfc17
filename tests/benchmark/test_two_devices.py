"""The draft on a device of its own: the target stays where it is, and the tokens stay its own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hippo_jax.architectures.parameters import values
from hippo_jax.benchmark import role_rounds, two_devices
from hippo_jax.benchmark.cases import pair_case
from hippo_jax.benchmark.timed import Answers, timed
from hippo_jax.benchmark.two_devices import (
    draft_device,
    roles_alone,
    side_by_side,
    two_mesh_decoder,
)
from hippo_jax.decoding.config import HippoConfig
from hippo_jax.decoding.generate import generate
from hippo_jax.errors import HippoError
from hippo_jax.inputs.model_inputs import ModelInputs
from hippo_jax.placement.pair import ModelPair, load_pair

CONFIG = HippoConfig(schedule="parallel", gamma=3)
TOKENS = 12


@pytest.fixture(scope="module")
def single() -> ModelPair:
    return load_pair("demo")


@pytest.fixture(scope="module")
def apart(single: ModelPair) -> ModelPair:
    return side_by_side(single, draft_device("cpu"))


@pytest.fixture(scope="module")
def prompt() -> ModelInputs:
    return pair_case("demo", TOKENS).prompts()[0]


def test_the_target_keeps_its_arrays_and_the_draft_is_copied(
    single: ModelPair, apart: ModelPair
) -> None:
    own, moved = values(single.target), values(apart.target)
    for path, array in own.items():
        assert moved[path].unsafe_buffer_pointer() == array.unsafe_buffer_pointer(), path
    first, second = jax.devices()[:2]
    for path, array in values(apart.draft).items():
        assert array.devices() == {second}
        np.testing.assert_array_equal(array, values(single.draft)[path])
    assert apart.target.home.mesh.devices.tolist() == [first]
    assert apart.placement.two_meshes


def test_a_copy_computes_as_its_device_does() -> None:
    single = load_pair("demo", dtype="bfloat16")
    single.target.attention = single.draft.attention = "cudnn"
    pair = side_by_side(single, draft_device("cpu"))
    assert pair.target.dtype == jnp.bfloat16 and pair.draft.dtype == jnp.float32
    assert pair.target.attention == "cudnn" and pair.draft.attention == "blocks"


def test_two_programs_say_what_the_target_says(
    single: ModelPair, apart: ModelPair, prompt: ModelInputs
) -> None:
    alone = generate(single.target, prompt, max_new_tokens=TOKENS)
    answers = Answers()
    found = timed([prompt], two_mesh_decoder(apart, TOKENS, CONFIG), answers)()
    length = int(alone.lengths[0])
    assert answers.tokens == [np.asarray(alone.tokens)[0, :length].tolist()]
    assert answers.rounds >= (TOKENS - 1) // CONFIG.gamma
    assert found["decode_ms_per_round"] * answers.rounds == pytest.approx(
        found["decode_ms_per_token"] * (length - 1)
    )


def test_each_role_alone_does_the_work_of_every_round(
    apart: ModelPair, prompt: ModelInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No row is done before the last round: a program that finds nothing left takes no time."""
    done: list[bool] = []
    ran = {"target_verifies": 0, "draft_proposes": 0}
    real = {name: getattr(role_rounds.sides, name) for name in ran}

    def watched(name: str):
        def call(model, state, *rest):
            done.append(bool(jnp.all(state.progress.done)))
            ran[name] += 1
            return real[name](model, state, *rest)

        return call

    for name in ran:
        monkeypatch.setattr(role_rounds.sides, name, watched(name))
    found = roles_alone(apart, prompt, TOKENS, CONFIG)()
    assert set(found) == {"target_ms", "draft_ms"} and min(found.values()) > 0
    rounds = (TOKENS - 1) // (CONFIG.gamma + 1)
    assert ran == {"target_verifies": rounds, "draft_proposes": rounds}
    assert not any(done)


def test_a_second_device_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(HippoError, match="--draft-on tpu: there is no tpu device"):
        draft_device("tpu")
    only = jax.devices()[0]
    monkeypatch.setattr(two_devices.jax, "local_devices", lambda backend=None: [only])
    with pytest.raises(HippoError, match="no cpu device beside the target's"):
        draft_device("cpu")
