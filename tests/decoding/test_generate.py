"""Plain decoding: tokens of transformers, stops, limits and capacities."""

import jax
import numpy as np
import pytest
from support import checks_decoding, reference, tiny

from hippo_jax.decoding.generate import generate
from hippo_jax.decoding.sampling import Greedy, Sampling
from hippo_jax.errors import HippoError
from hippo_jax.inputs import model_inputs
from hippo_jax.inputs.model_inputs import Row


@pytest.mark.parametrize(
    ("case", "penalty"), [("video", 1.0), ("batch", 1.0), ("batch", 1.05), ("batch", 1.5)]
)
def test_greedy_tokens_of_transformers(case, penalty):
    checks_decoding.check_greedy(case, penalty)


def test_the_penalty_matters():
    checks_decoding.check_penalty()


def test_end_tokens():
    checks_decoding.check_eos()


def greedy(inputs=None, rule="extent", **keywords):
    """Tokens cut to the longest row, and lengths."""
    inputs = tiny.inputs(tiny.batch_rows()) if inputs is None else inputs
    keywords = {"eos_token_ids": (), "max_new_tokens": 24, **keywords}
    got = generate(tiny.model(rule), inputs, **keywords)
    lengths = np.asarray(got.lengths)
    return np.asarray(got.tokens)[:, : lengths.max()], lengths


def test_the_rule_of_transformers_4():
    """Decoding goes on one past the largest position of the prompt."""
    expected = reference.greedy_largest()
    assert expected != list(reference.greedy("video")[0, : len(expected)])
    inputs = tiny.inputs([tiny.video_row()], "largest")
    tokens, _ = greedy(inputs, "largest", max_new_tokens=len(expected))
    assert tokens[0].tolist() == expected


def test_cached_against_uncached():
    """Each token is the argmax of one pass over everything before it."""
    rows, tokens = tiny.batch_rows(), reference.greedy("batch")
    longer = [
        Row(np.append(row.ids, new).astype(np.int32), row.media)
        for row, new in zip(rows, tokens[:, :8], strict=True)
    ]
    columns = np.array([[len(row.ids) - 1] for row in rows]) + np.arange(8)
    logits = tiny.model()(tiny.inputs(longer), positions=columns)
    np.testing.assert_array_equal(np.argmax(logits, axis=-1), tokens[:, :8])
    np.testing.assert_array_equal(greedy()[0][:, :8], tokens[:, :8])


@pytest.mark.parametrize("sampling", [None, Sampling(temperature=1.5)], ids=["greedy", "sampling"])
def test_batch_mates_and_padding_change_nothing(monkeypatch, sampling):
    """The first rows again, with other company and in larger buckets."""
    rows = tiny.batch_rows()
    keywords = {"sampling": sampling, "key": jax.random.key(5), "max_new_tokens": 16}
    expected, _ = greedy(**keywords)
    alone, _ = greedy(tiny.inputs(rows[:1]), **keywords)
    np.testing.assert_array_equal(alone, expected[:1])
    other = [*rows[:2], rows[0], tiny.prompt(50, 51)]
    plain = model_inputs.bucket
    monkeypatch.setattr(model_inputs, "bucket", lambda size, minimum=16: 2 * plain(size, minimum))
    mixed, _ = greedy(tiny.inputs(other), **keywords)
    np.testing.assert_array_equal(mixed[:2], expected[:2])
    if sampling is None:
        np.testing.assert_array_equal(mixed[2], expected[0])
    else:
        assert (mixed[2] != expected[0]).any()  # the same prompt in another row: other noise


def test_limits_and_capacities():
    """A limit cuts; neither the capacity nor a traced limit changes a token."""
    expected, _ = greedy()
    inputs = tiny.inputs(tiny.batch_rows())
    for limit in (1, 2, 23):
        tokens, lengths = greedy(max_new_tokens=limit)
        assert lengths.tolist() == [limit] * 4
        np.testing.assert_array_equal(tokens, expected[:, :limit])
    got = generate(tiny.model(), inputs, max_new_tokens=7, capacity=11, eos_token_ids=())
    assert got.tokens.shape == (4, 11)
    np.testing.assert_array_equal(np.asarray(got.tokens)[:, :7], expected[:, :7])
    assert (np.asarray(got.tokens)[:, 7:] == tiny.PAD).all()

    @jax.jit
    def traced(model, inputs, limit):
        return generate(model, inputs, max_new_tokens=limit, capacity=8, eos_token_ids=())

    for limit, length in ((1, 1), (5, 5), (8, 8), (100, 8), (0, 0)):
        got = traced(tiny.model(), inputs, limit)
        assert got.tokens.shape == (4, 8)
        assert np.asarray(got.lengths).tolist() == [length] * 4
        np.testing.assert_array_equal(np.asarray(got.tokens)[:, :length], expected[:, :length])
        assert (np.asarray(got.tokens)[:, length:] == tiny.PAD).all()


def test_end_tokens_of_the_checkpoint():
    """``None`` asks the config, ``()`` never stops."""
    from dataclasses import replace

    from hippo_jax.architectures.parameters import values, with_values

    plain = tiny.model()
    model = tiny.convert(tiny.hf_model())
    token = int(reference.greedy("video")[0, 0])
    model.config = replace(plain.config, eos_token_ids=(token,))
    model = with_values(model, values(plain))
    inputs = tiny.inputs([tiny.video_row()])
    assert int(generate(model, inputs, max_new_tokens=24).lengths[0]) == 1
    assert int(generate(model, inputs, max_new_tokens=24, eos_token_ids=()).lengths[0]) == 24


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1"),
        ({"max_new_tokens": -3}, "max_new_tokens must be at least 1"),
        ({"max_new_tokens": 9, "capacity": 8}, "max_new_tokens 9 is above capacity 8"),
        ({"max_new_tokens": 600}, "exceed the 512 that the model allows"),
        ({"sampling": Sampling()}, "sampling needs a key"),
        ({"sampling": "greedy"}, r"Greedy\(\) or Sampling"),
    ],
)
def test_arguments_that_do_not_fit(keywords, words):
    with pytest.raises(HippoError, match=words) as caught:
        generate(tiny.model(), tiny.inputs([tiny.batch_rows()[2]]), **keywords)
    assert "\n" not in str(caught.value)


def test_a_traced_limit_needs_a_capacity():
    inputs = tiny.inputs([tiny.batch_rows()[2]])
    with pytest.raises(HippoError, match="give the static capacity"):
        jax.jit(lambda m, i, n: generate(m, i, max_new_tokens=n))(tiny.model(), inputs, 3)


def test_prompts_that_cannot_be():
    for row, words in (
        (Row(np.zeros(0, np.int32)), "empty"),
        (Row(np.array([1, 200], np.int32)), "knows 200 tokens"),
        (Row(np.array([-1], np.int32)), "knows 200 tokens"),
        (Row(np.ones(513, np.int32)), "the model allows 512"),
    ):
        with pytest.raises(HippoError, match=words):
            tiny.inputs([row])
    with pytest.raises(HippoError, match="at least one row"):
        tiny.inputs([])


def test_settings_are_static():
    """Samplers pass through ``jit`` as pytrees without leaves."""
    for sampler in (Greedy(1.1), Sampling(0.5, top_k=3)):
        assert jax.tree.leaves(sampler) == []
        assert hash(sampler) == hash(type(sampler)(**vars(sampler)))
