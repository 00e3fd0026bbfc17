"""Pairs that are too large for their devices: refused before anything is loaded, and the table."""

import dataclasses
import json
import shutil

import huggingface_hub
import jax
import pytest
from support import demo_placements, pairs
from support.demo_placements import PLACEMENTS, in_one_program, source

import hippo_jax as hj
from hippo_jax.architectures.config import VideoLMConfig
from hippo_jax.architectures.video_lm import abstract_model
from hippo_jax.placement import pair as pair_module
from hippo_jax.placement.memory import Memory, weight_bytes
from hippo_jax.placement.needs import Needs, check_memory, pair_needs
from hippo_jax.weights.load import place_model

MIB = 2**20


@pytest.fixture
def configs() -> tuple[VideoLMConfig, VideoLMConfig]:
    return demo_placements.configs()


def test_a_device_of_its_own_memory_holds_exactly_its_needs(configs) -> None:
    for make, *_ in PLACEMENTS.values():
        needs = pair_needs(*configs, make())
        for role in needs.roles:
            for device in role.devices:
                need = needs.on(device)

                def memory(other, device=device, need=need):
                    return Memory(need) if other == device else None

                def less(other, device=device, need=need):
                    return Memory(need - 1) if other == device else None

                check_memory(needs, memory)
                with pytest.raises(hj.HippoError, match="do not fit in memory"):
                    check_memory(needs, less)


def test_devices_that_share_their_memory_hold_each_weight_once(configs) -> None:
    for make, *_ in PLACEMENTS.values():
        needs = pair_needs(*configs, make())
        once = needs.target.whole + needs.draft.whole
        check_memory(needs, lambda device, once=once: Memory(once, shared=True))
        with pytest.raises(hj.HippoError, match=f"together {once / MIB:.1f} MiB of the") as caught:
            check_memory(needs, lambda device, once=once: Memory(once - 1, shared=True))
        assert "that all cpu devices share" in str(caught.value)
        assert "more devices" not in str(caught.value)  # they would share the same memory


def test_a_large_device_makes_up_for_no_small_one(configs) -> None:
    needs, first = pair_needs(*configs, in_one_program(2, 2)), jax.devices()[0]
    small, large = Memory(MIB), Memory(2**40)
    with pytest.raises(hj.HippoError, match=r"of 1\.0 MiB"):
        check_memory(needs, lambda device: small if device == first else large)
    with pytest.raises(hj.HippoError, match=r"of 1\.0 MiB"):
        check_memory(needs, lambda device: small if device == first else None)


def test_unknown_memory_is_not_checked(configs) -> None:
    check_memory(pair_needs(*configs), lambda device: None)


def texts(needs: Needs) -> list[str]:
    return [f"{role.weights / MIB:.1f} MiB" for role in needs.roles]


@pytest.fixture
def nothing_is_loaded(monkeypatch) -> None:
    def refuse(*arguments, **keywords):
        raise AssertionError("weights are read")

    monkeypatch.setattr(pair_module, "load_at", refuse)


@pytest.mark.usefixtures("nothing_is_loaded")
@pytest.mark.parametrize("kind", PLACEMENTS)
def test_too_little_memory_is_refused_before_weights_are_read(configs, kind: str) -> None:
    placement = PLACEMENTS[kind][0]()
    needs = pair_needs(*configs, placement)
    target, draft = texts(needs)
    assert target != draft
    with pytest.raises(hj.HippoError) as caught:
        hj.load_pair("demo", placement=placement, memory=lambda device: Memory(MIB))
    said = str(caught.value)
    assert "\n" not in said
    assert f"the target needs {target}" in said and f"the draft needs {draft}" in said
    assert said.count("of 1.0 MiB") == 2
    assert 'use dtype="bfloat16" or more devices' in said
    both = f"({needs.in_one_program / MIB:.1f} MiB with the "
    assert (both + "draft's)" in said, both + "target's)" in said) == (
        (False, False) if placement.two_meshes else (True, True)
    )
    assert ("one_program=False" in said) == kind.startswith("one program")
    assert ("Placement.on" in said) == (not placement.disjoint)


