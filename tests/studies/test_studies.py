"""`hippo study NAME` on a tiny random pair: what is printed, written, and refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import pairs

from hippo_jax.architectures.published import published_config
from hippo_jax.benchmark import acceptance
from hippo_jax.benchmark.acceptance import Setting
from hippo_jax.cli import compilation_cache
from hippo_jax.cli import study as command
from hippo_jax.cli.main import main
from hippo_jax.decoding.generate import generate
from hippo_jax.inputs.model_inputs import ModelInputs
from hippo_jax.placement import pair as placement
from hippo_jax.placement.memory import Memory
from hippo_jax.placement.pair import ModelPair
from hippo_jax.placement.plan_memory import plan_memory
from hippo_jax.scoring.picture import Frame
from hippo_jax.studies import (
    ablation,
    batch,
    gamma,
    keep_ratio,
    material,
    memory,
    position_bias,
    unfinished,
)
from hippo_jax.studies.fit import KINDS, Candidate, decoder_bytes
from hippo_jax.studies.study import read_csv
from hippo_jax.training import report
from hippo_jax.weights.journal import Journal

NEW_TOKENS = 8


@pytest.fixture(scope="module")
def pair() -> ModelPair:
    weights = pairs.weights(1)
    return ModelPair(pairs.build(weights), pairs.build(pairs.noisy(weights, 0.05, 2)))


@pytest.fixture
def tiny(pair: ModelPair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command with a tiny pair, prompts and answers; clip i is random prompt i."""

    def prepared(models, videos, prompts) -> ModelInputs:
        rng = np.random.default_rng(int(videos[0].name))
        return pairs.prompts(rng, len(videos))

    def clips(folder: Path, count: int):
        return tuple(Path(str(i)) for i in range(count)), ("say",) * count

    for module in (acceptance, keep_ratio, gamma, batch, position_bias, memory):
        monkeypatch.setattr(module, "NEW_TOKENS", NEW_TOKENS)
    for module in (acceptance, material):
        monkeypatch.setattr(module, "prepare_inputs", prepared)
    monkeypatch.setattr(report, "card_clips", clips)
    monkeypatch.setattr(placement, "load_pair", lambda *_, **__: pair)
    monkeypatch.setattr(unfinished, "identity", lambda model: "tiny")
    monkeypatch.setattr(compilation_cache, "enable_compilation_cache", lambda: None)
    frames = [Frame(f"unit {i}", np.zeros((8, 8, 3), np.uint8), 4 * i, (2, 2)) for i in range(2)]
    monkeypatch.setattr(position_bias, "seen_frames", lambda *_: frames)


