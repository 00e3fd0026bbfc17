"""Every published size without its weights: our tree and names against transformers' own model.

Everything is a shape: torch's meta device on one side, ``jax.eval_shape`` on the other. A size
whose family is not registered is skipped by name.
"""

import copy
import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageTextToText
from transformers.core_model_loading import revert_weight_conversion
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from hippo_jax.architectures.names import HFTensor, hub_name
from hippo_jax.architectures.parameters import count, declared
from hippo_jax.architectures.published import published, published_config, published_names
from hippo_jax.architectures.registry import FAMILIES, family_of
from hippo_jax.architectures.video_lm import abstract_model
from hippo_jax.errors import HippoError
from hippo_jax.weights.mapping import LM_HEAD, canonical

# The smallest of each family is made in its full depth, the others with these few layers.
FULL_DEPTH = (
    "internvl3-1b",
    "llava-onevision-0.5b",
    "qwen2-vl-2b",
    "qwen2.5-vl-3b",
    "qwen3-vl-2b",
)
DECODER_LAYERS, TOWER_LAYERS = 3, 3  # deepstack feeds three

# What the hub's older files call the modules of transformers 5, by family.
_FLAT = (("model.visual.", "visual."), ("model.language_model.", "model."))
_NESTED = (
    ("model.multi_modal_projector.", "multi_modal_projector."),
    ("model.language_model.", "language_model.model."),
    ("lm_head.", "language_model.lm_head."),
)
OLDER_NAMES = {
    "qwen2_vl": _FLAT,
    "qwen2_5_vl": _FLAT,
    "qwen3_vl": (),  # published in the names of transformers 5
    "internvl": (("model.vision_tower.", "vision_tower."), *_NESTED),
    "llava_onevision": (
        ("model.vision_tower.", "vision_tower.vision_model."),
        ("model.image_newline", "image_newline"),
        *_NESTED,
    ),
}

every_size = pytest.mark.parametrize("name", published_names())


def require(name: str) -> None:
    """A size belongs to a family that is there."""
    family = published(name).model_type
    assert family in FAMILIES, f"{name}: the family {family} is not registered"


@functools.cache
def hf_model(name: str) -> torch.nn.Module:
    """What transformers builds from the config, in full depth, without memory."""
    size = published(name)
    config = CONFIG_MAPPING[size.model_type].from_dict(copy.deepcopy(dict(size.config)))
    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(config)


def hf_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Names (of transformers 5) and shapes of a checkpoint; a tied head is not in it."""
    state = hf_model(name).state_dict()
    if hf_model(name).config.tie_word_embeddings:
        del state[LM_HEAD]
    return {key: tuple(value.shape) for key, value in state.items()}


def names_of(name: str) -> dict[str, HFTensor]:
    """Our name table, in full depth."""
    config = published_config(name)
    return family_of(config.family).hf_tensors(config)


def older_names(name: str) -> dict[str, str]:
    """The names in the hub's older files to those of transformers 5."""
    older = {}
    for tensor in names_of(name).values():
        old = tensor.name
        for now, before in OLDER_NAMES[published(name).model_type]:
            if tensor.name.startswith(now):
                old = before + tensor.name.removeprefix(now)
        older[old] = tensor.name
    return older


def few_layers(config: Mapping[str, Any]) -> dict[str, Any]:
    """A ``config.json`` of the same widths with few layers, and as many deepstack features."""
    short = copy.deepcopy(dict(config))
    tower = short["vision_config"]
    short.get("text_config", short)["num_hidden_layers"] = DECODER_LAYERS
    tower["depth" if "depth" in tower else "num_hidden_layers"] = TOWER_LAYERS
    if "fullatt_block_indexes" in tower:
        tower["fullatt_block_indexes"] = [1]
    if "deepstack_visual_indexes" in tower:
        assert len(tower["deepstack_visual_indexes"]) <= TOWER_LAYERS
        tower["deepstack_visual_indexes"] = list(range(len(tower["deepstack_visual_indexes"])))
    return short


def our_shape(tensor: HFTensor) -> tuple[int, ...]:
    """How a tensor of the file lies with us, before packed axes are told apart."""
    if not tensor.transposed:
        return tensor.shape
    return (math.prod(tensor.shape[1:]), tensor.shape[0])


