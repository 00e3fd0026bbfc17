"""A run writes a line a sample, survives bad videos and interruptions, and checks its answers."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from support.tiny_replicas import NEW_TOKENS, prompt, tiny_replicas

from hippo_jax.errors import HippoError
from hippo_jax.evaluation import evaluate as evaluation
from hippo_jax.evaluation.calls import HIPPO, PLAIN
from hippo_jax.evaluation.evaluate import complete, run_missing, sum_up
from hippo_jax.evaluation.replicas import Replicas
from hippo_jax.evaluation.results import Share, read_all
from hippo_jax.evaluation.runner import Prepared, Settings, compared
from hippo_jax.evaluation.samples import Sample

SETTINGS = Settings(max_new_tokens=NEW_TOKENS)
CAPTIONS = [Sample(f"c{i}", f"{i}.mp4", "Describe.") for i in range(3)]
QUESTIONS = [
    Sample(f"q{i}", f"{i}.mp4", "Which?", "choice", ("x", "y"), "A", ("t",)) for i in range(2)
]
BAD = Sample("bad", "none.mp4", "Describe.")
SAMPLES = [CAPTIONS[0], QUESTIONS[0], BAD, CAPTIONS[1], QUESTIONS[1], CAPTIONS[2]]
MANIFEST: dict[str, Any] = {
    "benchmark": "mine",
    "samples": {"count": len(SAMPLES)},
    "pair": {"name": "tiny", "dtype": "float32"},
    "settings": json.loads(json.dumps(dataclasses.asdict(SETTINGS))),
    "machine": {"device": "a CPU", "cores": 2, "jax": jax.__version__},
}

Run = Callable[..., dict[int, dict[str, Any]]]


def words(tokens: Any) -> str:
    """A text that says B where there is an even token early on, else nothing."""
    return "B" if any(token % 2 == 0 for token in tokens[:2]) else "?"


@pytest.fixture(scope="module")
def replicas() -> Replicas:
    """One; its programs are compiled once for all tests here."""
    return tiny_replicas()


@pytest.fixture
def run(replicas: Replicas, tmp_path: Path) -> Run:
    """Evaluates into a folder and gives its rows."""

    def prepare(sample: Sample) -> Prepared:
        if sample.video == "none.mp4":
            raise HippoError("none.mp4 does not exist;\ncheck the path")
        row = prompt(int(sample.video[0]))
        return Prepared(row, replicas.size_of(row), 0.5)

    def evaluate(folder: str = "out", **options: Any) -> dict[int, Any]:
        settings, share = options.pop("settings", SETTINGS), options.pop("share", Share())
        out = tmp_path / folder
        options = {"prepare": prepare, "to_text": words, **options}
        run_missing(out, MANIFEST, SAMPLES, replicas, settings, share, **options)
        return read_all(out)

    return evaluate


def untimed(value: Any) -> Any:
    """Without what the clock says."""
    if isinstance(value, dict):
        timed = ("seconds", "speedup", "speedup_interval")
        return {
            k: untimed(v)
            for k, v in value.items()
            if k not in timed and not k.endswith("tokens_per_second")
        }
    return [untimed(one) for one in value] if isinstance(value, list) else value


def test_videos_of_one_size_compile_nothing_more(replicas: Replicas) -> None:
    first = prompt(0)
    replicas.decode(HIPPO, replicas.inputs([first]), 1)
    events: list[str] = []

    def listen(event: str, duration: float, **_: object) -> None:
        events.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        for row in map(prompt, (20, 21, 22)):
            assert replicas.size_of(row) == replicas.size_of(first)
            assert replicas.decode(HIPPO, replicas.inputs([row]), 1).seconds > 0
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert not [event for event in events if "compile" in event]


def test_a_line_a_sample_with_what_was_measured(run: Run, replicas: Replicas) -> None:
    rows = run()
    assert [row["id"] for row in rows.values()] == [one.id for one in SAMPLES]
    assert rows[2] == {
        "index": 2,
        "id": "bad",
        "kind": "caption",
        "tasks": ["all"],
        "error": "none.mp4 does not exist; check the path",
    }
    expected = replicas.decode("hippo", replicas.inputs([prompt(1)]), 1).generation
    row = rows[3]
    assert row["tokens"] == expected.tokens[0, : expected.lengths[0]].tolist()
    assert row["text"] == words(row["tokens"])
    runs = np.asarray(expected.stats.runs[0])
    assert row["stats"] == {
        "rounds": int(expected.stats.rounds[0]),
        "round_tokens": int(expected.stats.round_tokens[0]),
        "accepted": int(expected.stats.accepted[0]),
        "judged": int(expected.stats.judged[0]),
        "runs": runs[runs >= 0].tolist(),
    }
    assert (row["visual_tokens"], row["kept_visual_tokens"]) == (8, 4)
    assert row["seconds"]["prepare"] == 0.5
    assert row["plain"] == {"equal": True}
    assert row["seconds"]["hippo"] > 0 and row["seconds"]["plain"] > 0
    assert "answer" not in row
    asked = rows[1]
    letter = "B" if asked["text"] == "B" else None
    assert (asked["answer"], asked["letter"], asked["plain"]) == ("A", letter, None)
    assert "plain" not in asked["seconds"]  # questions are not timed


@pytest.mark.parametrize("after", [1, 3, 5])
def test_interrupted_and_run_again_it_does_what_is_missing(
    run: Run, tmp_path: Path, after: int
) -> None:
    whole = run("whole")
    known = sum_up(tmp_path / "whole")

    def stop(before: int, done: int, total: int) -> None:
        if done >= after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run("broken", report=stop)
    file = tmp_path / "broken" / Share().name
    begun = file.read_bytes()
    assert begun.count(b"\n") == after and not complete(tmp_path / "broken", len(SAMPLES))
    with pytest.raises(HippoError, match=f"has {after} of 6 samples; run the same command"):
        sum_up(tmp_path / "broken")
    with file.open("ab") as stream:
        stream.write(b'{"index": 5, "id": "c')  # as a kill would
    told: list[tuple[int, int, int]] = []
    rows = run("broken", report=lambda *counts: told.append(counts))
    assert file.read_bytes().startswith(begun)
    assert file.read_bytes().count(b"\n") == len(SAMPLES)
    assert told[0] == (after, after, 6) and told[-1] == (after, 6, 6)
    assert untimed(list(rows.values())) == untimed(list(whole.values()))
    assert untimed(sum_up(tmp_path / "broken")) == untimed(known)
    for name in ("summary.md", "summary.json", "summary.png"):
        assert (tmp_path / "broken" / name).stat().st_size > 0


def test_errors_are_tried_again_only_if_asked(run: Run) -> None:
    run()
    calls: list[str] = []

    def prepare(sample: Sample) -> Prepared:
        calls.append(sample.id)
        raise OSError("still away")

    run(prepare=prepare)
    assert calls == []
    assert run(prepare=prepare, retry_errors=True)[2]["error"] == "still away"
    assert calls == ["bad"]


def test_a_fault_of_the_program_is_named_and_not_the_end(run: Run) -> None:
    def prepare(sample: Sample) -> Prepared:
        raise TypeError("odd")

    rows = run(prepare=prepare)
    assert {row["error"] for row in rows.values()} == {"TypeError: odd"}


def test_nothing_but_errors_is_an_error(run: Run, tmp_path: Path) -> None:
    def prepare(sample: Sample) -> Prepared:
        raise HippoError("no disk")

    run(prepare=prepare)
    with pytest.raises(HippoError, match="none of the 6 samples could be evaluated; the first: no"):
        sum_up(tmp_path / "out")
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["samples"] == 6


def test_a_device_that_is_too_small_for_a_video_is_a_recorded_error(
    run: Run, replicas: Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = replicas.decode
    failed: list[str] = []

    def once(way: str, inputs: Any, rows: int) -> Any:
        if not failed:
            failed.append(way)
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory\nand more")
        return decode(way, inputs, rows)

    monkeypatch.setattr(replicas, "decode", once)
    rows = run()
    assert rows[0]["error"] == "JaxRuntimeError: RESOURCE_EXHAUSTED: out of memory and more"
    assert [row["error"] is None for row in rows.values()] == [False, True, False, True, True, True]


def test_the_check_is_of_everything_and_finds_another_token(
    run: Run, replicas: Replicas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = dataclasses.replace(SETTINGS, check=True, baseline=False)
    rows = run("good", settings=settings)
    assert all(row["plain"] == {"equal": True} for row in rows.values() if row["error"] is None)
    decode = replicas.decode

    def other(way: str, inputs: Any, count: int) -> Any:
        found = decode(way, inputs, count)
        if way == PLAIN:
            tokens = np.array(found.generation.tokens)
            tokens[:, 4] += 1
            found = dataclasses.replace(
                found, generation=dataclasses.replace(found.generation, tokens=tokens)
            )
        return found

    monkeypatch.setattr(replicas, "decode", other)
    rows = run("bad", settings=settings)
    assert rows[0]["plain"] == {
        "equal": False,
        "place": 4,
        "plain_token": rows[0]["tokens"][4] + 1,
        "token": rows[0]["tokens"][4],
    }
    check = sum_up(tmp_path / "bad")["check"]
    assert (check["compared"], check["equal"], check["first"]["id"]) == (5, 0, "c0")


def test_tokens_beside_each_other() -> None:
    assert compared([1, 2], [1, 2]) == {"equal": True}
    shorter = {"equal": False, "place": 1, "plain_token": 2, "token": None}
    assert compared([1, 2], [1]) == shorter
    longer = {"equal": False, "place": 1, "plain_token": None, "token": 2}
    assert compared([1], [1, 2]) == longer


def test_who_goes_first_alternates(
    run: Run, replicas: Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode, order = replicas.decode, []  # type: ignore[var-annotated]

    def noted(way: str, inputs: Any, rows: int) -> Any:
        order.append(way)
        return decode(way, inputs, rows)

    monkeypatch.setattr(replicas, "decode", noted)
    run(settings=dataclasses.replace(SETTINGS, check=True))
    assert order == ["hippo", "plain", "plain", "hippo"] * 2 + ["hippo", "plain"]


def test_processes_share_the_samples_and_their_results_are_one(run: Run, tmp_path: Path) -> None:
    alone = run("alone")
    run("shared", share=Share(1, 2))
    assert not complete(tmp_path / "shared", len(SAMPLES))
    assert list(read_all(tmp_path / "shared")) == [1, 3, 5]
    rows = run("shared", share=Share(0, 2))
    assert untimed(list(rows.values())) == untimed(list(alone.values()))
    assert evaluation.wait_for_others(tmp_path / "shared", len(SAMPLES), Share(0, 2))


def test_results_elsewhere_are_not_waited_for(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "LATE", 0.05)
    run(share=Share(0, 2))
    assert not evaluation.wait_for_others(tmp_path / "out", len(SAMPLES), Share(0, 2), pause=0.01)


@pytest.mark.parametrize("options", [{"max_new_tokens": 0}, {"fps": 1.0, "num_frames": 2}])
def test_settings_that_mean_nothing(options: dict[str, Any]) -> None:
    with pytest.raises(HippoError):
        Settings(**options)
