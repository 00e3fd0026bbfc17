"""A run that is slower than the kept one is told on."""

import json
from pathlib import Path

import pytest

from hippo_jax.benchmark import kept_run
from hippo_jax.errors import HippoError
from hippo_jax.resources import pair_names


def summary(median: float, spread: float = 0.05) -> dict:
    return {"median": median, "low": median * (1 - spread), "high": median * (1 + spread)}


def outcome(decode: float = 2.0, prefill: float = 1.0, part: float = 3.0, **case) -> dict:
    return {
        "machine": {"device": "some CPU", "cores": 2, "jax": "1"},
        "case": {"name": "demo", "gamma": 5, **case},
        "ceilings": {"copy_gb_per_s": summary(10), "matmul_gflop_per_s": summary(100)},
        "ways": {"w": {"prefill_s": summary(prefill), "decode_ms_per_token": summary(decode)}},
        "parts": {"p": {"ms": summary(part)}},
    }


def test_the_same_is_not_slower_and_noise_is_not_either() -> None:
    for now in (outcome(), outcome(decode=2.15), outcome(decode=1.0)):
        assert not kept_run.got_slower(outcome(), now)
        assert "nothing got slower" in kept_run.as_table(outcome(), now)


@pytest.mark.parametrize("times", [{"decode": 2.4}, {"prefill": 1.3}, {"part": 4.0}])
def test_each_time_is_watched(times: dict) -> None:
    now = outcome(**times)
    assert kept_run.got_slower(outcome(), now)
    assert "| 1." in kept_run.as_table(outcome(), now)
    assert "slower: " in kept_run.as_table(outcome(), now).splitlines()[-1]


def test_turns_that_reach_the_kept_ones_are_noise() -> None:
    now = outcome(decode=2.4)
    now["ways"]["w"]["decode_ms_per_token"]["low"] = 2.0
    assert not kept_run.got_slower(outcome(), now)


def test_other_hardware_is_compared_but_not_judged() -> None:
    now = outcome(decode=9.0)
    now["machine"] = {**now["machine"], "device": "another"}
    assert not kept_run.got_slower(outcome(), now)
    assert "other hardware" in kept_run.as_table(outcome(), now)


def test_other_settings_are_refused() -> None:
    with pytest.raises(HippoError, match="gamma is 5 in the kept one and 7 now"):
        kept_run.changes(outcome(), outcome() | {"case": {"name": "demo", "gamma": 7}})


def test_a_run_is_kept_and_read(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    kept_run.write_run(outcome(), path)
    assert kept_run.read_run(path) == outcome() and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"ways": 1}', json.dumps({"ways": {}})])
def test_another_file_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "run.json"
    path.write_text(text)
    with pytest.raises(HippoError, match="hippo bench --out") as found:
        kept_run.read_run(path)
    assert "\n" not in str(found.value)


def test_every_pair_has_its_last_run_beside_its_card() -> None:
    for name in pair_names():
        found = kept_run.read_run(kept_run.kept_file(name))
        assert found["case"]["name"] == name and found["same_tokens"] is True
