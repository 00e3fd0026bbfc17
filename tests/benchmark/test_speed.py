"""The benchmark measures what it says, on all sides the same work."""

import json
import os
from collections.abc import Callable

import jax
import numpy as np
import pytest
from support import bench_sizes, small_sizes

from hippo_jax.architectures.config import VideoLMConfig
from hippo_jax.architectures.published import published, published_names
from hippo_jax.architectures.registry import family_of
from hippo_jax.benchmark import cases, ceilings, parts, shapes, speed
from hippo_jax.benchmark.cases import Case, pair_case, shape_case
from hippo_jax.benchmark.measure import Summary, interleave
from hippo_jax.benchmark.speed_table import as_table
from hippo_jax.benchmark.two_devices import draft_device
from hippo_jax.cli import main as program
from hippo_jax.decoding.generate import generate
from hippo_jax.errors import HippoError

NEW_TOKENS, GAMMA = 40, 3
WAYS = (speed.SEQUENTIAL, speed.PARALLEL)


def test_runs_take_turns_and_the_first_turn_is_not_counted() -> None:
    order: list[str] = []

    def run(name: str) -> Callable[[], dict[str, float]]:
        def one() -> dict[str, float]:
            order.append(name)
            return {"x": float(len(order))}

        return one

    found = interleave({"a": run("a"), "b": run("b")}, 3)
    assert order == ["a", "b"] * 4
    assert found["a"]["x"] == Summary(median=5.0, low=3.0, high=7.0)


@pytest.fixture(scope="module")
def case() -> Case:
    """Small random models that replay the embedded pair's acceptance."""
    own = {"130m": bench_sizes.target, "30m": bench_sizes.draft}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shapes, "OWN", own)
        return shape_case("130m", None, NEW_TOKENS, recording="demo", frames=4, size=(56, 84))


@pytest.fixture(scope="module")
def outcome(case: Case) -> dict:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ceilings, "COPIED_BYTES", {"cpu": 2**20})
        patch.setattr(parts, "WIDTHS", (1, 8))
        patch.setattr(speed, "WAYS", {name: speed.WAYS[name] for name in WAYS})
        patch.setattr(ceilings, "SIDES", {"cpu": ((64, 64, 64), (32, 64, 128))})
        other = draft_device("cpu")
        return speed.measure_speed(case, repeats=1, gamma=GAMMA, draft_on=other)


def test_every_way_gives_the_targets_tokens(outcome: dict) -> None:
    assert outcome["same_tokens"] is True
    for name, found in outcome["ways"].items():
        assert found["tokens"] == NEW_TOKENS
        assert found["same_tokens"] is (name != speed.DRAFT)  # its script is wrong in places
    assert outcome["case"]["visual_tokens"] == 2 * 2 * 3
    assert outcome["case"]["kept_visual_tokens"] == 2
    json.dumps(outcome, allow_nan=False)


def test_figures_hang_together(outcome: dict) -> None:
    plain = outcome["ways"][speed.PLAIN]
    for found in outcome["ways"].values():
        decode = (NEW_TOKENS - 1) * found["decode_ms_per_token"]["median"] / 1e3
        whole = found["whole_s"]["median"]
        assert whole == pytest.approx(found["prefill_s"]["median"] + decode)
        assert found["speed"]["whole"] == pytest.approx(plain["whole_s"]["median"] / whole)
        tokens_per_ms = found["tokens_per_s"] / 1e3
        assert tokens_per_ms * found["decode_ms_per_token"]["median"] == pytest.approx(1)
    for name in WAYS:
        found = outcome["ways"][name]
        per_round = found["decode_ms_per_round"]["median"] / found["decode_ms_per_token"]["median"]
        assert found["tokens_per_round"] == pytest.approx(per_round)
        most = GAMMA if name == speed.PARALLEL else GAMMA + 1
        assert 1 <= found["tokens_per_round"] <= most


def test_a_way_is_held_against_the_best_of_the_peers_plain_ones() -> None:
    def times(first: float, decode: float, whole: float) -> dict[str, Summary]:
        names = ("prefill_s", "decode_ms_per_token", "whole_s")
        return {n: Summary(t, t, t) for n, t in zip(names, (first, decode, whole), strict=True)}

    ours = {speed.PLAIN: times(1, 2, 4), speed.DRAFT: times(1, 1, 1), "sequential": times(2, 1, 2)}
    peers = {"eager": times(3, 6, 8), "compiled": times(4, 4, 9)}
    assert speed.over_peer(ours, peers) == {
        speed.PLAIN: {"first": 3, "decode": 2, "whole": 2},
        "sequential": {"first": 1.5, "decode": 4, "whole": 4},
    }
    assert speed.over_peer(ours, {}) == {}


