"""A model split over devices gives what the whole one gives, through explicit collectives."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from support import pairs
from support.oracles import close

import hippo_jax as hj
from hippo_jax.architectures import attention
from hippo_jax.architectures.config import VideoLMConfig
from hippo_jax.architectures.parameters import values
from hippo_jax.architectures.sharding import Home, split_axes
from hippo_jax.architectures.video_lm import VideoLM
from hippo_jax.decoding.arguments import make_settings
from hippo_jax.decoding.generate import decode_loop, prefill_state
from hippo_jax.placement.placement import role_homes
from hippo_jax.weights.load import place_model


def sizes(queries: int, keys: int, *, tied: bool = False, vocab: int = 32) -> VideoLMConfig:
    own = pairs.config(vocab_size=vocab)
    text = dataclasses.replace(own.text, num_heads=queries, num_kv_heads=keys, tied=tied)
    return dataclasses.replace(own, text=text)


def built(config: VideoLMConfig) -> VideoLM:
    return pairs.build(pairs.weights(3, config), config)


def home(devices: int) -> Home:
    return Home.of(jax.make_mesh((devices,), ("tp",), devices=jax.devices()[:devices]))


@pytest.fixture(scope="module")
def inputs() -> hj.ModelInputs:
    return pairs.prompts(np.random.default_rng(5), 3)


# What is split: heads evenly; one key head for several devices; attention whole.
HEADS = {
    "whole heads each": (sizes(8, 8), 8),
    "one key head for all": (sizes(4, 1, tied=True), 4),
    "two key heads for four": (sizes(8, 2), 4),
    "heads that do not divide": (sizes(3, 1), 2),
    "a vocabulary that does not divide": (sizes(4, 2, vocab=33), 2),
    "a tied vocabulary that divides": (sizes(2, 2, tied=True), 2),
}


def test_the_table_says_what_is_split() -> None:
    def split(name: str) -> set[str]:
        config, devices = HEADS[name]
        return set(split_axes(config, devices))

    assert {"q_heads", "kv_heads", "mlp", "vocab"} <= split("whole heads each")
    assert "q_heads" in split("one key head for all")
    assert "kv_heads" not in split("one key head for all")
    assert "q_heads" in split("two key heads for four")
    assert "kv_heads" not in split("two key heads for four")
    assert not {"q_heads", "kv_heads"} & split("heads that do not divide")
    assert "vocab" not in split("a vocabulary that does not divide")
    assert split_axes(sizes(4, 2), 1) == frozenset()
    # Query heads of a device would read one and a half key heads.
    assert "q_heads" not in split_axes(sizes(12, 3), 2)


@pytest.mark.parametrize("name", HEADS)
def test_logits_and_greedy_tokens(name: str, inputs: hj.ModelInputs) -> None:
    config, devices = HEADS[name]
    model = built(config)
    split = place_model(model, home(devices))
    close(np.asarray(split(inputs)), np.asarray(model(inputs)), 2e-5)
    plain = hj.generate(model, inputs, max_new_tokens=12, eos_token_ids=())
    found = hj.generate(split, inputs, max_new_tokens=12, eos_token_ids=())
    np.testing.assert_array_equal(found.tokens, plain.tokens)


def test_scores_are_those_of_all_heads(inputs: hj.ModelInputs) -> None:
    for name in ("whole heads each", "two key heads for four", "heads that do not divide"):
        config, devices = HEADS[name]
        model = built(config)
        split = place_model(model, home(devices))
        for support in ("visual", "all"):
            found = hj.scoring.attention_relevance(split, inputs, support=support, layers=1)
            whole = hj.scoring.attention_relevance(model, inputs, support=support, layers=1)
            close(np.asarray(found), np.asarray(whole), 1e-5)


def test_a_cache_between_two_programs(inputs: hj.ModelInputs) -> None:
    """Each device keeps the key heads that its queries read: a cache is never put together."""
    config, devices = HEADS["two key heads for four"]
    model, split = built(config), place_model(built(config), home(devices))
    settings, limit = make_settings(model, inputs, 9, None, None, None, ())
    lengths = {}
    for name, one in (("whole", model), ("split", split)):
        state = jax.jit(lambda m, i: prefill_state(m, i, limit, None, settings))(one, inputs)
        step = jax.jit(lambda m, s: decode_loop(m, s, inputs.next_position, limit, None, settings))
        final = step(one, state)
        lengths[name] = np.asarray(final.tokens)
        keys = state.cache.layers[0].prompt_k
        if name == "split":
            assert {shard.data.shape[1] for shard in keys.addressable_shards} == {1}
    np.testing.assert_array_equal(lengths["split"], lengths["whole"])


def test_one_sum_behind_attention_and_one_behind_the_mlp(inputs: hj.ModelInputs) -> None:
    """Of a decoding step: the embedding, two a layer, and the joining of the logits."""
    config, devices = HEADS["whole heads each"]
    split = place_model(built(config), home(devices))
    settings, limit = make_settings(split, inputs, 9, None, None, None, ())
    state = jax.jit(lambda m, i: prefill_state(m, i, limit, None, settings))(split, inputs)
    jaxpr = str(
        jax.make_jaxpr(lambda m, s: decode_loop(m, s, inputs.next_position, limit, None, settings))(
            split, state
        )
    )
    assert len(re.findall(r"\bpsum\w*\[", jaxpr)) == 1 + 2 * config.text.num_layers
    assert len(re.findall(r"\ball_gather\w*\[", jaxpr)) == 1


@pytest.mark.parametrize("groups", [(3, 1), (1, 3), (2, 2)])
def test_a_model_beside_another_in_one_mesh(groups: tuple[int, int], inputs) -> None:
    """Either model of such a mesh decodes alone too: the answer is that of its own devices."""
    devices = jax.devices()
    homes = role_homes(devices[: groups[0]], devices[groups[0] : sum(groups)])
    model = built(sizes(2, 1))
    expected = hj.generate(model, inputs, max_new_tokens=6, eos_token_ids=()).tokens
    for own in homes:
        placed = place_model(model, own)
        found = hj.generate(placed, inputs, max_new_tokens=6, eos_token_ids=()).tokens
        np.testing.assert_array_equal(found, expected)
        close(np.asarray(placed(inputs, last=True)), np.asarray(model(inputs, last=True)), 2e-5)


def test_one_of_unequal_groups_decodes_in_two_programs_too(inputs: hj.ModelInputs) -> None:
    """As streaming does: flags and a penalty's mask have to stay bools on the way."""
    devices = jax.devices()
    model = built(sizes(2, 1))
    own = place_model(model, role_homes(devices[:2], devices[2:3])[0])
    arguments = (6, None, hj.Greedy(1.3), None, ())
    settings, limit = make_settings(own, inputs, *arguments)
    state = jax.jit(lambda m, i: prefill_state(m, i, limit, None, settings))(own, inputs)
    assert state.done.dtype == state.seen.dtype == bool
    loop = jax.jit(lambda m, s: decode_loop(m, s, inputs.next_position, limit, None, settings))
    names = ("max_new_tokens", "capacity", "sampling", "key", "eos_token_ids")
    expected = hj.generate(model, inputs, **dict(zip(names, arguments, strict=True)))
    np.testing.assert_array_equal(loop(own, state).tokens, expected.tokens)


