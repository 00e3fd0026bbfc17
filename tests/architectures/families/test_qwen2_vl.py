"""Qwen2-VL from a directory: a clip and a prompt to the ids and positions of transformers."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from inputs import golden_cases as cases
from support.families import cases as families
from support.families import convert
from support.tiny import perturb
from transformers import Qwen2VLConfig

import hippo_jax as hj
from hippo_jax.architectures.qwen2_vl.config import config_from_hf
from hippo_jax.weights.load import load_model

INPUTS = Path(__file__).parents[2] / "inputs"
VIDEO_SHAPE, LOW, HIGH = cases.VIDEOS["odd"]
CASE = next(case for case in families() if case.name == "qwen2_vl")


def own_config() -> Qwen2VLConfig:
    """With the ids of the tests' tokenizer."""
    config = CASE.hf_config(False)
    config.vision_start_token_id, config.vision_end_token_id = 266, 267
    config.image_token_id, config.video_token_id = 268, 269
    config.text_config.vocab_size = 272
    return config


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("qwen2_vl")
    hf = CASE.hf_class(own_config()).eval().float()
    perturb(hf)
    hf.save_pretrained(folder)
    for file in (INPUTS / "tokenizer").iterdir():
        shutil.copy(file, folder)
    sizes = {"min_pixels": LOW, "max_pixels": HIGH, "patch_size": 14, "merge_size": 2}
    (folder / "preprocessor_config.json").write_text(json.dumps(sizes))
    return load_model(folder, dtype="float32"), hf


def test_a_clip_and_a_prompt(model) -> None:
    ours, hf = model
    video = hj.Video(cases.frames(*VIDEO_SHAPE), 4.0)
    inputs = hj.prepare_inputs(ours, video, "What moves?")
    goldens = np.load(INPUTS / "goldens" / "chats.npz")
    length = int(inputs.lengths[0])
    assert inputs.token_ids[0, :length].tolist() == goldens["ids_0"].tolist()
    assert int(inputs.visual_tokens[0]) == int((goldens["ids_0"] == 269).sum())
    assert np.isfinite(np.asarray(ours(inputs))).all()
    np.testing.assert_array_equal(np.asarray(convert(CASE, hf)(inputs)), np.asarray(ours(inputs)))


@pytest.fixture(scope="module")
def published(model, tmp_path_factory) -> hj.VideoLM:
    """The same weights beside a processor file as its goldens were made from."""
    folder = tmp_path_factory.mktemp("published") / "model"
    shutil.copytree(model[0].source, folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(cases.QWEN2_FILE))
    return load_model(folder, dtype="float32")


def goldens() -> dict[str, np.ndarray]:
    """What ``Qwen2VLProcessor`` made."""
    with np.load(INPUTS / "goldens" / "qwen2_vl.npz") as stored:
        return dict(stored)


def check_pixels(got: np.ndarray, expected: np.ndarray) -> None:
    """The same up to one level of 8-bit pixels in a few places; then padding."""
    difference = np.abs(got[: len(expected)] - expected.astype(np.float32))
    assert difference.max() <= 1.1 / 255 / min(cases.QWEN2_FILE["image_std"])
    assert (difference > 4e-3).mean() < 1e-3
    assert (got[len(expected) :] == 0).all()


def clip() -> hj.Video:
    """The goldens' video."""
    return hj.Video(cases.frames(*cases.QWEN2_VIDEO), cases.QWEN2_FPS)


