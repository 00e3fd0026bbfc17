"""``hippo eval``: a whole evaluation of the embedded pair, and one line for what it refuses."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

import hippo_jax as hj
from hippo_jax.cli import main as program
from hippo_jax.scheduling.processes import run_roles
from hippo_jax.training.codec import write_clip
from hippo_jax.training.domain import HELD_OUT, sample_scene
from hippo_jax.training.language import caption
from hippo_jax.training.render import render
from hippo_jax.training.samples import SAMPLE_SEED

HIPPO = (sys.executable, "-m", "hippo_jax.cli.main", "eval")
TIMES = ("seconds", "tokens_per_second", "plain_tokens_per_second", "speedup", "speedup_interval")


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path_factory.mktemp("xla")))
        yield


def run(*words: object) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = program.main(["eval", *map(str, words)])
    return status, out.getvalue(), err.getvalue()


def untimed(value: object) -> object:
    if isinstance(value, dict):
        return {key: untimed(one) for key, one in value.items() if key not in TIMES}
    return [untimed(one) for one in value] if isinstance(value, list) else value


def lines(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A caption, a question and a video that is not there."""
    file = tmp_path_factory.mktemp("mine") / "mine.jsonl"
    clip = str(hj.clip())
    samples = [
        {"id": "caption", "video": clip, "prompt": "Describe the video."},
        {
            "id": "question",
            "video": clip,
            "prompt": "What?",  # a prompt of the caption's size class, which compiles once
            "options": ["a bar", "a ring"],
            "answer": "A",
        },
        {"id": "missing", "video": "none.mp4", "prompt": "Describe the video."},
    ]
    file.write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    return file


