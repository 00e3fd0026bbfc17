"""A saved model is read back unchanged, by us and by transformers."""

import json

import jax
import numpy as np
import pytest

from hippo_jax.architectures.parameters import values, with_values
from hippo_jax.errors import HippoError
from hippo_jax.weights.export import save_hf
from hippo_jax.weights.load import load_model
from hippo_jax.weights.safetensors_reader import read_header


def assert_same(model, other):
    left, right = values(model), values(other)
    assert set(left) == set(right)
    for path, array in left.items():
        assert array.dtype == right[path].dtype
        np.testing.assert_array_equal(np.asarray(array), np.asarray(right[path]), err_msg=path)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_round_trip(checkpoint, config, tmp_path, tied, dtype):
    change = (lambda tensors: tensors.pop("lm_head.weight")) if tied else None
    model = load_model(checkpoint(change=change).directory, dtype=dtype)
    place = save_hf(model, tmp_path / "out", dtype=dtype)
    again = load_model(place, dtype=dtype)
    assert again.config == model.config
    assert_same(again, model)
    stored = json.loads((place / "config.json").read_text())
    assert stored["tie_word_embeddings"] is tied and stored["dtype"] == dtype
    assert (place / "tokenizer.json").is_file() and (place / "generation_config.json").is_file()
    assert not list(place.glob("*.tmp"))


def test_names_are_those_of_the_hub(checkpoint, tmp_path):
    written = checkpoint()
    place = save_hf(load_model(written.directory), tmp_path / "out")
    assert set(read_header(place / "model.safetensors")) == set(
        read_header(written.directory / "model.safetensors")
    )


def test_a_model_without_files(checkpoint, config, tmp_path):
    model = load_model(checkpoint().directory)
    model.source = None
    with pytest.raises(HippoError, match="give save_hf its config"):
        save_hf(model, tmp_path / "out")
    place = save_hf(model, tmp_path / "out", config=config)
    assert_same(load_model(place), model)


def test_what_is_not_finite_is_not_saved(checkpoint, tmp_path):
    model = load_model(checkpoint().directory)
    place = save_hf(model, tmp_path / "out")
    before = (place / "model.safetensors").read_bytes()
    for value, dtype in ((np.nan, "float32"), (1e30, "float16")):
        weights = dict(values(model))
        weights["decoder.norm.weight"] = weights["decoder.norm.weight"].at[0].set(value)
        with pytest.raises(HippoError, match=r"model\.norm\.weight is not finite"):
            save_hf(with_values(model, weights), place, dtype=dtype)
    assert (place / "model.safetensors").read_bytes() == before
    assert not list(place.glob("*.tmp"))


def test_sharded_models_are_saved_whole(checkpoint, tmp_path):
    written = checkpoint()
    mesh = jax.make_mesh((4,), ("tp",), devices=jax.devices()[:4])
    place = save_hf(load_model(written.directory, mesh=mesh), tmp_path / "out")
    assert_same(load_model(place), load_model(written.directory))


@pytest.mark.parametrize("tied", [False, True])
def test_transformers_reads_it(checkpoint, config, tmp_path, tied):
    import torch
    import transformers

    change = (lambda tensors: tensors.pop("lm_head.weight")) if tied else None
    model = load_model(checkpoint(change=change).directory)
    place = save_hf(model, tmp_path / "out")
    theirs, info = transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained(
        place, output_loading_info=True, dtype=torch.float32
    )
    assert not info["missing_keys"] and not info["unexpected_keys"]
    state = theirs.state_dict()
    ours = values(model)
    for path, item in model.family.hf_tensors(model.config).items():
        expected = item.to_file(np.asarray(ours[path]))
        np.testing.assert_array_equal(state[item.name].numpy(), expected)
    # And we read what transformers writes, under its older and its newer names.
    for original in True, False:
        theirs.save_pretrained(tmp_path / "theirs", save_original_format=original)
        assert_same(load_model(tmp_path / "theirs"), model)