def same_layout(declared_shape: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    """Equal, but for axes that the file packs (queries, keys and values) and those of size one."""
    if math.prod(declared_shape) != math.prod(expected):
        return False
    # Merging axes of the declared shape must lead through every border of the expected one.
    borders = set(np.cumprod([1, *declared_shape]).tolist())
    return set(np.cumprod([1, *expected]).tolist()) <= borders


def check_tree(config: Any) -> None:
    """The abstract model has exactly the weights that the name table lists, in their layout."""
    model = abstract_model(config)
    weights, names = declared(model), family_of(config.family).hf_tensors(config)
    assert set(weights) == set(names)
    wrong = {
        path: (weights[path].shape, tensor)
        for path, tensor in names.items()
        if not same_layout(weights[path].shape, our_shape(tensor))
    }
    assert not wrong
    assert count(model) == sum(math.prod(tensor.shape) for tensor in names.values())


@every_size
def test_names_and_shapes_are_those_of_transformers(name: str) -> None:
    require(name)
    tensors = list(names_of(name).values())
    ours = {tensor.name: tuple(tensor.shape) for tensor in tensors}
    assert len(ours) == len(tensors), "two weights under one name"
    theirs = {canonical(key): shape for key, shape in hf_shapes(name).items()}
    assert len(theirs) == len(hf_shapes(name))
    assert ours == theirs
    assert (LM_HEAD in ours) is not published_config(name).text.tied


@every_size
def test_older_names_map_one_to_one(name: str) -> None:
    require(name)
    older = older_names(name)
    assert len(older) == len(names_of(name))
    assert {old: canonical(old) for old in older} == older
    assert {now: canonical(now) for now in older.values()} == {now: now for now in older.values()}
    prefixes = family_of(published(name).model_type).hub_prefixes
    assert {hub_name(now, prefixes): now for now in older.values()} == older


@pytest.mark.parametrize("name", FULL_DEPTH)
def test_older_names_are_those_that_transformers_writes(name: str) -> None:
    require(name)
    written = set(revert_weight_conversion(hf_model(name), hf_model(name).state_dict()))
    if published_config(name).text.tied:
        written = {key for key in written if not key.endswith(LM_HEAD)}
    # Hub files have an infix that transformers 5 reads but does not write.
    older = {
        old.replace("vision_tower.vision_model.", "vision_tower.") for old in older_names(name)
    }
    assert older == written


@every_size
def test_the_tree_has_the_names_and_shapes_of_the_table(name: str) -> None:
    require(name)
    size = published(name)
    config = published_config(name)
    short = family_of(size.model_type).config_from_hf(few_layers(size.config))
    assert short.text == dataclasses.replace(config.text, num_layers=DECODER_LAYERS)
    check_tree(short)


@pytest.mark.parametrize("name", FULL_DEPTH)
def test_the_tree_in_full_depth(name: str) -> None:
    require(name)
    check_tree(published_config(name))


@every_size
def test_the_number_of_parameters(name: str) -> None:
    require(name)
    size = published(name)
    ours = sum(math.prod(tensor.shape) for tensor in names_of(name).values())
    assert ours == sum(value.numel() for value in hf_model(name).parameters())  # tied ones once
    if size.parameters is not None:
        rounded = size.parameters % 1_000_000 == 0  # known from the size of the files only
        assert ours == pytest.approx(size.parameters, rel=0.01 if rounded else 0, abs=0)


@every_size
def test_the_config_as_transformers_saves_it_reads_the_same(name: str) -> None:
    require(name)
    config = published_config(name)
    saved = family_of(config.family).config_from_hf(hf_model(name).config.to_dict())
    assert (saved.text, saved.vision) == (config.text, config.vision)
    ids = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    assert [getattr(saved, i) for i in ids] == [getattr(config, i) for i in ids]


@every_size
def test_sources_are_stated(name: str) -> None:
    size = published(name)
    assert size.hub.count("/") == 1 and size.source
    assert size.verified is not bool(size.unverified)
    assert (size.parameters is None) is (size.parameters_source is None)
    for entry in size.unverified:
        fields, _, reason = entry.partition(": ")
        assert reason
        part: Any = size.config
        for key in fields.split(",")[0].split("."):
            part = part[key]


def test_every_family_has_its_sizes() -> None:
    families = {published(name).model_type for name in published_names()}
    assert set(FAMILIES) <= families == set(OLDER_NAMES)
    assert published_names()[-4:] == tuple(f"qwen3-vl-{size}b" for size in (2, 4, 8, 32))
    smallest = {name.rpartition("-")[0]: name for name in reversed(published_names())}
    assert sorted(smallest.values()) == sorted(FULL_DEPTH)


@pytest.mark.parametrize("name", ["qwen2.5-vl-8b", "", "../published/qwen2.5-vl-7b"])
def test_an_unknown_size_is_refused_with_the_names(name: str) -> None:
    with pytest.raises(HippoError, match=r"no published size is called .*qwen3-vl-32b") as error:
        published_config(name)
    assert "\n" not in str(error.value)
