"""Samplers: processed logits of transformers, the law of the draws, and what keys the noise."""

import math
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import checks_decoding

from hippo_jax.decoding import sampling
from hippo_jax.decoding.sampling import Greedy, Sampling
from hippo_jax.errors import HippoError


@pytest.mark.parametrize(
    "check",
    [
        checks_decoding.check_processors,
        checks_decoding.check_processor_ties,
        checks_decoding.check_law,
        checks_decoding.check_noise_keys,
        checks_decoding.check_sampled_tokens,
    ],
)
def test_check(check):
    check()


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"temperature": -1.0}, "temperature must be above 0"),
        ({"temperature": math.nan}, "temperature must be above 0"),
        ({"temperature": math.inf}, "temperature must be above 0"),
        ({"top_p": 0.0}, "top_p must be above 0"),
        ({"top_p": 1.1}, "top_p must be above 0"),
        ({"top_p": math.nan}, "top_p must be above 0"),
        ({"top_k": -1}, "top_k must be a whole number"),
        ({"top_k": 2.5}, "top_k must be a whole number"),
        ({"top_k": True}, "top_k must be a whole number"),
        ({"repetition_penalty": 0.0}, "repetition_penalty must be a positive number"),
        ({"repetition_penalty": math.inf}, "repetition_penalty must be a positive number"),
        ({"coupling": "none"}, "coupling must be"),
    ],
)
def test_settings_that_make_no_sense(keywords, words):
    with pytest.raises(HippoError, match=words):
        Sampling(**keywords)
    if "repetition_penalty" in keywords:
        with pytest.raises(HippoError, match=words):
            Greedy(**keywords)


def test_settings_of_a_checkpoint(tmp_path):
    model = SimpleNamespace(source=str(tmp_path))
    assert Sampling.from_model(model) == Greedy()
    assert Sampling.from_model(SimpleNamespace(source=None)) == Greedy()
    file = tmp_path / "generation_config.json"
    file.write_text('{"do_sample": true, "temperature": 0.7, "top_k": 20, "top_p": 0.8}')
    assert Sampling.from_model(model) == Sampling(0.7, top_k=20, top_p=0.8)
    file.write_text('{"do_sample": true, "temperature": 1e-6, "top_p": null}')
    assert Sampling.from_model(model) == Sampling(1e-6, top_k=50)  # as transformers fills it in
    file.write_text('{"do_sample": false, "temperature": 0.7, "repetition_penalty": 1.05}')
    assert Sampling.from_model(model) == Greedy(1.05)


@pytest.mark.parametrize(
    "text", ["{", "[1]", '{"do_sample": true, "top_k": "x"}', '{"do_sample": true, "top_p": 7}']
)
def test_settings_of_a_damaged_checkpoint(tmp_path, text):
    (tmp_path / "generation_config.json").write_text(text)
    with pytest.raises(HippoError, match="cannot be used") as caught:
        Sampling.from_model(SimpleNamespace(source=str(tmp_path)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [7, 512, 4096, 32_000, 32_001, 151_936, 152_064, 152_000])
def test_likeliest_is_argmax(size: int) -> None:
    """Random scores, ties, the ends, and rows of one number."""
    scores = np.random.default_rng(size).standard_normal((2, 6, size)).astype(np.float32)
    scores[0, 1] = np.round(scores[0, 1])
    scores[0, 2] = sampling.MASKED
    scores[0, 3, -1] = scores[0, 4, 0] = 9
    scores[0, 5, [size // 3, size - 1]] = 9
    got = jax.jit(sampling.likeliest)(scores)
    assert got.dtype == jnp.int32
    np.testing.assert_array_equal(got, scores.argmax(-1))
