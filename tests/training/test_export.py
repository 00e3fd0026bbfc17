"""An exported pair works through the library's own front door exactly as it was trained."""

import json

import numpy as np
import pytest

from hippo_jax.inputs.prepare import prepare_inputs
from hippo_jax.training import batches, codec, sizes
from hippo_jax.training.domain import HELD_OUT, sample_scene
from hippo_jax.training.export import export_role, rounded
from hippo_jax.training.language import PROMPTS
from hippo_jax.training.networks import (
    PackedText,
    encode_clips,
    initial_weights,
    run_decoder,
    skeleton,
    visual_positions,
)
from hippo_jax.training.render import render
from hippo_jax.training.tokenizer import special_ids
from hippo_jax.weights.load import load_model


@pytest.fixture(scope="module")
def draft(tmp_path_factory):
    place = tmp_path_factory.mktemp("pair") / "draft"
    config = sizes.model_config("draft", special_ids(batches.tokenizer()))
    weights = initial_weights(config, 1)
    export_role("draft", weights, place)
    clip = place.parent / "clip.mp4"
    codec.write_clip(clip, render(sample_scene(0, 0, HELD_OUT))[0])
    return place, skeleton(config), rounded(weights), clip


@pytest.mark.parametrize("style", range(len(PROMPTS)))
def test_prompts_are_those_of_training(draft, style):
    place, model, _, clip = draft
    inputs = prepare_inputs(load_model(place), clip, PROMPTS[style])
    length = int(inputs.lengths[0])
    expected = [
        *batches.prefix_ids(),
        *[model.config.video_token_id] * batches.VISUAL_TOKENS,
        *batches.prompt_ids(PROMPTS[style]),
    ]
    assert np.asarray(inputs.token_ids)[0, :length].tolist() == expected


def test_logits_are_those_of_training(draft):
    place, model, weights, clip = draft
    loaded = load_model(place, dtype="float32")
    logits = loaded(prepare_inputs(loaded, clip, PROMPTS[0]), last=True)[0, -1]
    patches = batches.patches_uint8(codec.read_clip(clip))[None]
    decoder = model.with_decoder(weights)
    features = encode_clips(model.with_vision(weights), patches)
    prompt = np.array(batches.prompt_ids(PROMPTS[0]), np.int32)[None]
    text = PackedText(prompt, np.arange(prompt.shape[1])[None], np.zeros_like(prompt))
    keep = np.ones((1, batches.VISUAL_TOKENS), bool)
    hidden = run_decoder(decoder, features, visual_positions()[:, None], keep, text)
    expected = decoder.logits(hidden.text)[0, -1]
    np.testing.assert_allclose(logits, expected, atol=2e-3, rtol=2e-3)


def test_transformers_reads_the_checkpoint(draft):
    import torch
    from transformers import AutoConfig, AutoTokenizer, Qwen2_5_VLForConditionalGeneration

    place, model, weights, _ = draft
    config = AutoConfig.from_pretrained(place)
    assert config.text_config.hidden_size == model.config.text.hidden_size
    theirs, found = Qwen2_5_VLForConditionalGeneration.from_pretrained(
        place, dtype=torch.float32, output_loading_info=True
    )
    assert not found["missing_keys"] and not found["unexpected_keys"]
    table = theirs.get_input_embeddings().weight.detach().numpy()
    np.testing.assert_array_equal(table, weights["decoder.embedding"])
    assert AutoTokenizer.from_pretrained(place).eos_token == "<|im_end|>"
    stops = json.loads((place / "generation_config.json").read_text())["eos_token_id"]
    assert tuple(stops) == load_model(place).config.eos_token_ids
