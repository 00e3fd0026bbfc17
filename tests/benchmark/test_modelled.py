"""The paper's settings, modelled from a run's step times."""

import json
from pathlib import Path

import pytest

from hippo_jax.benchmark import kept_run, modelled
from hippo_jax.benchmark.parts import CHOICE, PREFILL, PRUNED, SCORED
from hippo_jax.cli.main import main

MS = {
    "target, video": 0.0,
    PREFILL: 0.0,
    SCORED: 0.0,
    CHOICE: 0.0,
    "draft, video": 0.0,
    PRUNED: 0.0,
    "target, 1 token": 100.0,
    "target, 8 tokens": 100.0,
    "draft, 1 token": 20.0,
}


def outcome(**ms: float) -> dict:
    times = {**MS, **ms}
    return {
        "machine": {"device": "a chip", "cores": 2, "jax": "1"},
        "case": {"name": "big with small", "dtype": "bfloat16", "visual_tokens": 9},
        "ceilings": {},
        "ways": {},
        "parts": {
            name: {"ms": {"median": value, "low": value, "high": value}}
            for name, value in times.items()
        },
    }


def test_speedups_are_those_of_the_formulas() -> None:
    """A target step is five draft steps and a block costs no more than a token: chunks of 5 keep
    both busy, and a round takes one target step."""
    found = modelled.model_paper(outcome())
    assert found["ratio_of_steps"] == 5
    row = found["settings"]["MLVU"]
    a = row["acceptance"]
    assert a == pytest.approx(0.9195, abs=1e-4) and row["paper_speedup"] == 2.78
    parallel = sum(a**k for k in range(5)) / (1 + a - a**5)  # tokens a round, in the long run
    assert row["gamma_parallel"] == 5
    assert row["modelled_parallel"] == pytest.approx(parallel, rel=0.02)
    g = row["gamma_sequential"]
    sequential = sum(a**k for k in range(g + 1)) * 100 / (100 + 20 * g)
    assert row["modelled_sequential"] == pytest.approx(sequential, rel=0.02)
    assert row["modelled_rival"] == pytest.approx(2 * row["modelled_sequential"])
    assert (
        row["modelled_sequential"] > found["settings"]["VideoDetailCaption"]["modelled_sequential"]
    )


def test_a_long_prefill_takes_from_every_speedup() -> None:
    short, long = (
        modelled.model_paper(outcome(**{PREFILL: ms, SCORED: ms}))["settings"]["MLVU"]
        for ms in (0.0, 20_000.0)
    )
    for way in ("parallel", "sequential", "rival"):
        assert long[f"modelled_{way}"] < short[f"modelled_{way}"]


def test_the_command_says_that_it_is_modelled(tmp_path: Path, capsys) -> None:
    path = tmp_path / "run.json"
    kept_run.write_run(outcome(), path)
    assert main(["bench", "--modelled", str(path)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("Modelled") and "| MLVU | 91.9 |" in said and "| 2.78 |" in said
    assert main(["bench", "--modelled", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["settings"]["LVBench"]["paper_speedup"] is None
    assert main(["bench", "--modelled", str(tmp_path / "no.json")]) == 2