def test_memory_counts_the_weights_of_whoever_works(outcome: dict, case: Case) -> None:
    own = {
        role: sum(leaf.nbytes for leaf in jax.tree.leaves(getattr(case.pair, role)))
        for role in ("target", "draft")
    }
    ways = outcome["ways"]
    assert ways[speed.PLAIN]["peak_bytes"] > own["target"]
    # No program needs the draft's head twice, nor its vision tower beside the rounds.
    assert ways[speed.SEQUENTIAL]["peak_bytes"] > own["target"] + 0.9 * own["draft"]
    assert ways[speed.DRAFT]["peak_bytes"] < own["target"]


def test_rounds_of_two_devices_are_held_against_each_role_alone(outcome: dict) -> None:
    found, way = outcome["overlap"], outcome["ways"]["parallel, draft on cpu"]
    assert found["round_ms"] == way["decode_ms_per_round"]
    roles = [found[name]["median"] for name in ("target_ms", "draft_ms")]
    assert found["over_slower"] == pytest.approx(found["round_ms"]["median"] / max(roles))
    assert found["over_sum"] == pytest.approx(found["round_ms"]["median"] / sum(roles))


def test_parts_are_fractions_of_the_machines_rates(outcome: dict, case: Case) -> None:
    limits, found_parts = outcome["ceilings"], outcome["parts"]
    for found in found_parts.values():
        seconds = found["ms"]["median"] / 1e3
        if found["of_matmul"] is not None:
            rate = limits["matmul_gflop_per_s"]["median"] * 1e9
            assert found["of_matmul"] == pytest.approx(found["operations"] / seconds / rate)
        if found["of_copy"] is not None:
            rate = limits["copy_gb_per_s"]["median"] * 1e9
            assert found["of_copy"] == pytest.approx(found["bytes"] / seconds / rate)
    one, eight = (found_parts[f"target, {q}"] for q in ("1 token", "8 tokens"))
    assert one["bytes"] == eight["bytes"]
    decoder = case.pair.target.decoder
    matrices = [x.size for x in jax.tree.leaves((decoder.layers, decoder.head)) if x.ndim == 2]
    assert one["bytes"] > 4 * sum(matrices)
    # Products with weights, and those of attention, which are few beside a short prompt.
    assert 2 * sum(matrices) < one["operations"] < 2.2 * sum(matrices)
    assert 7.5 * one["operations"] < eight["operations"] < 9 * one["operations"]
    behind = "draft, 1 token behind the whole prompt"
    assert found_parts["draft, 1 token"]["bytes"] < found_parts[behind]["bytes"]
    pruned, whole = (found_parts[f"draft, {what} prompt"] for what in ("pruned", "whole"))
    assert pruned["operations"] < whole["operations"]


def test_the_table_shows_every_way_and_part(outcome: dict, case: Case) -> None:
    table = as_table(outcome)
    for name in (*outcome["ways"], *outcome["parts"]):
        assert f"| {name} |" in table
    assert "same tokens as the target alone: yes" in table
    assert "a forward over 8 tokens takes" in table
    assert f"Acceptance: {case.acceptance}." in table and "replayed" in table
    assert "target on cpu:0, draft on cpu:1 in float32: a round takes" in table
    without = as_table({**outcome, "overlap": None})
    assert "a round takes" not in without


def test_other_tokens_would_be_told_on(outcome: dict) -> None:
    ways = {**outcome["ways"]}
    ways[speed.PARALLEL] = {**ways[speed.PARALLEL], "same_tokens": False}
    table = as_table({**outcome, "ways": ways})
    assert f"same tokens as the target alone: NO: {speed.PARALLEL}" in table


def test_a_scripted_pair_says_its_script_and_is_right_where_it_was_recorded(case: Case) -> None:
    (inputs,) = case.prompts()
    script, first = case.script, int(inputs.next_position[0])
    assert script is not None
    said = generate(case.pair.target, inputs, max_new_tokens=NEW_TOKENS, eos_token_ids=())
    text = script.target[first - 1 : first - 1 + NEW_TOKENS]
    assert np.asarray(said.tokens)[0, :NEW_TOKENS].tolist() == text.tolist()
    wrong = np.flatnonzero(script.draft != script.target)
    assert len(wrong) == 1 and first - 1 <= wrong[0] < len(script.target)  # 98.5 % of 40


