"""Bytes of weights and caches on each device, against what lies there; the memory of devices."""

import dataclasses
import os
from collections import Counter
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from support import demo_placements, pairs
from support.demo_placements import PLACEMENTS, in_one_program

import hippo_jax as hj
from hippo_jax.architectures.config import VideoLMConfig
from hippo_jax.architectures.parameters import declared, with_values
from hippo_jax.architectures.sharding import Home, specs_at
from hippo_jax.architectures.tensor_parallel import cache_spec, on_devices
from hippo_jax.architectures.video_lm import abstract_model
from hippo_jax.placement.memory import Memory, cache_bytes, device_memory, weight_bytes
from hippo_jax.placement.needs import pair_needs
from hippo_jax.placement.placement import role_homes


@pytest.fixture
def configs() -> tuple[VideoLMConfig, VideoLMConfig]:
    return demo_placements.configs()


def lying(model: hj.VideoLM) -> dict[jax.Device, int]:
    """Bytes of a model's weights that really are on each device."""
    found: Counter[jax.Device] = Counter()
    for leaf in jax.tree.leaves(model):
        for shard in leaf.addressable_shards:
            found[shard.device] += shard.data.nbytes
    return dict(found)


@pytest.mark.parametrize("kind", PLACEMENTS)
@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_needs_are_what_lies_on_each_device(configs, kind: str, dtype) -> None:
    make, targets, drafts, count = PLACEMENTS[kind]
    placement, devices = make(), jax.devices()[:count]
    needs = pair_needs(*configs, placement, dtype)
    pair = hj.load_pair("demo", placement=placement, dtype=dtype)
    held = {role.role: lying(getattr(pair, role.role)) for role in needs.roles}
    for role in needs.roles:
        assert held[role.role] == dict.fromkeys(role.holders, role.weights)
        assert role.weights == weight_bytes(role.config, dtype or "float32", role.home)
    assert set(held["target"]) | set(held["draft"]) == set(devices)
    assert {device: needs.on(device) for device in jax.devices()} == {
        device: sum(model.get(device, 0) for model in held.values()) for device in jax.devices()
    }
    assert (len(needs.target.devices), len(needs.draft.devices)) == (targets, drafts)
    if kind.startswith("two meshes"):  # each model on its own devices, and nothing on the others
        assert set(held["target"]) == set(devices[:targets])
        assert set(held["draft"]) == set(devices[targets:])
        assert needs.in_one_program == needs.target.weights + needs.draft.weights
    else:  # a share of both on all of them, whoever they work for
        assert set(held["target"]) == set(held["draft"]) == set(devices)
        assert {needs.on(device) for device in devices} == {needs.in_one_program}
    for role, config in zip(needs.roles, configs, strict=True):
        assert role.whole == weight_bytes(config, dtype or "float32", None)
    # Splitting saves something: heads and units of both models divide by 2 and 4, few by 3.
    most = {1: 1.0, 2: 0.6, 3: 1.0, 4: 0.5}
    for role, size in zip(needs.roles, (targets, drafts), strict=True):
        assert role.weights <= most[size] * role.whole


def test_cpu_devices_are_given_one_buffer_where_they_hold_the_same_part(configs) -> None:
    needs = pair_needs(*configs, in_one_program(2, 2))
    pair = hj.load_pair("demo", placement=in_one_program(2, 2))
    for role in needs.roles:
        shards = [
            s.data for x in jax.tree.leaves(getattr(pair, role.role)) for s in x.addressable_shards
        ]
        buffers = {shard.unsafe_buffer_pointer(): shard.nbytes for shard in shards}
        assert sum(buffers.values()) == role.whole
        assert sum(shard.nbytes for shard in shards) > 1.9 * role.whole


@pytest.mark.parametrize(("queries", "keys"), [(4, 2), (4, 1), (6, 2), (3, 1)])
def test_cache_bytes_are_those_of_a_prefill(queries: int, keys: int) -> None:
    """Against the shapes of a traced prefill; nothing is compiled."""
    text = dataclasses.replace(pairs.config().text, num_heads=queries, num_kv_heads=keys)
    config = dataclasses.replace(pairs.config(), text=text)
    inputs = pairs.prompts(np.random.default_rng(0), 3)
    devices = jax.devices()
    meshes = {size: Home.of(hj.Placement.on(size, 1).target) for size in (1, 2, 3, 4)}
    homes = [None, *meshes.values(), *role_homes(devices[:2], devices[2:4])]
    homes += role_homes(devices[:2], devices[2:5])
    for home in homes:
        model = abstract_model(config)
        if home is not None:  # in a program with two roles stored arrays are longer
            model = with_values(model, stored_weights(model, home))
        model.home = home
        cache = jax.eval_shape(
            lambda model, inputs: on_devices(
                lambda model, inputs: model.prefill(inputs, 24)[1],
                (model,),
                inputs,
                outputs=cache_spec,
            ),
            model,
            inputs,
        )
        everywhere = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(cache.layers))
        expected = everywhere // (1 if home is None else home.total) + 3 * 4  # and the lengths
        width = inputs.token_ids.shape[1]
        assert cache_bytes(config, "float32", home, 3, width, 24) == expected, home
    lengths = 3 * 4
    whole = cache_bytes(config, "float32", None, 3, 32, 24) - lengths
    assert cache_bytes(config, "bfloat16", None, 3, 32, 24) == whole // 2 + lengths


def stored_weights(model: hj.VideoLM, home: Home) -> dict[str, jax.ShapeDtypeStruct]:
    """The arrays that would hold the weights of an abstract model at ``home``."""
    weights = declared(model)
    specs = specs_at(model.config, weights, home)
    return {
        path: jax.ShapeDtypeStruct(home.stored_shape(item.shape, specs[path]), item.dtype)
        for path, item in weights.items()
    }


def test_memory_of_a_device() -> None:
    def device(stats, platform: str = "gpu", process: int = 0) -> SimpleNamespace:
        return SimpleNamespace(memory_stats=stats, platform=platform, process_index=process)

    def unknown():
        raise NotImplementedError

    def nobody_asks():
        raise AssertionError("a device of another host cannot be asked")

    machine = Memory(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), shared=True)
    assert device_memory(jax.devices()[0]) == machine
    assert 2**28 < machine.size < 2**50
    assert device_memory(device(lambda: {"bytes_limit": 7, "bytes_in_use": 9})) == Memory(7)
    assert device_memory(device(lambda: {"bytes_limit": 7}, "cpu")) == Memory(7)
    assert device_memory(device(lambda: None)) is None
    assert device_memory(device(lambda: {"bytes_in_use": 9})) is None
    assert device_memory(device(unknown)) is None
    assert device_memory(device(nobody_asks, process=1)) is None
