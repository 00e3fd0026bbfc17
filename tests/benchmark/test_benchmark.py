"""The benchmark measures what it says, on both sides the same work."""

import json
from dataclasses import replace

import pytest

from hippo_jax.benchmark import decoding, scoring_cost, shapes
from hippo_jax.benchmark.measure import Summary, interleave
from hippo_jax.cli import main as program


def tiny():
    whole = shapes.small()
    text = replace(
        whole.text,
        hidden_size=64,
        num_layers=2,
        num_heads=2,
        num_kv_heads=1,
        head_dim=32,
        intermediate_size=64,
        mrope_section=(4, 6, 6),
    )
    vision = replace(
        whole.vision,
        depth=2,
        hidden_size=32,
        num_heads=2,
        intermediate_size=32,
        out_hidden_size=64,
        full_attention_layers=(1,),
    )
    return replace(whole, text=text, vision=vision)


def test_runs_take_turns_and_the_first_turn_is_not_counted() -> None:
    order: list[str] = []

    def run(name: str):
        def one() -> dict[str, float]:
            order.append(name)
            return {"x": float(len(order))}

        return one

    found = interleave({"a": run("a"), "b": run("b")}, 3)
    assert order == ["a", "b"] * 4
    assert found["a"]["x"] == Summary(median=5.0, low=3.0, high=7.0)


def test_both_sides_give_the_same_tokens(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(decoding, "small", tiny)
    monkeypatch.setattr(decoding, "GRID", (2, 8, 12))
    words = ["bench", "--peer", "transformers", "--new-tokens", "5", "--repeats", "1"]
    assert program.main([*words, "--json"]) == 0
    outcome = json.loads(capsys.readouterr().out)
    assert outcome["same_tokens"] is True
    assert outcome["visual_tokens"] == 2 * 4 * 6
    for what in ("prefill_s", "decode_ms_per_token"):
        found = {name: entry[what]["median"] for name, entry in outcome["results"].items()}
        assert outcome["ratio"][what] == pytest.approx(found["transformers"] / found["hippo_jax"])
    table = decoding.as_table(outcome)
    assert "same greedy tokens: yes" in table and "| transformers |" in table


def test_a_scored_prefill_is_measured_beside_a_plain_one(
    monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(scoring_cost, "small", tiny)
    monkeypatch.setattr(scoring_cost, "GRID", (2, 8, 12))
    assert program.main(["bench", "--scoring", "--repeats", "1", "--json"]) == 0
    outcome = json.loads(capsys.readouterr().out)
    found = {name: summary["median"] for name, summary in outcome["results"].items()}
    assert found["ratio"] == pytest.approx(found["scored_s"] / found["prefill_s"])
    parts = found["relevance_s"] + found["choice_s"]
    assert found["share"] == pytest.approx(parts / found["prefill_s"]) and parts > 0
    assert outcome["visual_tokens"] == 48 and outcome["query_tokens"] == 21
    operations = {name: found["operations"] for name, found in outcome["compiled"].items()}
    assert operations["scored"] > operations["prefill"]
    assert "| ratio, turn by turn |" in scoring_cost.as_table(outcome)


@pytest.mark.parametrize(
    "words",
    [
        ["--repeats", "0"],
        ["--new-tokens", "1"],
        ["--pair", "demo", "--new-tokens", "1"],
        ["--pair", "demo", "--gamma", "0"],
        ["--pair", "nobody"],
        ["--pair", ""],
        ["--peer", "transformers", "--startup"],
        ["--startup", "--pair", "demo"],
        ["--scoring", "--new-tokens", "8"],
        ["--clips", "2"],
        ["--gamma", "2"],
        ["--acceptance", "--clips", "0"],
        ["--acceptance", "--pair", "nobody"],
    ],
)
def test_what_cannot_be_measured_is_one_line(capsys, words: list[str]) -> None:
    assert program.main(["bench", *words]) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said and said.strip()