@pytest.mark.usefixtures("nothing_is_loaded")
def test_two_meshes_are_judged_each_by_its_own_model(configs) -> None:
    placement = hj.Placement.on(2, 1)
    needs = pair_needs(*configs, placement)
    own = {device: Memory(role.weights) for role in needs.roles for device in role.devices}
    with pytest.raises(AssertionError, match="weights are read"):  # enough, and so loading begins
        hj.load_pair("demo", placement=placement, memory=own.get)
    for device in own:
        less = own | {device: Memory(own[device].size - 1)}
        with pytest.raises(hj.HippoError, match="do not fit"):
            hj.load_pair("demo", placement=placement, memory=less.get)
    # As one program each of them would need room for both.
    with pytest.raises(hj.HippoError, match="one_program=False"):
        hj.load_pair("demo", placement=in_one_program(2, 1), memory=own.get)


@pytest.mark.usefixtures("nothing_is_loaded")
def test_a_smaller_dtype_may_fit(configs) -> None:
    room = sum(weight_bytes(config, "bfloat16", None) for config in configs)
    with pytest.raises(AssertionError, match="weights are read"):
        hj.load_pair("demo", dtype="bfloat16", memory=lambda device: Memory(room))
    with pytest.raises(hj.HippoError, match="bfloat16"):
        hj.load_pair("demo", dtype="float32", memory=lambda device: Memory(room))
    with pytest.raises(hj.HippoError) as caught:
        hj.load_pair("demo", dtype="bfloat16", memory=lambda device: Memory(room - 1))
    assert "bfloat16" not in str(caught.value)


def test_a_loaded_model_counts_as_it_is(configs, monkeypatch) -> None:
    draft = hj.load_model(source("draft"), dtype="bfloat16")
    needs = pair_needs(configs[0], draft, dtype="float32")
    once = weight_bytes(configs[0], "float32", None) + weight_bytes(configs[1], "bfloat16", None)
    assert needs.on(jax.devices()[0]) == once

    def begin(*arguments, **keywords):
        raise AssertionError("weights are read")

    monkeypatch.setattr(pair_module, "load_at", begin)
    with pytest.raises(AssertionError, match="weights are read"):
        hj.load_pair(target=source("target"), draft=draft, memory=lambda device: Memory(once))
    with pytest.raises(hj.HippoError, match="do not fit"):
        hj.load_pair(target=source("target"), draft=draft, memory=lambda device: Memory(once - 1))
    # Where it is, even if that is not where the placement puts what has to be loaded.
    elsewhere = jax.device_put(draft, jax.devices()[3])
    needs = pair_needs(configs[0], elsewhere, dtype="float32")
    assert needs.draft.holders == (jax.devices()[3],)
    assert needs.on(jax.devices()[0]) == weight_bytes(configs[0], "float32", None)
    # In one program it lies on all devices and works on its own.
    placement = in_one_program(1, 2)
    placed = pair_needs(configs[0], place_model(draft, placement.homes()[1]), placement).draft
    assert placed.devices == tuple(jax.devices()[1:3])
    assert placed.holders == tuple(jax.devices()[:3])
    # With nothing to load there is nothing to refuse.
    assert hj.load_pair(target=draft, draft=draft, memory=lambda device: Memory(1)).draft is draft


@pytest.mark.usefixtures("nothing_is_loaded")
def test_a_loaded_model_elsewhere_is_refused_before_the_other_is_read() -> None:
    draft = abstract_model(pairs.config())
    with pytest.raises(hj.HippoError, match="not where the placement wants it"):
        hj.load_pair(target=source("target"), draft=draft, placement=hj.Placement.on(1, 1))