@pytest.mark.parametrize("name", published_names())
def test_every_published_shape_has_a_prompt_and_a_draft(name: str) -> None:
    config = shapes.shape_config(name)
    row = shapes.random_row(config, 4, (112, 112))
    assert (row.ids == config.video_token_id).sum() > 0
    try:
        draft = shapes.shape_config(shapes.draft_shape(name))
    except HippoError:  # the smallest has none
        return
    assert draft.family == config.family and draft != config


def test_the_embedded_pair_is_a_case_of_its_own_clips() -> None:
    case = pair_case("demo", 8)
    assert len(case.prompts()) == 3 and case.script is None and case.end_tokens is None


@pytest.mark.slow
def test_the_embedded_pair(capsys) -> None:
    assert program.main(["bench", "--repeats", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["same_tokens"] is True
    assert found["case"]["visual_tokens"] == 324 and found["case"]["kept_visual_tokens"] == 33
    tokens = found["ways"][speed.PLAIN]["tokens"]
    assert 3 * 37 <= tokens <= 3 * 87  # captions end where they end


@pytest.mark.parametrize(
    "words",
    [
        ["--repeats", "0"],
        ["--new-tokens", "1"],
        ["--gamma", "0"],
        ["--pair", "nobody"],
        ["--pair", ""],
        ["--shape", "nobody"],
        ["--shape", "30m"],
        ["--shape", "130m", "--draft-shape", "qwen3-vl-2b"],
        ["--shape", "130m", "--new-tokens", "4000"],
        ["--shape", "130m", "--frames", "100000"],
        ["--shape", "130m", "--compare"],
        ["--draft-shape", "30m"],
        ["--draft-on", "tpu"],
        ["--draft-on", "cpu", "--startup"],
        ["--attention", "cudnn", "--repeats", "1", "--new-tokens", "2"],
        ["--attention", "cudnn", "--startup"],
        ["--frames", "4"],
        ["--dtype", "float3"],
        ["--compare", "nothing.json"],
        ["--out", "nowhere/at/all.json"],
        ["--peer", "transformers", "--startup"],
        ["--startup", "--pair", "demo"],
        ["--overlap", "--new-tokens", "8"],
        ["--startup", "--compare"],
        ["--clips", "2"],
        ["--overlap", "--gamma", "2"],
        ["--acceptance", "--clips", "0"],
        ["--acceptance", "--pair", "nobody"],
        ["--record", "nowhere/at/all.json"],
    ],
)
def test_what_cannot_be_measured_is_one_line(capsys, words: list[str]) -> None:
    assert program.main(["bench", *words]) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said and len(said.strip().splitlines()) == 1


def test_a_peer_on_the_same_gpu_is_left_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before jax looks for its devices, and unless the user says how much."""
    words = ["bench", "--peer", "transformers", "--pair", "nobody"]
    name = "XLA_PYTHON_CLIENT_PREALLOCATE"
    monkeypatch.setenv(name, "true")
    assert program.main(words) == 2 and os.environ[name] == "true"
    monkeypatch.delenv(name)
    assert program.main(words) == 2 and os.environ[name] == "false"
    monkeypatch.delenv(name)
    assert program.main(words[:1] + words[3:]) == 2 and name not in os.environ


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "draft"),
    [
        ("qwen2.5-vl-7b", "qwen2.5-vl-3b"),
        ("qwen2-vl-7b", "qwen2-vl-2b"),
        ("qwen3-vl-4b", "qwen3-vl-2b"),
        ("llava-onevision-7b", "llava-onevision-0.5b"),
        ("internvl3-2b", "internvl3-1b"),
    ],
)
def test_every_family_is_measured(target: str, draft: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Published shapes made small, vocabularies and special ids as they are."""

    def config(name: str) -> VideoLMConfig:
        found = published(name)
        return family_of(found.model_type).config_from_hf(small_sizes.small(name), None)

    monkeypatch.setattr(cases, "shape_config", config)
    monkeypatch.setattr(ceilings, "COPIED_BYTES", {"cpu": 2**20})
    monkeypatch.setattr(ceilings, "SIDES", {"cpu": ((64, 64, 64),)})
    case = shape_case(target, draft, 16, recording="demo", frames=4, size=(56, 84))
    found = speed.measure_speed(case, repeats=1, gamma=3)
    assert found["same_tokens"] is True
    assert found["ways"][speed.PARALLEL]["tokens"] == 16
    assert found["ways"][speed.SEQUENTIAL]["tokens_per_round"] > 2