def test_samples_of_ones_own_from_beginning_to_end(mine: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = (mine, "--out", out, "--instruction", "Say.", "--no-baseline", "--max-new-tokens")
    status, said, progress = run(*words, 8, "--json")
    assert status == 0, progress
    summary = json.loads(said)
    assert summary == json.loads((out / "summary.json").read_text())
    assert (summary["samples"], len(summary["errors"])) == (3, 1)
    assert summary["speed"]["samples"] == 1 and summary["speed"]["tokens"] == 8
    assert summary["quality"]["all"]["questions"] == 1
    assert "3 of 3 samples" in progress
    rows = {row["id"]: row for row in lines(out / "results.0-of-1.jsonl")}
    assert rows["missing"]["error"].endswith("none.mp4 does not exist; check the path")
    truth = caption(sample_scene(SAMPLE_SEED, 0, HELD_OUT)).answer
    assert len(rows["caption"]["text"]) > 20 and truth.startswith(rows["caption"]["text"])
    assert rows["caption"]["plain"] is None and rows["question"]["answer"] == "A"

    # Again: nothing is left to do.
    before = (out / "results.0-of-1.jsonl").read_bytes()
    status, table, progress = run(*words, 8)
    assert status == 0 and "3 of 3 samples (3 of them earlier)" in progress
    assert (out / "results.0-of-1.jsonl").read_bytes() == before
    assert table == (out / "summary.md").read_text() and "| caption" not in table
    status, said, progress = run(*words, 9)
    assert (status, said) == (2, "")
    assert "settings.max_new_tokens was 8 and is now 9; choose another --out" in progress
    # Summing up needs no pair.
    assert run("--merge", "--out", out)[1] == table
    (out / "results.0-of-1.jsonl").write_bytes(b"\n".join(before.split(b"\n")[:2]) + b"\n")
    status, _, progress = run("--merge", "--out", out)
    assert status == 2 and "has 2 of 3 samples" in progress


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("mlvu",), "say where mlvu lies: --data DIR"),
        (("sports", "--data", "."), "there is no benchmark 'sports'; benchmarks: longvideobench"),
        (("mlvu", "--data", "none"), "there is no file or folder none"),
        (("none.jsonl",), "none.jsonl cannot be read"),
        (("x.jsonl", "--data", "."), "takes no --data"),
        (("x.jsonl", "--videos", "none"), "there is no folder none"),
        (("--fps", "-1"), "fps is -1.0; give a positive number"),
        (("demo", "--videos", "."), "demo draws its own clips"),
        (("demo", "--ask", "both"), "demo has captions only"),
        (("--pair", "demo", "--target", "x"), "give --pair, or --target and --draft, not both"),
        (("--target", "x"), "give both --target and --draft"),
        (("--devices", "2", "--replicas", "2"), "give one of them"),
        (("--devices", "two"), "--devices two: give one number from 1 on, or two"),
        (("--fps", "1", "--num-frames", "2"), "give --fps or --num-frames, not both"),
        (("--gamma", "200"), "--gamma 200 is above 128"),
        (("--keep-ratio", "2"), "keep_ratio must be above 0 and at most 1"),
        (("--merge", "--out", "none"), "none has no manifest.json: it is no evaluation"),
        (("--part", "2/2"), "'2/2' is no part; the first of two is 0/2"),
        (("--limit", "0"), "'0' is no whole number from 1 on"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_loaded(
    words: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("hippo_jax.placement.pair.load_pair", None)
    status, out, err = run(*words)
    assert (status, out) == (2, "")
    assert said in err and len(err.strip().splitlines()[-1]) < 400
    assert not list(tmp_path.iterdir())


def child(*words: str) -> list[str]:
    return [*HIPPO, *words]


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on_and_sums_up_the_same(tmp_path: Path) -> None:
    words = ("demo", "--limit", "6", "--max-new-tokens", "24")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    subprocess.run(child(*words, "--out", str(whole)), check=True, capture_output=True)
    file = broken / "results.0-of-1.jsonl"
    for wanted in (1, 4):
        with subprocess.Popen(
            child(*words, "--out", str(broken)), stderr=subprocess.DEVNULL
        ) as run:
            deadline = time.monotonic() + 300
            while not (file.exists() and file.read_bytes().count(b"\n") >= wanted):
                assert run.poll() is None and time.monotonic() < deadline
                time.sleep(0.01)
            run.send_signal(signal.SIGKILL)
    written = file.read_bytes().count(b"\n")
    assert 4 <= written < 6
    done = subprocess.run(child(*words, "--out", str(broken)), capture_output=True, text=True)
    assert done.returncode == 0 and f"({written} of them earlier)" in done.stderr
    assert [row["index"] for row in lines(file)] == list(range(6))
    known, found = (json.loads((out / "summary.json").read_text()) for out in (whole, broken))
    assert untimed(found) == untimed(known)
    assert known["check"] == {"compared": 6, "equal": 6, "first": None}
    assert known["speed"]["speedup"] > 0 and known["speed"]["speedup_interval"]


@pytest.mark.slow
def test_two_processes_share_a_benchmark(tmp_path: Path) -> None:
    words = ("demo", "--limit", "5", "--max-new-tokens", "24", "--no-baseline", "--check")
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    # The clips are there already: two processes that draw them are another matter.
    subprocess.run(child(*words, "--out", str(alone)), check=True, capture_output=True)
    both = child(*words, "--out", str(shared), "--json")
    command = ["env", "JAX_NUM_CPU_DEVICES=1", "XLA_FLAGS=", *both]
    found = run_roles({"first": command, "second": command}, timeout=600)
    assert [len(lines(shared / f"results.{i}-of-2.jsonl")) for i in range(2)] == [3, 2]
    summary = json.loads(found["first"].stdout)
    assert found["second"].stdout == ""
    known = json.loads((alone / "summary.json").read_text())
    assert summary["manifest"].pop("processes") == 2 and known["manifest"].pop("processes") == 1
    assert untimed(summary) == untimed(known)


@pytest.mark.slow
def test_parts_by_themselves_and_replicas(tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    words = ("demo", "--limit", "5", "--max-new-tokens", "24", "--replicas", "2", "--out", out)
    environment = {**os.environ, "XLA_FLAGS": ""}
    for part in ("1/2", "0/2"):
        done = subprocess.run(
            child(*words, "--part", part), capture_output=True, text=True, env=environment
        )
        assert done.returncode == 0, done.stderr
        assert ("the last one to end sums up" in done.stderr) == (part == "1/2")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["check"] == {"compared": 5, "equal": 5, "first": None}
    assert summary["manifest"]["settings"]["replicas"] == 2


@pytest.mark.slow
def test_a_pair_over_several_devices_gives_the_same_and_goes_on(tmp_path: Path) -> None:
    words = ("demo", "--limit", 2, "--max-new-tokens", 24, "--check", "--json")
    found = {}
    for name, devices in {"one": (), "split": ("2",), "apart": ("2", "1")}.items():
        own = ("--devices", *devices) if devices else ()
        status, said, err = run(*words, "--out", tmp_path / name, *own)
        assert status == 0, err
        summary = json.loads(said)
        assert summary["check"] == {"compared": 2, "equal": 2, "first": None}
        assert summary["speed"]["speedup"] > 0
        settings = summary["manifest"]["settings"]
        found[name] = settings["devices"], settings["config"]["schedule"]
        rows = lines(tmp_path / name / "results.0-of-1.jsonl")
        assert [row["tokens"] for row in rows] == [
            row["tokens"] for row in lines(tmp_path / "one" / "results.0-of-1.jsonl")
        ]
    assert found == {
        "one": (None, "sequential"),
        "split": ([2], "sequential"),
        "apart": ([2, 1], "parallel"),
    }
    file = tmp_path / "apart" / "results.0-of-1.jsonl"
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:1]))
    # Times depend on the devices, so lines of others are not mixed with them.
    status, _, err = run(*words, "--schedule", "parallel", "--out", file.parent, "--devices", 2)
    assert status == 2 and "settings.devices was [2, 1] and is now [2]" in err
    status, _, err = run(*words, "--out", file.parent, "--devices", "2+1")
    assert status == 0 and "2 of 2 samples (1 of them earlier)" in err
    assert "target over 2 devices, draft over 1 more" in (file.parent / "summary.md").read_text()


