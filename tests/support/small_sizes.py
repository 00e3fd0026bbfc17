"""Published sizes made small: their vocabularies, special ids, ties and switches, over a few narrow
layers of random weights."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from inputs import golden_cases, golden_cases_internvl, golden_cases_llava_onevision

from hippo_jax.architectures.parameters import declared, values, with_values
from hippo_jax.architectures.published import published
from hippo_jax.architectures.registry import family_of
from hippo_jax.architectures.video_lm import VideoLM, abstract_model
from hippo_jax.inputs.chat import load_tokenizer
from hippo_jax.inputs.model_inputs import Media, Row
from hippo_jax.weights.export import save_hf

HIDDEN = 32
SIDE = 56  # pixels of a frame's side, where a tower takes one size only
EMBEDDING, HEAD = "decoder.embedding", "decoder.head.kernel"


def small(name: str, layers: int = 2, tower: int = 32) -> dict[str, Any]:
    """``config.json`` of a size with a decoder of ``layers`` layers of 32 numbers, and a tower of
    two layers ``tower`` wide."""
    config = copy.deepcopy(dict(published(name).config))
    text, vision = config.get("text_config", config), config["vision_config"]
    text |= {
        "hidden_size": HIDDEN,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 48,
        "max_position_embeddings": 512,
    }
    if "head_dim" in text:
        text["head_dim"] = 8
    if "mrope_section" in text.get("rope_scaling", {}):
        text["rope_scaling"] = {**text["rope_scaling"], "mrope_section": [2, 1, 1]}
    vision |= {
        "depth": 2,
        "num_hidden_layers": 2,
        "hidden_size": tower,
        "intermediate_size": 40,
        "num_heads": 2,
        "num_attention_heads": 2,
        "out_hidden_size": HIDDEN,
    }
    if "embed_dim" in vision:  # Qwen2-VL
        vision |= {"embed_dim": tower, "hidden_size": HIDDEN, "mlp_ratio": 2}
    if "fullatt_block_indexes" in vision:
        vision |= {"fullatt_block_indexes": [1], "window_size": 56}
    if "deepstack_visual_indexes" in vision:
        vision |= {"deepstack_visual_indexes": [0], "num_position_embeddings": 16}
    if "image_size" in vision:
        square = isinstance(vision["image_size"], list)
        vision["image_size"] = [SIDE, SIDE] if square else SIDE
    if "image_seq_length" in config:
        config["image_seq_length"] = 4
    return config


def random_model(config: dict[str, Any], seed: int) -> VideoLM:
    """Loud random weights. An untied head is the embedding turned, so that models with and without
    one can say the same."""
    family = family_of(config["model_type"])
    model = abstract_model(family.config_from_hf(config, None))
    rng, weights = np.random.default_rng(seed), {}
    for path, item in sorted(declared(model).items()):
        noise = rng.standard_normal(item.shape).astype(np.float32)
        if len(item.shape) == 1:
            weights[path] = 0.2 * noise + path.endswith(("norm.weight", "scale"))
        elif path == EMBEDDING:
            weights[path] = noise
        else:
            weights[path] = noise * np.float32(1.5 / np.sqrt(item.shape[0]))
    if HEAD in weights:
        weights[HEAD] = weights[EMBEDDING].T
    return loaded(model, weights)


def loaded(model: VideoLM, weights: dict[str, np.ndarray]) -> VideoLM:
    """A model with these weights."""
    return with_values(model, {path: jnp.asarray(x) for path, x in weights.items()})


def agreeing(model: VideoLM, other: VideoLM) -> VideoLM:
    """``model`` with the weights of ``other``, as far as they reach."""
    theirs, weights = values(other), {}
    for path, own in values(model).items():
        weights[path] = np.array(own)
        if path in theirs:
            both = tuple(map(slice, np.minimum(own.shape, theirs[path].shape)))
            weights[path][both] = np.asarray(theirs[path])[both]
    return loaded(model, weights)


def video_row(model: VideoLM, seed: int = 0) -> Row:
    """A prompt around a video of two units of 2 x 2 visual tokens, for families whose videos are
    one run of placeholders."""
    config, rng = model.config, np.random.default_rng(seed)
    pixels = rng.standard_normal((32, config.vision.patch_dim), np.float32)
    media = Media("video", pixels, (2, 4, 4))
    run = [config.video_token_id] * (9 if config.family == "llava_onevision" else 8)
    if config.vision_start_token_id is not None:
        run = [config.vision_start_token_id, *run, config.vision_end_token_id]
    return Row(np.array([5, 6, *run, 77, 78, 79], np.int32), (media,))


# A size that answers and one that proposes, of each family.
FAMILY_PAIRS = {
    "qwen2_5_vl": ("qwen2.5-vl-7b", "qwen2.5-vl-3b"),
    "qwen2_vl": ("qwen2-vl-7b", "qwen2-vl-2b"),
    "qwen3_vl": ("qwen3-vl-8b", "qwen3-vl-2b"),
    "llava_onevision": ("llava-onevision-7b", "llava-onevision-0.5b"),
    "internvl": ("internvl3-38b", "internvl3-1b"),  # their towers are of two sorts
}
_COLOURS = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
_SQUARE = {"size": {"height": SIDE, "width": SIDE}, **_COLOURS}
_BOUNDED = {"size": {"shortest_edge": 32 * 32, "longest_edge": 8 * 64 * 64}, "patch_size": 16}
_FILES = {
    "qwen2_5_vl": golden_cases.QWEN2_FILE,
    "qwen2_vl": golden_cases.QWEN2_FILE,
    "qwen3_vl": {**_BOUNDED, **_COLOURS},
    "llava_onevision": _SQUARE,
    "internvl": _SQUARE,
}
_SPECIAL = {
    "image_token_id": "<|image_pad|>",
    "video_token_id": "<|video_pad|>",
    "vision_start_token_id": "<|vision_start|>",
    "vision_end_token_id": "<|vision_end|>",
}


def save_pair(family: str, folder: Path) -> tuple[Path, Path]:
    """Complete checkpoints of a small pair that often agrees, with the tests' tokenizer: target and
    draft, of towers, depths and vocabularies that differ."""
    names, places = FAMILY_PAIRS[family], (folder / "target", folder / "draft")
    models = []
    for name, place, spare in zip(names, places, (8, 4), strict=True):
        draft = place.name == "draft"
        config = small(name, layers=1 if draft else 2, tower=48 if draft else 32)
        _fit_tokenizer(config, place, spare)
        model = random_model(config, seed=2)
        models.append(agreeing(model, models[0]) if draft else model)
        save_hf(models[-1], place, config=config)
    return places


def _fit_tokenizer(config: dict[str, Any], place: Path, spare: int) -> None:
    """Writes tokenizer and processor files, and their ids into the config."""
    place.mkdir(parents=True)
    source, family = Path(golden_cases.__file__).parent / "tokenizer", config["model_type"]
    special = _SPECIAL
    if family == "llava_onevision":
        golden_cases_llava_onevision.tokenizer().save_pretrained(place)
        special = {"image_token_index": "<image>", "video_token_index": "<video>"}
    elif family == "internvl":
        golden_cases_internvl.save_tokenizer(source, place)
        special = {"image_token_id": "<IMG_CONTEXT>"}
    else:
        shutil.copytree(source, place, dirs_exist_ok=True)
    tokenizer = load_tokenizer(place)
    for field, text in special.items():
        config[field] = tokenizer.convert_tokens_to_ids(text)
    text = config.get("text_config", config)
    text |= {"vocab_size": len(tokenizer) + spare, "eos_token_id": tokenizer.eos_token_id}
    (place / "preprocessor_config.json").write_text(json.dumps(_FILES[family]))
