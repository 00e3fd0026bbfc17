"""int8 kernels compute what their dequantized weights would, in every family and on every mesh."""

import dataclasses
import functools

import numpy as np
import pytest
from support import checks_int8 as checks
from support import families, pairs
from support.families import cases
from support.oracles import close

import hippo_jax as hj
from hippo_jax.architectures.parameters import values
from hippo_jax.architectures.published import published_config
from hippo_jax.placement.memory import weight_bytes
from hippo_jax.weights.load import place_model

CHECKS = [
    checks.check_matmul,
    checks.check_linear_in_half_precision,
    checks.check_model,
    checks.check_split,
    checks.check_split_model,
    pytest.param(functools.partial(checks.check_split_model, 2), marks=pytest.mark.slow),
    checks.check_loop_memory,
]
TABLES = {"decoder.embedding", "decoder.head.kernel", "vision.patch_embedding.kernel"}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: getattr(check, "__name__", "two"))
def test_check(check) -> None:
    check()


def test_an_int8_model_goes_to_a_mesh() -> None:
    """As it is: integers stay integers."""
    small, home = checks.int8_model(checks.wide()), checks.home(2)
    moved, expected = (
        values(place_model(small, home)),
        values(checks.int8_model(checks.wide(), home)),
    )
    for path, array in expected.items():
        assert moved[path].dtype == array.dtype and moved[path].sharding == array.sharding
        np.testing.assert_array_equal(np.asarray(moved[path]), np.asarray(array))


@pytest.mark.parametrize("case", cases(), ids=str)
def test_every_family(case) -> None:
    """All matrices are int8 but embedding, head, patch embedding and tables."""
    model = families.model(case)
    small = checks.int8_model(model)
    assert model.quantize is None and small.quantize == "int8"
    left = checks.check_kernels(model, small)
    kept = ("position", "class", "newline", "qkv_bias")
    assert {path for path in left if not any(name in path for name in kept)} == TABLES


@pytest.mark.parametrize(
    "case",
    [pytest.param(c, marks=() if c.name == "internvl" else pytest.mark.slow) for c in cases()],
    ids=str,
)
def test_logits_of_every_family(case) -> None:
    """Those of the dequantized weights, and near those of the weights themselves."""
    model, inputs = families.model(case), families.inputs(case)
    small = checks.int8_model(model)
    expected, got = np.asarray(model(inputs)), np.asarray(small(inputs))
    close(got, checks.dequantized(small)(inputs), 2e-4)
    assert np.abs(got - expected).max() > 1e-4, "nothing was rounded"
    assert np.abs(got - expected).mean() < 0.2 * expected.std()


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("devices", [None, 2, 4])
def test_bytes_that_stay(tied: bool, devices: int | None) -> None:
    """A quarter of float32 and the scales; what ``weight_bytes`` says, on every device."""
    model = checks.wide()
    text = dataclasses.replace(model.config.text, tied=tied)
    config = dataclasses.replace(model.config, text=text)
    model = pairs.build(pairs.weights(3, config), config)
    home = None if devices is None else checks.home(devices)
    small = values(checks.int8_model(model, home))
    kernels = {path for path, array in small.items() if array.dtype == np.int8}
    whole = sum(array.nbytes for path, array in values(model).items() if path in kernels)
    assert 4 * sum(small[path].nbytes for path in kernels) == whole
    on_each = {
        sum(array.addressable_shards[i].data.nbytes for array in small.values())
        for i in range(devices or 1)
    }
    assert on_each == {weight_bytes(config, "float32", home, "int8")}


def test_published_sizes() -> None:
    """Of a 7B model in bfloat16 about a half goes, but for embedding and head."""
    config = published_config("qwen2.5-vl-7b")
    text = config.text
    tables = 2 * 2 * text.vocab_size * text.hidden_size
    plain, small = (weight_bytes(config, "bfloat16", None, how) for how in (None, "int8"))
    assert (small - tables) / (plain - tables) == pytest.approx(0.5, abs=0.002)


@pytest.mark.parametrize(
    ("schedule", "target", "draft"),
    [
        ("sequential", True, True),
        pytest.param("parallel", True, True, marks=pytest.mark.slow),
        pytest.param("parallel", False, True, marks=pytest.mark.slow),
        pytest.param("sequential", False, True, marks=pytest.mark.slow),
    ],
)
def test_a_pair(schedule: str, target: bool, draft: bool) -> None:
    """An int8 target has its own answer, whatever the draft; an int8 draft changes nothing."""
    assert_lossless(schedule, target, draft)


def assert_lossless(schedule, small_target, small_draft, place=None) -> None:
    """The pair says what its target alone does, on one device or on ``place``."""
    shape = pairs.Shape(schedule, gamma=3, batch=3, keep_ratio=0.5)
    weights = pairs.weights(1)
    target, draft = pairs.build(weights), pairs.build(pairs.noisy(weights, 0.1, 2))
    homes = (None, None) if place is None else place.homes()
    one = checks.int8_model(target) if small_target else target
    expected = hj.generate(one, checks.prompts(), max_new_tokens=16, eos_token_ids=())
    target, draft = (
        checks.int8_model(model, home) if small else (place_model(model, home) if home else model)
        for model, home, small in zip(
            (target, draft), homes, (small_target, small_draft), strict=True
        )
    )
    pair = hj.ModelPair(target, draft, place or hj.Placement())
    found = hj.hippo_generate(
        pair, checks.prompts(), max_new_tokens=16, eos_token_ids=(), config=shape.config
    )
    np.testing.assert_array_equal(found.tokens, expected.tokens)
    assert 0 < found.stats.acceptance_rate < 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("schedule", "target", "draft", "place"),
    [
        ("parallel", True, True, lambda: hj.Placement.on(1, 1)),
        ("parallel", False, True, lambda: hj.Placement.on(3, 2)),
        ("parallel", True, False, lambda: hj.Placement.on(2, 1, one_program=True)),
        ("sequential", True, True, lambda: hj.Placement.on(2, 2, one_program=True)),
    ],
)
def test_devices_of_their_own(schedule, target, draft, place) -> None:
    assert_lossless(schedule, target, draft, place())
