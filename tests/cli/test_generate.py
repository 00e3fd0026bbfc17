"""``hippo generate``: what it prints, and one clear line for what it cannot do."""

import json
from pathlib import Path

import pytest

from hippo_jax import resources
from hippo_jax.cli import main as program
from hippo_jax.training.domain import HELD_OUT, sample_scene
from hippo_jax.training.samples import SAMPLE_SEED
from hippo_jax.training.scoring import score_captions


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path_factory.mktemp("xla")))
        yield


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = program.main(["generate", *words])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_without_arguments_the_embedded_clip_is_described(capsys) -> None:
    status, out, err = run(capsys)
    assert status == 0
    score = score_captions([(sample_scene(SAMPLE_SEED, 0, HELD_OUT), out.strip())])
    assert score.accuracy >= 0.8
    assert "324 visual tokens" in err


def test_json_prints_one_object_and_nothing_else(capsys) -> None:
    status, out, err = run(capsys, "--json", "--max-new-tokens", "7")
    found = json.loads(out)
    assert (status, err) == (0, "")
    assert list(found) == [
        "text",
        "tokens",
        "schedule",
        "visual_tokens",
        "kept_visual_tokens",
        "stats",
        "seconds",
        "tokens_per_second",
    ]
    assert set(found["seconds"]) == {"load", "compile", "prefill", "decode"}
    assert len(found["tokens"]) == 7 and found["visual_tokens"] == 324


def test_a_seed_gives_the_same_sample_again(capsys) -> None:
    words = ("--temperature", "5", "--json", "--max-new-tokens", "7")
    first = json.loads(run(capsys, *words, "--seed", "1")[1])["tokens"]
    again = json.loads(run(capsys, *words, "--seed", "1")[1])["tokens"]
    other = json.loads(run(capsys, *words, "--seed", "2")[1])["tokens"]
    assert first == again != other


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere.mp4"], "nowhere.mp4"),
        ([""], "VIDEO is empty"),
        (["--pair", ""], "pair"),
        (["--fps", "0"], "fps"),
        (["--fps", "2", "--num-frames", "4"], "not both"),
        (["--num-frames", "0"], "num_frames"),
        (["--start", "9"], "start"),
        (["--temperature", "0"], "temperature"),
        (["--top-p", "1.5"], "top_p"),
        (["--max-new-tokens", "0"], "at least 1"),
        (["--max-new-tokens", "100000"], "max_new_tokens"),
        (["--pair", "nobody"], "nobody"),
        (["--pair", "demo", "--target", "x"], "not both"),
        (["--target", "nowhere/else"], "nowhere/else"),
        (["--max-pixels", "10"], "max_pixels"),
        (["--schedule", "sideways"], "sideways"),
    ],
)
def test_what_cannot_be_done_is_one_line(capsys, words: list[str], said: str) -> None:
    status, out, err = run(capsys, *words)
    assert (status, out) == (2, "")
    assert said in err
    assert "Traceback" not in err


@pytest.mark.parametrize("name", ["empty.mp4", "text.mp4", "short.mp4"])
def test_damaged_videos_are_one_line(capsys, tmp_path: Path, name: str) -> None:
    whole = resources.clip().read_bytes()
    content = {"empty.mp4": b"", "text.mp4": b"no video\n" * 99, "short.mp4": whole[:5000]}[name]
    (tmp_path / name).write_bytes(content)
    status, out, err = run(capsys, str(tmp_path / name))
    assert (status, out) == (2, "")
    assert name in err and len(err.strip().splitlines()) == 1


def test_placeholder_tokens_in_the_prompt_are_refused(capsys) -> None:
    status, _, err = run(capsys, str(resources.clip()), "What is <|video_pad|>?")
    assert status == 2 and "<|video_pad|>" in err


def test_a_prompt_longer_than_the_model_allows_is_refused(capsys) -> None:
    status, _, err = run(capsys, str(resources.clip()), "what " * 20000)
    assert status == 2 and "allows" in err and len(err.splitlines()) == 1