def test_directories_are_judged_by_what_they_hold(configs, tmp_path, monkeypatch) -> None:
    """The config says that the head is the embedding; the files hold a head of its own."""
    stored, made = tmp_path / "stored", tmp_path / "made"
    shutil.copytree(source("draft"), stored, copy_function=shutil.copyfile)
    found = json.loads((stored / "config.json").read_text())
    assert not found["tie_word_embeddings"]
    (stored / "config.json").write_text(json.dumps(found | {"tie_word_embeddings": True}))
    hj.convert(stored, made)
    once = weight_bytes(configs[1], "float32", None)
    monkeypatch.setattr(
        pair_module, "load_at", lambda *arguments, **keywords: pytest.fail("weights are read")
    )
    for directory in stored, made:
        with pytest.raises(hj.HippoError, match="do not fit in memory") as caught:
            hj.load_pair(
                target=directory, draft=directory, memory=lambda device: Memory(2 * once - 1)
            )
        needs = f"the target needs {once / MIB:.1f} MiB ({2 * once / MIB:.1f} MiB with"
        assert needs in str(caught.value)
    (made / "config.json").write_text("{}")
    with pytest.raises(hj.HippoError, match="damaged conversion"):
        hj.load_pair(target=made, draft=made)


@pytest.mark.usefixtures("nothing_is_loaded")
def test_models_that_do_not_belong_together_are_refused_before_weights_are_read(tmp_path) -> None:
    other = tmp_path / "other"
    shutil.copytree(source("draft"), other, copy_function=shutil.copyfile)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"video_token_id": 5}))
    with pytest.raises(hj.HippoError, match="do not fit: video_token_id"):
        hj.load_pair(target=source("target"), draft=other)


@pytest.mark.usefixtures("nothing_is_loaded")
def test_models_on_the_hub_are_judged_before_their_weights_are_downloaded(
    configs, tmp_path, monkeypatch
) -> None:
    asked = []

    def snapshot(name, *, allow_patterns, **options):
        """What the hub gives: the files that the patterns ask for."""
        asked.append((name, tuple(allow_patterns)))
        place = tmp_path / name
        ignored = shutil.ignore_patterns("*.safetensors", "*.safetensors.index.json")
        role = "target" if name.endswith("large") else "draft"
        shutil.copytree(
            source(role), place, ignore=ignored, copy_function=shutil.copyfile, dirs_exist_ok=True
        )
        return str(place)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    needed = sum(weight_bytes(config, "float32", None) for config in configs)
    with pytest.raises(hj.HippoError, match="do not fit in memory"):
        hj.load_pair(target="a/large", draft="a/small", memory=lambda device: Memory(needed - 1))
    assert {name for name, _ in asked} == {"a/large", "a/small"}
    assert not any("safetensors" in pattern for _, patterns in asked for pattern in patterns)
    with pytest.raises(AssertionError, match="weights are read"):  # enough memory: it goes on
        hj.load_pair(target="a/large", draft="a/small", memory=lambda device: Memory(needed))


@pytest.mark.parametrize("role", ["target", "draft"])
def test_what_is_no_source_is_named(role: str) -> None:
    sources = {"target": source("target"), "draft": source("draft"), role: 3}
    with pytest.raises(hj.HippoError, match=f"the {role} must be a directory"):
        hj.load_pair(**sources)


def test_the_table_says_what_one_program_costs(configs) -> None:
    needs = pair_needs(*configs, hj.Placement.on(2, 1))
    target, draft = texts(needs)
    both = f"{(needs.target.weights + needs.draft.weights) / MIB:.1f} MiB"
    lines = [line.split("  ") for line in needs.memory_table().splitlines()]
    cells = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    assert cells == [
        ["role", "devices", "alone, each", "in one program, each"],
        ["target", "2 cpu", target, both],
        ["draft", "1 cpu", draft, both],
    ]
    assert len({len(line) for line in needs.memory_table().splitlines()}) == 1
    large = dataclasses.replace(configs[0].text, num_layers=40, intermediate_size=70400)
    needs = pair_needs(dataclasses.replace(configs[0], text=large), configs[1])
    assert f"{needs.target.weights / 2**30:.2f} GiB" in needs.memory_table()
    other = jax.make_mesh((1,), ("x",), devices=jax.devices()[5:6])
    needs = pair_needs(*configs, hj.Placement(hj.Placement.on(1, 1).target, other))
    assert needs.memory_table().count("not possible") == 2
