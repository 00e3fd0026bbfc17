"""What a LLaVA-OneVision config asks for and this library does not do."""

import json

import pytest
from support import families
from support.tiny_llava import ODD

from hippo_jax.errors import HippoError
from hippo_jax.weights.load import load_model


def edited(folder, **fields):
    """The saved config with some fields changed; ``vision`` and ``text`` go into their parts."""
    file = folder / "config.json"
    config = json.loads(file.read_text())
    for part in ("vision", "text"):
        config[f"{part}_config"].update(fields.pop(part, {}))
    file.write_text(json.dumps({**config, **fields}))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"vision_feature_layer": -2}, "vision_feature_layer -2"),
        ({"vision_feature_layer": [-1, -2]}, "vision_feature_layer"),
        ({"vision_feature_select_strategy": "default"}, "select_strategy 'default'"),
        ({"projector_hidden_act": "gelu_new"}, "projector_hidden_act 'gelu_new'"),
        ({"multimodal_projector_bias": "yes"}, "multimodal_projector_bias"),
        ({"image_token_index": "many"}, "cannot be read"),
        ({"vision": {"hidden_act": "gelu"}}, "hidden_act 'gelu'"),
        ({"vision": {"model_type": "clip_vision_model"}}, "clip_vision_model"),
        ({"text": {"model_type": "llama"}}, "llama"),
        ({"vision": {"image_size": 13}}, "image_size 13"),
        ({"vision": {"image_size": [98, 98]}}, "image_size"),
        ({"vision": {"num_channels": 1}}, "num_channels 1"),
        ({"vision": {"num_attention_heads": 5}}, "5 heads"),
        ({"vision": {"layer_norm_eps": 0}}, "layer_norm_eps"),
        ({"vision": {"hidden_size": None}}, "hidden_size"),
        ({"text": {"hidden_size": -1}}, "hidden_size"),
        ({"vision": {"num_hidden_layers": 1}}, "not of this model"),
    ],
)
def test_a_config_that_is_not_supported(tmp_path, fields, message):
    families.hf_model(ODD).save_pretrained(tmp_path)
    edited(tmp_path, **fields)
    with pytest.raises(HippoError, match=message) as raised:
        load_model(tmp_path)
    assert "\n" not in str(raised.value)