def studied(capsys, folder: Path, name: str, *options: str) -> list[dict]:
    """Rows as printed, which are those that were written."""
    assert main(["study", name, "--out", str(folder / "out"), "--json", *options]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["study"] == name
    written = read_csv(folder / "out" / f"{name}.csv")
    told = {"title": found["title"], "hardware": written[0]["hardware"]}
    assert len(written) == len(found["rows"])
    for row, line in zip(found["rows"], written, strict=True):
        known = {key: value for key, value in {**row, **told}.items() if value is not None}
        assert {key: value for key, value in line.items() if value is not None} == known
    with Image.open(folder / "out" / f"{name}.png") as image:
        assert image.width == 1280 and image.height > 300
    return found["rows"]


def test_position_bias(tiny, tmp_path: Path, capsys) -> None:
    rows = studied(capsys, tmp_path, "position-bias", "--clips", "1", "--keep-ratio", "0.5")
    assert [row["score"] for row in rows] == list(position_bias.WAYS)
    # Frames of 2 x 2 tokens are all border.
    assert {(row["border_share"], row["all_share"]) for row in rows} == {(100.0, 100.0)}


@pytest.mark.slow
def test_ablation(tiny, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    some = {name: ablation.CHOICES[name] for name in (ablation.WHOLE, "uniform")}
    monkeypatch.setattr(ablation, "CHOICES", some)
    monkeypatch.setattr(acceptance, "SCHEDULES", ("parallel",))
    whole, other = studied(
        capsys, tmp_path, "ablation", "--clips", "1", "--keep-ratio", "0.5", "--gamma", "2"
    )
    assert whole["acceptance_difference"] == whole["mat_difference"] == 0
    assert other["acceptance_difference"] == pytest.approx(
        other["acceptance"] - whole["acceptance"]
    )
    assert other["tokens_per_round_difference"] == pytest.approx(
        other["tokens_per_round"] - whole["tokens_per_round"]
    )


def test_the_ablation_has_every_combination() -> None:
    weights = {choice.weights for choice in ablation.CHOICES.values() if choice == own(choice)}
    assert len(weights) == 7 and (0, 0, 0) not in weights
    others = {choice.selector for choice in ablation.CHOICES.values()} - {"holistic"}
    assert others == {"uniform", "random", "draft", "specvlm"}


def test_the_ablation_s_differences_are_to_the_whole() -> None:
    def figures(rate: float | None, mat: float | None, tokens: float) -> dict:
        found = {"acceptance_rate": rate, "acceptance_error": 0.01, "mat": mat}
        return {**found, "tokens_per_round": tokens}

    whole = {"name": "holistic", "parallel": figures(0.9, 8.0, 4.0)}
    part = {"name": "spatial", "parallel": figures(0.7, 3.0, 2.5), "sequential": {"mat": 2.0}}
    part |= {"minus_holistic": -0.2, "minus_holistic_error": 0.05}
    found = ablation._row(part, whole)
    assert found["acceptance"] == pytest.approx(70) and found["acceptance_error"] == 1
    assert (found["acceptance_difference"], found["acceptance_difference_error"]) == (-20, 5)
    assert (found["mat_difference"], found["tokens_per_round_difference"]) == (-5, -1.5)
    assert found["sequential_mat"] == 2.0
    assert ablation._row(whole, whole)["acceptance_difference"] == 0
    unheard = ablation._row({**part, "parallel": figures(None, None, 1.0)}, whole)
    assert unheard["acceptance"] is unheard["mat_difference"] is None


def own(choice):
    """The same weights under the paper's selector."""
    return replace(choice, selector="holistic")


@pytest.mark.slow
def test_keep_ratio(tiny, tmp_path: Path, capsys) -> None:
    options = ("--clips", "1", "--values", "0.5", "--gamma", "2", "--repeats", "1")
    plain, half = studied(capsys, tmp_path, "keep-ratio", *options)
    assert plain["keep_ratio"] == "target alone" and plain["whole_speedup"] == 1
    assert (half["keep_ratio"], half["kept_visual_tokens"]) == (0.5, 4)
    assert half["whole_speedup"] == pytest.approx(plain["whole_s"] / half["whole_s"])
    assert 1 <= half["tokens_per_round"] <= 3 and half["mat"] <= 2


@pytest.mark.slow
def test_gamma(tiny, tmp_path: Path, capsys) -> None:
    options = ("--clips", "2", "--values", "1,2", "--keep-ratio", "0.5", "--repeats", "1")
    plain, *rows = studied(capsys, tmp_path, "gamma", *options)
    assert [(row["schedule"], row["gamma"]) for row in rows] == [
        (schedule, gamma) for schedule in ("sequential", "parallel") for gamma in (1, 2)
    ]
    for row in rows:
        assert 0 < row["modelled_own_devices_s"] <= row["modelled_one_device_s"]
        assert row["modelled_own_devices_speedup"] == pytest.approx(
            plain["modelled_one_device_s"] / row["modelled_own_devices_s"]
        )
    at_two = {row["schedule"]: row for row in rows if row["gamma"] == 2}
    # Without an exchange only the prefill of a sequential answer gains by devices of its own.
    turns, apart = (
        at_two["sequential"][f"modelled_{where}_ms_per_token"]
        for where in ("one_device", "own_devices")
    )
    assert turns == pytest.approx(apart)


@pytest.mark.slow
def test_batch(tiny, tmp_path: Path, capsys) -> None:
    options = ("--clips", "3", "--values", "1,2", "--keep-ratio", "0.5", "--repeats", "1")
    one, two = studied(capsys, tmp_path, "batch", *options)
    assert (one["batch"], one["plain_waiting"], one["hippo_waiting"]) == (1, 0, 0)
    assert two["tokens_per_round_waiting"] == pytest.approx(
        two["tokens_per_round"] * (1 - two["hippo_waiting"] / 100)
    )
    assert two["whole_speedup"] == pytest.approx(
        two["hippo_tokens_per_s"] / two["plain_tokens_per_s"]
    )


def test_memory(tiny, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "PUBLISHED", (("internvl3-2b", "internvl3-1b"),))
    rows = studied(capsys, tmp_path, "memory", "--clips", "1", "--values", "5GB,8GB,80GB")
    named = [row for row in rows if row["pair"] == "internvl3-2b + 1b"]
    published, small = ([row for row in named if row["weights"] == kind] for kind in memory.SMALL)
    frames = [row["modelled_frames"] for row in published]
    assert frames[0] == 0 < frames[1] < frames[2]
    assert [row["limited_by"] for row in published] == ["memory", "memory", "the model"]
    assert published[0]["modelled_speedup"] is None
    # The target reads the whole video in every step, its draft a tenth.
    assert published[1]["modelled_speedup"] < published[2]["modelled_speedup"]
    assert small[0]["modelled_frames"] > 0  # int8 kernels make room
    assert small[0]["weights_gib"] < 0.7 * published[0]["weights_gib"]
    assert {row["weights"] for row in rows if row["pair"] == "demo"} == set(KINDS)


def test_the_longest_video_is_the_last_that_fits() -> None:
    configs = published_config("internvl3-2b"), published_config("internvl3-1b")
    candidate = Candidate("pair", *configs, "bfloat16", (448, 448), 0.1)
    frames, limit = candidate.longest(8 * 10**9)
    assert limit == "memory"
    fits = [candidate.plan(count, 8 * 10**9).verdict for count in (frames, frames + 1)]
    assert fits[0] != "does not fit" == fits[1]
    assert candidate.longest(8 * 10**9, draft=False)[0] > frames
    assert candidate.longest(10**9) == (0, "memory")


def test_a_step_reads_the_decoder_and_not_the_tower() -> None:
    config = published_config("qwen2.5-vl-7b")
    # 7.07 billion in the decoder, of the 8.29 in all; 0.54 each are embeddings and head.
    whole, small = (decoder_bytes(config, kind) for kind in memory.SMALL)
    assert whole == pytest.approx(2 * 7.07e9, rel=0.01)
    assert small == pytest.approx(7.07e9 + 0.545e9, rel=0.01)
    plan = plan_memory(config, memory=Memory(10**12))
    assert whole < plan.roles[0].weights


COUNTED = {"acceptance", "mat", "tokens_per_round", "kept_visual_tokens", "hippo_waiting"}


@pytest.mark.parametrize(
    ("name", "options", "parts"),
    [
        ("position-bias", ["--keep-ratio", "0.5"], 2),
        pytest.param("memory", ["--values", "1GB"], 2, marks=pytest.mark.slow),
        pytest.param("ablation", ["--gamma", "2"], 2, marks=pytest.mark.slow),
        pytest.param(
            "keep-ratio", ["--values", "0.5", "--repeats", "3"], 3, marks=pytest.mark.slow
        ),
        pytest.param("gamma", ["--values", "2", "--repeats", "2"], 2, marks=pytest.mark.slow),
        pytest.param("batch", ["--values", "1,2", "--repeats", "2"], 2, marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_study_does_what_is_missing(
    tiny, name, options, parts, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "BATCH", 1)
    monkeypatch.setattr(memory, "PUBLISHED", ())
    monkeypatch.setattr(acceptance, "SCHEDULES", ("parallel",))
    some = {choice: ablation.CHOICES[choice] for choice in (ablation.WHOLE, "uniform")}
    monkeypatch.setattr(ablation, "CHOICES", some)
    append, written = Journal.append, []

    def one_part(self, value) -> None:
        append(self, value)
        written.append(value)
        if len(written) == 2:  # the settings and a part
            raise KeyboardInterrupt

    words = ["study", name, "--clips", "2", *options]
    out = tmp_path / "out"
    monkeypatch.setattr(Journal, "append", one_part)
    assert main([*words, "--out", str(out)]) == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == [f"{name}.partial.jsonl"]
    other = ["--border", "2"] if name == "position-bias" else ["--clips", "3"]
    assert main([*words, *other, "--out", str(out)]) == 2
    assert "unfinished study with other settings" in capsys.readouterr().err
    rows = studied(capsys, tmp_path, name, "--clips", "2", *options)
    assert len(written) == 1 + parts
    assert {path.suffix for path in out.iterdir()} == {".csv", ".png"}
    unbroken = studied(capsys, tmp_path / "whole", name, "--clips", "2", *options)
    counted = [
        {key: row[key] for key in row if key in COUNTED or name in ("position-bias", "memory")}
        for row in (*rows, *unbroken)
    ]
    assert counted[: len(rows)] == counted[len(rows) :] and any(counted)


@pytest.mark.parametrize("name", ["position-bias", "ablation", "memory"])
def test_a_lossy_answer_is_an_error(tiny, name, tmp_path, capsys, monkeypatch) -> None:
    def misheard(self, pair, inputs, gamma, schedule):
        out = generate(pair.target, inputs, max_new_tokens=NEW_TOKENS)
        return replace(out, tokens=out.tokens.at[0, 3].add(1))

    monkeypatch.setattr(Setting, "decode", misheard)
    assert main(["study", name, "--clips", "1", "--out", str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert said.out == "" and "not the target's own tokens" in said.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["gamma", "--gamma", "3"], "--gamma goes with"),
        (["keep-ratio", "--keep-ratio", "0.1"], "--keep-ratio goes with"),
        (["keep-ratio", "--values", "1,0"], "shares above 0 and at most 1"),
        (["gamma", "--values", "1,two"], "whole numbers of at least 1"),
        (["gamma", "--values", "1.5"], "whole numbers of at least 1"),
        (["batch", "--values", "8,8"], "each value once"),
        (["memory", "--values", "big"], "--values 'big': memory takes sizes"),
        (["ablation", "--values", "1"], "--values goes with"),
        (["ablation", "--repeats", "3"], "--repeats goes with"),
        (["batch", "--schedule", "parallel"], "--schedule goes with keep-ratio, not batch"),
        (["ablation", "--border", "2"], "--border goes with position-bias"),
        (["position-bias", "--border", "0"], "--border 0"),
        (["ablation", "--clips", "0"], "--clips 0"),
        (["ablation", "--keep-ratio", "nan"], "above 0 and at most 1"),
        (["ablation", "--pair", "demo", "--target", "x", "--draft", "y"], "not both"),
        (["ablation", "--target", "x"], "both --target and --draft"),
        (["ablation", "--target", "x", "--draft", "y"], "give --videos"),
        (["ablation", "--videos", "nowhere.mp4"], "no file or folder 'nowhere.mp4'"),
        (["ablation", "--videos", "x.mp4", "--clips", "3"], "--clips counts drawn clips"),
        (["ablation", "--out", __file__], "cannot be a folder"),
    ],
)
def test_bad_arguments_are_one_line(options: list[str], says: str, capsys, monkeypatch) -> None:
    monkeypatch.setattr(placement, "load_pair", lambda *_, **__: pytest.fail("loaded a pair"))
    assert main(["study", *options]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and says in err


def test_a_batch_needs_as_many_clips(tiny, tmp_path: Path, capsys) -> None:
    assert main(["study", "batch", "--clips", "2", "--out", str(tmp_path)]) == 2
    assert "a batch of 8 rows" in capsys.readouterr().err


def test_an_unknown_study_names_those_there_are(capsys) -> None:
    assert main(["study", "colours"]) == 2
    said = capsys.readouterr().err
    assert all(name in said for name in command.STUDIES)


@pytest.mark.slow
def test_the_embedded_pair(tmp_path: Path, capsys) -> None:
    """Drawn clips, real frames, and the tokens that decoding itself keeps."""
    rows = studied(capsys, tmp_path, "position-bias", "--clips", "2")
    assert {round(row["all_share"], 3) for row in rows} == {round(100 * 32 / 81, 3)}
    assert all(0 < row["border_share"] < 100 for row in rows)