def test_an_unequal_group_holds_copies_for_the_others() -> None:
    devices = jax.devices()
    target, draft = role_homes(devices[:3], devices[3:4])
    spec = P(None, "device")
    assert target.stored_shape((4, 6), spec) == (4, 8) and draft.stored_shape((4, 6), spec) == (
        4,
        24,
    )
    assert [target.owner(slot) for slot in range(4)] == [0, 1, 2, 0]
    assert target.groups == ((0, 1, 2), (3,)) and draft.groups == ((0, 1, 2), (3,))
    model = built(sizes(2, 1))
    whole = values(model)["decoder.layers.0.mlp.gate.kernel"]
    placed = values(place_model(model, target))["decoder.layers.0.mlp.gate.kernel"]
    parts = [np.asarray(shard.data) for shard in placed.addressable_shards]
    np.testing.assert_array_equal(np.concatenate(parts[:3], axis=1), np.asarray(whole))
    np.testing.assert_array_equal(parts[3], parts[0])


def test_models_of_different_meshes_are_refused(inputs: hj.ModelInputs) -> None:
    model = built(sizes(2, 1))
    devices = jax.devices()
    one = place_model(model, home(2))
    mesh = jax.make_mesh((2,), ("tp",), devices=devices[2:4])
    other = place_model(model, Home.of(mesh))
    with pytest.raises(hj.HippoError, match="different devices"):
        hj.hippo_generate(hj.ModelPair(one, other), inputs, max_new_tokens=4)
    assert jnp.isfinite(one(inputs, last=True)).all()


def test_blocks_of_scores_are_those_of_the_models_devices(
    inputs: hj.ModelInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A draft on the host's CPU beside a target on a GPU, which is then jax's default."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    bounds = []
    known = attention.score_bytes

    def noted() -> int:
        bounds.append(known())
        return bounds[-1]

    monkeypatch.setattr(attention, "score_bytes", noted)
    config = sizes(4, 2, vocab=37)  # no other test's, so that it is traced here
    for devices in (1, 2):
        model = place_model(built(config), home(devices))
        bounds.clear()
        jax.eval_shape(lambda model=model: model(inputs, last=True))
        assert set(bounds) == {attention.CPU_SCORE_BYTES}
    bounds.clear()
    jax.eval_shape(lambda: built(config)(inputs, last=True))
    assert set(bounds) == {attention.SCORE_BYTES}
