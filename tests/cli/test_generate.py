"""``hippo generate``: what it prints, and one clear line for what it cannot do.

Compiled programs are kept for the module, so runs of one kind compile once.
"""

import contextlib
import functools
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import hippo_jax as hj
from hippo_jax import resources
from hippo_jax.cli import decode, generate
from hippo_jax.cli import main as program
from hippo_jax.scoring.picture import token_picture
from hippo_jax.training.domain import HELD_OUT, sample_scene
from hippo_jax.training.samples import SAMPLE_SEED
from hippo_jax.training.scoring import score_captions

TARGET = str(resources.checkpoint_directory("demo", "target"))
DRAFT = str(resources.checkpoint_directory("demo", "draft"))
SAMPLED = ("--temperature", "5", "--max-new-tokens", "7")
NOTHING = dict.fromkeys(
    ("rounds", "mat", "mat_with_correction", "tokens_per_round", "acceptance_rate")
)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path_factory.mktemp("xla")))
        yield


def run(*words: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = program.main(["generate", *words])
    return status, out.getvalue(), err.getvalue()


once = functools.cache(run)  # for runs that several tests look at


def found(*words: str) -> dict:
    """The object of ``--json``, which must be JSON to the letter (NaN is not)."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    status, out, err = once(*words, "--json")
    assert (status, err) == (0, "")
    return json.loads(out, parse_constant=refuse)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch):
    """What reaches decoding, which is left out: ``asked(words)`` gives models, inputs, options."""

    class Reached(Exception):
        pass

    def stop(*arguments: object, **options: object) -> None:
        raise Reached(*arguments, options)

    def ask(*words: str) -> tuple:
        monkeypatch.setattr(decode, "decode", stop)
        with pytest.raises(Reached) as reached:
            program.main(["generate", "--debug", *words])
        return reached.value.args

    return ask


def test_without_arguments_the_embedded_pair_describes_the_embedded_clip() -> None:
    status, out, err = once()
    assert status == 0
    score = score_captions([(sample_scene(SAMPLE_SEED, 0, HELD_OUT), out.strip())])
    assert score.accuracy >= 0.8
    assert len(err.splitlines()) == 1
    for part in ("324 visual tokens, 33 of them", "sequential, gamma 5: MAT", "tokens/round"):
        assert part in err


def test_json_prints_one_object_and_nothing_else() -> None:
    answer = found()
    assert list(answer) == [
        "text",
        "tokens",
        "schedule",
        "visual_tokens",
        "kept_visual_tokens",
        "stats",
        "seconds",
        "tokens_per_second",
    ]
    assert list(answer["seconds"]) == ["load", "compile", "prefill", "decode"]
    assert answer["schedule"] == "sequential"
    assert (answer["visual_tokens"], answer["kept_visual_tokens"]) == (324, 33)
    stats = answer["stats"]
    assert list(stats) == list(NOTHING)
    # The first token is the prefill's; the rounds give the rest.
    tokens = stats["rounds"] * stats["tokens_per_round"] + 1
    assert tokens == pytest.approx(len(answer["tokens"]))
    assert stats["mat_with_correction"] == stats["mat"] + 1


def test_the_text_comes_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    answer, printed = found(), once()[1]
    pieces: list[str] = []
    monkeypatch.setattr(generate, "_say", pieces.append)
    assert run()[0] == 0
    assert "".join(pieces) == answer["text"]
    assert printed == answer["text"] + "\n"
    # One from the prefill, one a round, and what was held back.
    assert len(pieces) == answer["stats"]["rounds"] + 2
    assert all(pieces[:-1])


def test_every_schedule_gives_the_target_s_own_tokens() -> None:
    plain = found("--schedule", "autoregressive")
    parallel = found("--schedule", "parallel")
    assert found()["tokens"] == plain["tokens"] == parallel["tokens"]
    assert (plain["schedule"], parallel["schedule"]) == ("autoregressive", "parallel")
    assert (plain["kept_visual_tokens"], parallel["kept_visual_tokens"]) == (324, 33)
    assert plain["stats"] == NOTHING
    assert parallel["stats"]["tokens_per_round"] > 1
    _, out, err = run("--schedule", "autoregressive")
    assert out == plain["text"] + "\n"
    assert "MAT" not in err and "gamma" not in err


def test_a_target_alone_decodes_plainly_and_says_so() -> None:
    status, out, err = run("--target", TARGET)
    notice, summary = err.splitlines()
    assert (status, out) == (0, once()[1])
    assert "no --draft" in notice and "MAT" not in summary


def test_devices_of_their_own_give_the_same_tokens_at_the_same_time() -> None:
    apart = found("--devices", "1", "1")
    assert apart["tokens"] == found()["tokens"]
    assert apart["schedule"] == "parallel" and apart["stats"]["rounds"] > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "schedule"),
    [
        (("2",), "sequential"),
        (("2", "--schedule", "parallel"), "parallel"),
        (("2", "--schedule", "autoregressive"), "autoregressive"),
        (("2", "--target", TARGET), "autoregressive"),
        (("3+1", "--schedule", "sequential"), "sequential"),
        (("2", "1", "--target", TARGET, "--draft", DRAFT, "--int8", "draft"), "parallel"),
    ],
)
def test_the_tokens_are_the_same_over_any_devices(words: tuple[str, ...], schedule: str) -> None:
    answer = json.loads(run("--devices", *words, "--json")[1])
    assert (answer["tokens"], answer["schedule"]) == (found()["tokens"], schedule)


@pytest.mark.slow
def test_on_a_cpu_the_command_asks_for_its_devices() -> None:
    environment = {**os.environ, "XLA_FLAGS": ""}
    command = [sys.executable, "-m", "hippo_jax.cli.main", "generate", "--devices", "2", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["tokens"] == found()["tokens"]


def test_a_seed_gives_the_same_sample_again_from_either_decoder() -> None:
    first = found(*SAMPLED, "--seed", "1")["tokens"]
    again = json.loads(run(*SAMPLED, "--seed", "1", "--json")[1])["tokens"]
    plain = found(*SAMPLED, "--seed", "1", "--schedule", "autoregressive")["tokens"]
    other = found(*SAMPLED, "--seed", "2")["tokens"]
    assert len(first) == 7
    assert first == again == plain != other
    assert found(*SAMPLED)["tokens"] == found(*SAMPLED, "--seed", "0")["tokens"]


def test_what_was_not_counted_is_null() -> None:
    one = ("--temperature", "5", "--max-new-tokens", "1")
    answer = found(*one)
    assert len(answer["tokens"]) == 1
    assert answer["stats"] == {**NOTHING, "rounds": 0}
    assert "no round" in run(*one)[2]


def test_the_picture_shows_what_the_draft_saw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    printed = once()[1]
    seen: list = []
    original = decode.decode

    def watched(models, inputs, **options):
        seen.extend([models, inputs, original(models, inputs, **options)])
        return seen[-1]

    monkeypatch.setattr(decode, "decode", watched)
    path = tmp_path / "seen.png"
    status, out, _ = run("--show-tokens", str(path))
    assert (status, out) == (0, printed)
    models, inputs, answer = seen
    kept = answer.generation.stats.kept_indices
    assert np.count_nonzero(kept >= 0) == 33
    title = "33 of 324 visual tokens kept, selector holistic, keep ratio 0.1"
    expected = token_picture(models, inputs, kept, title=title)
    with Image.open(path) as picture:
        np.testing.assert_array_equal(picture, expected)
    assert list(tmp_path.iterdir()) == [path]


def test_options_reach_decoding(asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.mp4").write_bytes(resources.clip().read_bytes())
    monkeypatch.setenv("HOME", str(tmp_path))
    words = ("--target", TARGET, "--draft", DRAFT, "--schedule", "parallel", "--gamma", "3")
    models, inputs, options = asked("~/mine.mp4", "What?", *words, "--keep-ratio", "0.25")
    assert isinstance(models, hj.ModelPair) and inputs.visual_tokens.tolist() == [324]
    assert options["config"] == hj.HippoConfig(gamma=3, keep_ratio=0.25, schedule="parallel")
    _, _, options = asked("--gamma", "auto", "--top-p", "0.5", "--seed", "4")
    assert options["config"] == hj.HippoConfig(gamma="auto")
    assert (options["sampler"], options["seed"]) == (hj.Sampling(top_p=0.5), 4)
    models, _, options = asked("--schedule", "autoregressive")
    assert isinstance(models, hj.VideoLM) and options["config"] is None


def test_the_models_are_where_devices_says(asked) -> None:
    def places(*words: str) -> tuple:
        models = asked(*words)[0]
        target, draft = models.placement.target, models.placement.draft
        own = [[d.id for d in mesh.devices.flat] for mesh in (target, draft)]
        return *own, models.placement.one_program

    assert places("--devices", "2") == ([0, 1], [0, 1], False)
    assert places("--devices", "2", "1") == ([0, 1], [2], True)
    assert places("--devices", "2+1") == ([0, 1], [2], True)
    assert asked("--devices", "1")[0].placement == hj.Placement()
    alone, _, _ = asked("--target", TARGET, "--devices", "2")
    assert alone.home.size == 2 and alone.home.axis == "tp"


def test_int8_of_each_model(asked) -> None:
    for words, expected in {
        ("--int8", "draft"): (None, "int8"),
        ("--int8", "target"): ("int8", None),
        ("--int8", "both", "--target", TARGET, "--draft", DRAFT): ("int8", "int8"),
        (): (None, None),
    }.items():
        models, _, _ = asked(*words)
        assert (models.target.quantize, models.draft.quantize) == expected
    for words in (("--schedule", "autoregressive"), ("--target", TARGET)):
        model, _, _ = asked(*words, "--int8", "target")
        assert model.quantize == "int8"


def test_a_pair_of_the_zoo_brings_its_own_keep_ratio(
    asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = str(resources.clip())
    data, card = tmp_path / "_data", tmp_path / "_data" / "models" / "demo" / "pair.toml"
    card.parent.mkdir(parents=True)
    card.write_text("[defaults]\nkeep_ratio = 0.5\n")
    (data / "checkpoints").symlink_to(resources.data_root() / "checkpoints")
    monkeypatch.setattr(resources, "_PACKAGE", tmp_path)
    assert asked(clip)[2]["config"].keep_ratio == 0.5
    assert asked(clip, "--keep-ratio", "0.2")[2]["config"].keep_ratio == 0.2
    own = ("--target", TARGET, "--draft", DRAFT)
    assert asked(clip, *own)[2]["config"].keep_ratio == 0.1
    card.write_text("keep_ratio =")
    status, _, err = run(clip)
    assert status == 2 and "pair.toml cannot be read" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere.mp4"], "nowhere.mp4"),
        (["~/nowhere.mp4"], "~/nowhere.mp4"),
        ([""], "VIDEO is empty"),
        ([str(resources.clip()), " "], "PROMPT is empty"),
        (["--fps", "0"], "fps"),
        (["--fps", "2", "--num-frames", "4"], "not both"),
        (["--num-frames", "0"], "num_frames"),
        (["--temperature", "0"], "temperature"),
        (["--top-p", "1.5"], "top_p"),
        (["--seed", "1"], "--seed is of sampling"),
        (["--max-new-tokens", "0"], "at least 1"),
        (["--pair", ""], "pair"),
        (["--pair", "nobody"], "nobody"),
        (["--pair", "demo", "--target", "x"], "not both"),
        (["--pair", "demo", "--draft", "x"], "not both"),
        (["--draft", "x"], "--draft needs --target"),
        (["--gamma", "0"], "gamma"),
        (["--gamma", "33", "--max-new-tokens", "7"], "--gamma 33"),
        (["--keep-ratio", "0"], "keep_ratio"),
        (["--keep-ratio", "nan"], "keep_ratio"),
        (["--keep-ratio", "1.1"], "keep_ratio"),
        (["--target", TARGET, "--schedule", "sequential"], "give --draft"),
        (["--target", TARGET, "--schedule", "parallel"], "give --draft"),
        (["--target", TARGET, "--gamma", "3"], "give --draft"),
        (["--schedule", "autoregressive", "--gamma", "3"], "--gamma"),
        (["--schedule", "autoregressive", "--keep-ratio", "0.1"], "--keep-ratio"),
        (["--schedule", "autoregressive", "--show-tokens", "x.png"], "--show-tokens"),
        (["--schedule", "autoregressive", "--int8", "draft"], "--int8 draft is about a draft"),
        (["--target", TARGET, "--int8", "both"], "or use --int8 target"),
        (["--devices", "0"], "--devices 0: give one number from 1 on, or two"),
        (["--devices", "1", "1", "1"], "give one number from 1 on, or two"),
        (["--devices", "2", "clip.mp4"], "other words come before --devices"),
        (["--target", TARGET, "--devices", "1", "1"], "give one number"),
        (["--show-tokens", "no/such/folder/x.png"], "no/such/folder"),
        (["--show-tokens", "x.mp4"], "must end in"),
    ],
)
def test_what_cannot_be_done_is_one_line_before_any_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    monkeypatch.setattr(generate, "_load", lambda *arguments: pytest.fail("loads models"))
    status, out, err = run(*words)
    assert (status, out) == (2, "")
    assert said in err and len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--target", "nowhere/else"], "nowhere/else"),
        (["--target", TARGET, "--draft", "nowhere/else"], "nowhere/else"),
        (["--start", "9"], "start"),
        (["--devices", "9"], "--devices 9 needs 9 devices and here are 8 (cpu); set XLA_FLAGS"),
        (["--devices", "8", "1"], "--devices 8 1 needs 9 devices"),
        (["--max-new-tokens", "100000"], "max_new_tokens"),
        (["--max-pixels", "10"], "max_pixels"),
    ],
)
def test_what_only_the_models_or_the_video_can_refuse_is_one_line(
    words: list[str], said: str
) -> None:
    status, out, err = run(*words)
    assert (status, out) == (2, "")
    assert said in err and len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [(["--schedule", "sideways"], "sideways"), (["--gamma", "few"], "neither a whole number")],
)
def test_what_is_no_option_exits_with_2(words: list[str], said: str) -> None:
    status, out, err = run(*words)
    assert (status, out) == (2, "")
    assert said in err and "Traceback" not in err


@pytest.mark.parametrize("name", ["empty.mp4", "text.mp4", "short.mp4"])
def test_damaged_videos_are_one_line(tmp_path: Path, name: str) -> None:
    whole = resources.clip().read_bytes()
    content = {"empty.mp4": b"", "text.mp4": b"no video\n" * 99, "short.mp4": whole[:5000]}[name]
    (tmp_path / name).write_bytes(content)
    status, out, err = run(str(tmp_path / name))
    assert (status, out) == (2, "")
    assert name in err and len(err.strip().splitlines()) == 1


def test_placeholder_tokens_in_the_prompt_are_refused() -> None:
    status, _, err = run(str(resources.clip()), "What is <|video_pad|>?")
    assert status == 2 and "<|video_pad|>" in err


def test_a_prompt_longer_than_the_model_allows_is_refused() -> None:
    status, _, err = run(str(resources.clip()), "what " * 20000)
    assert status == 2 and "allows" in err and len(err.splitlines()) == 1