@pytest.mark.slow
def test_a_published_layout_with_clips_of_our_own(tmp_path: Path) -> None:
    """MVBench: a whole clip, a part of one, and a part of a folder of frames."""
    frames = render(sample_scene(1, 0, HELD_OUT))[0]
    video = tmp_path / "video"
    clips = (video / "star" / "Charades_v1_480", video / "clevrer" / "video_validation")
    for clip_folder in clips:
        clip_folder.mkdir(parents=True)
        write_clip(clip_folder / "a.mp4", frames)
    folder = video / "tvqa" / "frames_fps3_hq" / "a"
    folder.mkdir(parents=True)
    for number, frame in enumerate(frames, 1):
        Image.fromarray(frame).save(folder / f"{number:05d}.jpg")
    record = {"question": "What?", "candidates": ["a bar", "a ring"], "answer": "a ring"}
    (tmp_path / "json").mkdir()
    for task, name in (
        ("action_sequence", "a.mp4"),
        ("moving_count", "a.mp4"),
        ("episodic_reasoning", "a"),
    ):
        value = [{"video": name, "start": 0.0, "end": 1.0, **record}]
        (tmp_path / "json" / f"{task}.json").write_text(json.dumps(value))
    words = ("--num-frames", 2, "--max-new-tokens", 4, "--no-baseline", "--json")
    status, said, err = run("mvbench", "--data", tmp_path, "--out", tmp_path / "out", *words)
    assert status == 0, err
    summary = json.loads(said)
    assert summary["errors"] == [] and summary["samples"] == 6
    assert set(summary["quality"]["tasks"]) == {
        "action_sequence",
        "moving_count",
        "episodic_reasoning",
    }
    assert summary["speed"]["samples"] == 3
    assert (tmp_path / "out" / "summary.png").is_file()
