"""What `generate` and the logits refuse, in one line; and what must not depend on settings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hippo_jax as hj
from hippo_jax import resources


@pytest.fixture(scope="module")
def model() -> hj.VideoLM:
    return hj.load_model(resources.checkpoint_directory("demo", "draft"))


@pytest.fixture(scope="module")
def mapping(model) -> dict:
    inputs = hj.prepare_inputs(model, resources.clip(), "Describe the video.")
    length, visual = int(inputs.lengths[0]), int(inputs.visual_tokens[0])
    return {
        "input_ids": inputs.token_ids[:, :length],
        "attention_mask": np.ones((1, length), np.int64),
        "pixel_values_videos": inputs.vision.pixels[: 4 * visual],
        "video_grid_thw": np.array([[4, 18, 18]]),
        "second_per_grid_ts": np.array([0.5]),
    }


@pytest.fixture(scope="module")
def inputs(model, mapping) -> hj.ModelInputs:
    return hj.ModelInputs.from_hf(model, mapping)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"max_new_tokens": 2.5}, "whole number"),
        ({"max_new_tokens": "a"}, "whole number"),
        ({"max_new_tokens": np.array([2, 3])}, "whole number"),
        ({"max_new_tokens": 3, "capacity": 5.5}, "capacity"),
        ({"max_new_tokens": 3, "capacity": 10**9}, "capacity"),
        ({"eos_token_ids": 5}, "eos_token_ids"),
        ({"eos_token_ids": (10**6,)}, "eos_token_ids"),
        ({"sampling": hj.Sampling(), "key": 1}, "jax.random.key"),
        ({"sampling": hj.Sampling(), "key": jax.random.split(jax.random.key(0))}, "one key"),
        ({"sampling": hj.Sampling(), "key": jax.random.key(0, impl="rbg")}, "threefry"),
    ],
)
def test_arguments_that_do_not_fit(model, inputs, arguments: dict, said: str) -> None:
    with pytest.raises(hj.HippoError, match=said):
        hj.generate(model, inputs, **arguments)


def test_a_pair_is_not_a_model(model, inputs) -> None:
    with pytest.raises(hj.HippoError, match=r"pair\.target"):
        hj.generate(hj.ModelPair(model, model), inputs)


@pytest.mark.parametrize("temperature", [1e-45, 1e-31, -1.0, float("nan"), "a"])
def test_temperatures_that_float32_cannot_divide_by(temperature) -> None:
    with pytest.raises(hj.HippoError, match="temperature"):
        hj.Sampling(temperature=temperature)


def test_a_tiny_temperature_is_greedy(model, inputs) -> None:
    """Published checkpoints ask for 1e-6."""
    cold = hj.generate(
        model, inputs, max_new_tokens=16, sampling=hj.Sampling(1e-6), key=jax.random.key(3)
    )
    np.testing.assert_array_equal(cold.tokens, hj.generate(model, inputs, max_new_tokens=16).tokens)


@pytest.mark.parametrize("positions", [[[10**5]], [[-1]], [3]])
def test_positions_outside_the_prompt(model, inputs, positions) -> None:
    with pytest.raises(hj.HippoError, match="positions"):
        model(inputs, positions=positions)


def test_wide_padding_gives_no_nan(model, mapping) -> None:
    wide = {
        **mapping,
        "input_ids": np.pad(mapping["input_ids"], ((0, 0), (0, 300))),
        "attention_mask": np.pad(mapping["attention_mask"], ((0, 0), (0, 300))),
    }
    plain = model(hj.ModelInputs.from_hf(model, mapping))
    padded = model(hj.ModelInputs.from_hf(model, wide))
    assert padded.shape[1] == plain.shape[1] + 300 and bool(jnp.isfinite(padded).all())
    np.testing.assert_allclose(padded[:, : plain.shape[1]], plain, atol=1e-4)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("input_ids", "shift", "input_ids"),
        ("input_ids", "float", "whole numbers"),
        ("second_per_grid_ts", np.array([np.nan]), "second_per_grid_ts"),
        ("second_per_grid_ts", np.array([-1.0]), "second_per_grid_ts"),
        ("second_per_grid_ts", np.array([0.5, 0.5]), "second_per_grid_ts"),
        ("second_per_grid_ts", np.float32(0.5), "second_per_grid_ts"),
        ("video_grid_thw", np.array([4, 18, 18]), "video_grid_thw"),
        ("video_grid_thw", np.array([[4, 18, -18]]), "video_grid_thw"),
        ("video_grid_thw", np.array([[4, 9, 36]]), "divide"),
        ("pixel_values_videos", np.zeros((1296, 100), np.float32), "patches"),
        ("pixel_values_videos", np.full((1296, 1176), np.nan, np.float32), "finite"),
    ],
)
def test_arrays_that_do_not_fit(model, mapping, key: str, value, said: str) -> None:
    if isinstance(value, str):
        ids = mapping["input_ids"].astype(np.int64)
        value = ids + 2**32 if value == "shift" else ids + 0.3
    with pytest.raises(hj.HippoError, match=said):
        hj.ModelInputs.from_hf(model, {**mapping, key: value})


def test_the_mapping_must_be_one(model) -> None:
    with pytest.raises(hj.HippoError, match="mapping"):
        hj.ModelInputs.from_hf(model, 5)


def test_64_bit_mode_gives_the_same_tokens(model, mapping) -> None:
    expected = hj.generate(model, hj.ModelInputs.from_hf(model, mapping), max_new_tokens=12).tokens
    with jax.enable_x64(True):
        found = hj.generate(model, hj.ModelInputs.from_hf(model, mapping), max_new_tokens=12).tokens
    np.testing.assert_array_equal(found, expected)
