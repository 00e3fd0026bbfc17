"""InternVL beside the checks of all families: what its config may say, arrays of its processor that
are refused, and a pair on devices of its own."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from support import tiny_internvl as tiny
from support.oracles import close

from hippo_jax.architectures.internvl.config import config_from_hf, vision_axes
from hippo_jax.errors import HippoError
from hippo_jax.inputs.model_inputs import ModelInputs
from hippo_jax.weights.load import load_model

SWITCHES = {
    "a final norm": {"use_mean_pooling": False},
    "no positions": {"use_absolute_position_embeddings": False},
    "another epsilon": {"layer_norm_eps": 1e-2},
}


@pytest.mark.parametrize("name", SWITCHES)
def test_switches_of_the_tower(name):
    """What the config may say otherwise, in the whole tower."""
    hf = tiny.perturbed(tiny.hf_config(**SWITCHES[name]))
    images = tiny.images(2)
    with torch.no_grad():
        expected = hf.model.get_image_features(
            torch.from_numpy(images),
            vision_feature_layer=-1,
            vision_feature_select_strategy="default",
        ).pooler_output.numpy()
    got = tiny.convert(hf).vision(jnp.asarray(tiny.patches(images)), ())
    close(got, expected.reshape(18, 64), 1e-4)


def changed(part: str | None, **fields):
    """The contents of the tiny ``config.json`` with some fields changed."""
    whole = tiny.hf_config().to_dict()
    (whole if part is None else whole[part]).update(fields)
    return whole


def test_sizes_of_the_published_towers():
    """As the checkpoints' files say it: which norms, biases and heads."""
    vision = {
        "hidden_size": 3200,
        "num_hidden_layers": 45,
        "num_attention_heads": 25,
        "intermediate_size": 12800,
        "image_size": [448, 448],
        "patch_size": [14, 14],
    }
    whole = changed("text_config", hidden_size=8192, num_attention_heads=64)
    whole.update(image_seq_length=256, vision_config={**vision, **tiny.TOWERS["6b"]})
    found = config_from_hf(whole)
    assert (found.vision.depth, found.vision.out_hidden_size) == (45, 8192)
    assert (found.vision.patches_per_frame, found.vision.tokens_per_frame) == (1024, 256)
    assert found.vision.qk_norm and not found.vision.qkv_bias
    # A part of the heads has another norm than all of them: they stay together.
    assert set(vision_axes(found.vision)) == {"vision_mlp", "vision_joined"}
    small = config_from_hf(tiny.hf_config().to_dict())
    assert vision_axes(small.vision)["vision_heads"] == 2
    assert found.text.mrope_section == () and found.text.rope_theta == 1e4
    # Sides may be numbers or pairs.
    assert config_from_hf(changed("vision_config", image_size=84, patch_size=14)) == small


@pytest.mark.parametrize(
    ("part", "field", "value", "message"),
    [
        ("vision_config", "image_size", [448, 224], "square"),
        ("vision_config", "image_size", 70, "does not divide"),
        ("vision_config", "image_size", 0, "positive whole number"),
        ("vision_config", "patch_size", [14], "square"),
        ("vision_config", "num_attention_heads", 3, "heads"),
        ("vision_config", "norm_type", "batch_norm", "norm_type"),
        ("vision_config", "layer_norm_eps", float("nan"), "layer_norm_eps"),
        ("vision_config", "layer_norm_eps", "small", "InternVL config"),
        ("vision_config", "attention_bias", "yes", "attention_bias"),
        ("vision_config", "use_mask_token", True, "use_mask_token"),
        ("vision_config", "hidden_act", "gelu_pytorch_tanh", "hidden_act"),
        ("text_config", "model_type", "llama", "'llama'"),
        ("text_config", "hidden_size", None, "hidden_size"),
        ("text_config", "rope_parameters", {"rope_type": "yarn"}, "yarn"),
        (None, "projector_hidden_act", "silu", "projector_hidden_act"),
        (None, "vision_feature_layer", -2, "vision_feature_layer"),
        (None, "vision_feature_select_strategy", "full", "vision_feature_select"),
        (None, "downsample_ratio", 0.3, "downsample_ratio"),
        (None, "downsample_ratio", 0, "downsample_ratio"),
        (None, "downsample_ratio", float("nan"), "downsample_ratio"),
        (None, "image_seq_length", 256, "image_seq_length"),
        (None, "image_token_id", [1], "InternVL config"),
        (None, "vision_config", None, "-hf"),
        (None, "text_config", "qwen2", "-hf"),
    ],
)
def test_configs_that_are_refused(part, field, value, message):
    with pytest.raises(HippoError, match=message) as caught:
        config_from_hf(changed(part, **{field: value}))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_files_decide_whether_the_head_is_tied(tmp_path, tied):
    """The class default of transformers is tied, and config.json may not say anything."""
    tiny.hf_model("6b", tied).save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    fields = json.loads(file.read_text())
    del fields["tie_word_embeddings"]
    fields["text_config"].pop("tie_word_embeddings", None)
    file.write_text(json.dumps(fields))
    assert load_model(tmp_path).config.text.tied is tied


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("pixel_values"), "more placeholders"),
        (lambda a: a.update(pixel_values=a["pixel_values"][:-1]), "more placeholders"),
        (lambda a: a.update(pixel_values=np.repeat(a["pixel_values"], 2, 0)), "frames have no"),
        (lambda a: a.update(pixel_values=a["pixel_values"][:, :, :70]), "takes frames of"),
        (lambda a: a.update(pixel_values=a["pixel_values"] * np.nan), "not finite"),
        (lambda a: a.update(pixel_values_videos=a["pixel_values"]), "as pixel_values"),
        (lambda a: a["input_ids"].__setitem__((0, -5), tiny.IMAGE), "no whole number"),
    ],
)
def test_arrays_that_are_refused(change, message):
    arrays = {name: x.numpy() for name, x in tiny.hf_inputs(tiny.batch_rows()).items()}
    change(arrays)
    with pytest.raises(HippoError, match=message):
        ModelInputs.from_hf(tiny.model(), arrays)