@pytest.mark.parametrize("name", cases.QWEN2_SAMPLES)
def test_sampled_videos_are_those_of_the_processor(published, name) -> None:
    """Which frames, their sizes and their normalised pixels."""
    asked = {key: type(x)(x) for key, x in cases.QWEN2_SAMPLES[name].items()}
    inputs = hj.prepare_inputs(published, clip(), "What moves?", **asked)
    units, height, width = goldens()[f"{name}_grid"][0].tolist()
    table = inputs.table
    assert inputs.visual_tokens.tolist() == [units * height * width // 4]
    assert (table.frames[0], table.height[0], table.width[0]) == (units, height // 2, width // 2)
    check_pixels(inputs.vision.pixels, goldens()[f"{name}_pixels"])


def test_a_batch_is_that_of_the_processor(published) -> None:
    """Ids, places and pixels of chats with video, image, both and neither: from frames and
    messages as from the processor's own arrays."""
    image = cases.frames(*cases.IMAGE[0])[0]
    media = {"video": clip(), "image": image}
    got = hj.prepare_inputs(
        published,
        [[media[name] for name in names] or None for names, _ in cases.CHATS],
        [messages for _, messages in cases.CHATS],
        **cases.QWEN2_SAMPLES["rate"],
    )
    arrays = {
        name.removeprefix("batch_"): x.astype(np.float32) if "pixel_values" in name else x
        for name, x in goldens().items()
        if name.startswith("batch_")
    }
    ids, mask = arrays["input_ids"], arrays["attention_mask"] > 0
    for row in range(len(ids)):
        np.testing.assert_array_equal(got.token_ids[row, : mask[row].sum()], ids[row, mask[row]])
    expected = hj.ModelInputs.from_hf(published, arrays)
    np.testing.assert_array_equal(got.visual_tokens, expected.visual_tokens)
    np.testing.assert_array_equal(got.lengths, expected.lengths)
    np.testing.assert_array_equal(got.next_position, expected.next_position)
    jax.tree.map(np.testing.assert_array_equal, got.table, expected.table)
    jax.tree.map(np.testing.assert_array_equal, got.vision.layout, expected.vision.layout)
    longest = got.token_ids.shape[1]
    for row, length in enumerate(np.asarray(got.lengths)):
        assert length <= longest
        np.testing.assert_array_equal(
            got.positions[:, row, :length], expected.positions[:, row, :length]
        )
    count = sum(len(arrays[name]) for name in ("pixel_values", "pixel_values_videos"))
    check_pixels(got.vision.pixels, expected.vision.pixels[:count])


def test_published_sizes() -> None:
    """The flat config of a hub file."""
    found = config_from_hf(
        {
            "model_type": "qwen2_vl",
            "hidden_size": 1536,
            "intermediate_size": 8960,
            "num_hidden_layers": 28,
            "num_attention_heads": 12,
            "num_key_value_heads": 2,
            "vocab_size": 151936,
            "rms_norm_eps": 1e-6,
            "rope_theta": 1000000.0,
            "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
            "max_position_embeddings": 32768,
            "tie_word_embeddings": True,
            "eos_token_id": 151645,
            "vision_config": {
                "depth": 32,
                "embed_dim": 1280,
                "mlp_ratio": 4,
                "num_heads": 16,
                "in_chans": 3,
                "hidden_size": 1536,
                "patch_size": 14,
                "spatial_merge_size": 2,
                "spatial_patch_size": 14,
                "temporal_patch_size": 2,
            },
        }
    )
    assert (found.vision.intermediate_size, found.vision.patch_dim) == (5120, 1176)
    assert found.text.tied and found.text.mrope_section == (16, 24, 24)
    assert (found.video_token_id, found.text_position_rule) == (151656, "largest")
    assert found.eos_token_ids == (151645,)


@pytest.mark.parametrize(
    ("part", "field", "value", "message"),
    [
        ("vision_config", "hidden_size", 32, "gives 32 features"),
        ("vision_config", "embed_dim", 36, "embed_dim 36"),
        ("vision_config", "mlp_ratio", 0, "mlp_ratio 0"),
        ("vision_config", "mlp_ratio", 1.01, "mlp_ratio"),
        ("vision_config", "hidden_act", "gelu", "hidden_act 'gelu'"),
        ("vision_config", "depth", 0, "depth"),
        ("text_config", "hidden_size", None, "hidden_size"),
        ("text_config", "rope_parameters", {"rope_type": "yarn"}, "yarn"),
    ],
)
def test_configs_that_are_refused(part, field, value, message) -> None:
    config = CASE.hf_config(False).to_dict()
    config[part][field] = value
    with pytest.raises(hj.HippoError, match=message) as caught:
        config_from_hf(config)
    assert "\n" not in str(caught.value)
