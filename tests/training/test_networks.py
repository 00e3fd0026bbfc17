"""What training computes is what the architecture computes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hippo_jax.architectures.attention import causal_attention
from hippo_jax.architectures.merge_blocks import rope_positions
from hippo_jax.architectures.qwen2_5_vl.layout import build_vision_layout
from hippo_jax.inputs.patches import patchify
from hippo_jax.training import batches, sizes
from hippo_jax.training.domain import sample_scene
from hippo_jax.training.language import PROMPTS
from hippo_jax.training.networks import (
    MEAN,
    STD,
    TEXT_START,
    PackedText,
    encode_clips,
    initial_weights,
    normalise,
    run_decoder,
    skeleton,
    visual_positions,
)
from hippo_jax.training.render import render
from hippo_jax.training.tokenizer import special_ids


@pytest.fixture(scope="module")
def draft():
    config = sizes.model_config("draft", special_ids(batches.tokenizer()))
    return skeleton(config), initial_weights(config, 0)


def test_patches_are_the_processors():
    frames, _ = render(sample_scene(0, 0))
    pixels, grid = patchify(
        frames,
        patch_size=14,
        temporal_patch_size=2,
        merge_size=2,
        mean=(MEAN,) * 3,
        std=(STD,) * 3,
    )
    assert grid == batches.GRID
    ours = np.asarray(normalise(jnp.asarray(batches.patches_uint8(frames))))
    np.testing.assert_allclose(ours, pixels, atol=1e-6)


def test_frames_in_a_batch_go_through_the_architectures_tower(draft):
    model, weights = draft
    tower = model.with_vision(weights)
    patches = batches.patches_uint8(render(sample_scene(0, 0))[0])[None]
    layout = build_vision_layout(model.config.vision, [batches.GRID], patches.shape[1])
    expected = jax.jit(type(tower).__call__)(tower, normalise(jnp.asarray(patches[0])), layout)
    np.testing.assert_allclose(jax.jit(encode_clips)(tower, patches)[0], expected, atol=1e-4)


def test_positions_are_the_architectures(draft):
    config = draft[0].config
    prompt = batches.prompt_ids(PROMPTS[0])
    ids = [*batches.prefix_ids(), *[config.video_token_id] * batches.VISUAL_TOKENS, *prompt]
    found, following = rope_positions(config, np.array(ids), [("video", batches.GRID, 0.5)])
    lead, end = len(batches.prefix_ids()), len(batches.prefix_ids()) + batches.VISUAL_TOKENS
    np.testing.assert_array_equal(found[:, lead:end], visual_positions())
    np.testing.assert_array_equal(found[:, :lead], np.tile(np.arange(lead), (3, 1)))
    assert (found[:, end] == TEXT_START).all()
    assert following == TEXT_START + len(prompt)


def _packed(rows):
    texts = PackedText(*(jnp.asarray(rows[k])[None] for k in ("ids", "offsets", "segments")))
    return texts


compiled = jax.jit(run_decoder)


@jax.jit
def layers(decoder, x, places):
    return decoder.run_layers(x, places, lambda _, q, k, v: causal_attention(q, k, v))[0]


def test_packed_texts_do_not_see_each_other(draft):
    """Each segment behind the shared prefix gives what it gives alone, in one causal row."""
    model, weights = draft
    decoder = model.with_decoder(weights)
    rng = np.random.default_rng(0)
    visual = 40
    features = jnp.asarray(rng.normal(size=(1, visual, 128)), jnp.float32)
    positions = jnp.asarray(visual_positions()[:, None, :visual])
    row = batches.text_row(sample_scene(0, 3), rng, batches.Packing(length=128, captions=1))
    packed = compiled(decoder, features, positions, jnp.ones((1, visual), bool), _packed(row))
    assert row["segments"].max() >= 2
    for segment in range(row["segments"].max() + 1):
        members = np.flatnonzero(row["segments"] == segment)
        ids = jnp.asarray(row["ids"][members])[None]
        prefix = jnp.asarray(batches.prefix_ids())[None]
        x = jnp.concatenate([decoder.embed(prefix), features, decoder.embed(ids)], axis=1)
        places = jnp.concatenate(
            [
                jnp.broadcast_to(jnp.arange(4), (3, 1, 4)),
                positions,
                jnp.broadcast_to(TEXT_START + jnp.arange(len(members)), (3, 1, len(members))),
            ],
            axis=2,
        )
        alone = layers(decoder, x, places)
        np.testing.assert_allclose(
            packed.text[0, members], alone[0, 4 + visual :], atol=1e-4, rtol=1e-4
        )


def test_a_pruned_token_is_a_removed_token(draft):
    model, weights = draft
    decoder = model.with_decoder(weights)
    rng = np.random.default_rng(1)
    features = jnp.asarray(rng.normal(size=(1, 30, 128)), jnp.float32)
    positions = jnp.asarray(visual_positions()[:, None, :30])
    keep = rng.random((1, 30)) < 0.5
    row = batches.text_row(sample_scene(0, 4), rng, batches.Packing(length=96, captions=1))
    masked = compiled(decoder, features, positions, jnp.asarray(keep), _packed(row))
    kept = np.flatnonzero(keep[0])
    removed = compiled(
        decoder,
        features[:, kept],
        positions[:, :, kept],
        jnp.ones((1, len(kept)), bool),
        _packed(row),
    )
    learnt = row["targets"] >= 0
    np.testing.assert_allclose(masked.text[0, learnt], removed.text[0, learnt], atol=1e-4)
    everything = compiled(decoder, features, positions, jnp.ones((1, 30), bool), _packed(row))
    assert np.abs(np.asarray(everything.text - masked.text))[0, learnt].max() > 1e-3


def test_batches_are_functions_of_their_step():
    first = batches.joint_batch(0, 3, 2)
    again = batches.joint_batch(0, 3, 2)
    for name, value in first.items():
        np.testing.assert_array_equal(value, again[name])
    other = batches.joint_batch(0, 4, 2)
    assert any(not np.array_equal(first[name], other[name]) for name in first)


def test_subsets_hold_every_object_token():
    batch = batches.joint_batch(0, 0, 4, visibility=batches.Visibility(switch=1, subset=128))
    assert batch["chosen"].shape == (4, 128)
    for row in range(4):
        objects = np.flatnonzero(batch["colour"][row] >= 0)
        assert set(objects) <= set(batch["chosen"][row])
    later = batches.joint_batch(0, 1, 4, visibility=batches.Visibility(switch=1, subset=128))
    assert later["chosen"].shape == (4, batches.VISUAL_TOKENS)
