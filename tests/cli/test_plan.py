"""`hippo plan`: what it prints, and one line for what it cannot plan."""

import json

import huggingface_hub
import pytest

from hippo_jax.architectures.published import published_config
from hippo_jax.cli.main import main
from hippo_jax.cli.plan import parse_size
from hippo_jax.placement.memory import weight_bytes
from hippo_jax.resources import checkpoint_directory

DEMO = {role: str(checkpoint_directory("demo", role)) for role in ("target", "draft")}


def found(capsys, *arguments: str) -> dict:
    assert main(["plan", "--json", *arguments]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_pair_by_name(capsys) -> None:
    plan = found(
        capsys,
        *("--target", "qwen2.5-vl-7b", "--draft", "qwen2.5-vl-3b", "--memory", "16GB"),
        *("--devices", "2+1"),
    )
    whole = weight_bytes(published_config("qwen2.5-vl-7b"), "bfloat16", None)
    assert 0.5 * whole < plan["roles"]["target"]["weights"] < 0.51 * whole
    assert plan["roles"]["draft"]["weights"] == 2 * 3754622976
    assert plan["memory"] == 16 * 10**9
    assert (plan["verdict"], len(plan["peak_per_device"])) == ("fits", 2)
    one = found(capsys, "--target", "qwen2.5-vl-7b", "--memory", "16GB")
    assert one["verdict"] == "does not fit" and list(one["roles"]) == ["target"]


def test_directories_on_this_machine(capsys) -> None:
    pair = ("--target", DEMO["target"], "--draft", DEMO["draft"], "--size", "112x112")
    small, large = (found(capsys, *pair, "--frames", frames) for frames in ("4", "16"))
    assert small["verdict"] == "fits"
    assert small["visual_tokens"] * 4 == large["visual_tokens"]
    assert small["inputs"] < large["inputs"] and small["most"] < large["most"]
    weights = small["roles"]["target"]["weights"]
    assert found(capsys, *pair, "--dtype", "bfloat16")["roles"]["target"]["weights"] * 2 == weights
    assert main(["plan", *pair, "--frames", "4"]) == 0
    said = capsys.readouterr().out
    assert "fits: all devices share" in said
    assert f"{small['visual_tokens']} visual tokens" in said
    assert len({line.split()[0] for line in said.splitlines()[:3]}) == 3


def test_every_option_counts(capsys) -> None:
    base = ("--target", "internvl3-8b", "--draft", "internvl3-1b", "--memory", "80GiB")
    plain = found(capsys, *base)
    for option in (
        ("--frames", "64"),
        ("--visual-tokens", "16000"),
        ("--text-tokens", "4000"),
        ("--new-tokens", "4000"),
        ("--batch", "2"),
        ("--keep-ratio", "0.9"),
        ("--gamma", "60"),
        ("--dtype", "float32"),
        ("--devices", "2"),
        ("--devices", "2", "--placement", "meshes"),
        ("--devices", "2", "--placement", "program"),
        ("--platform", "cpu"),
        ("--memory", "9GB"),
        ("--int8", "draft"),
        ("--int8", "target"),
    ):
        assert found(capsys, *base, *option) != plain, option


def test_int8_weights(capsys) -> None:
    """Smaller weights of the models that were named, and all else alike."""
    base = ("--target", "internvl3-8b", "--draft", "internvl3-1b", "--memory", "80GiB")
    plain = found(capsys, *base)
    for which, roles in (("draft", ["draft"]), ("both", ["target", "draft"])):
        small = found(capsys, *base, "--int8", which)
        for role, own in plain["roles"].items():
            expected = own["weights"]
            if role in roles:
                config = published_config({"target": "internvl3-8b", "draft": "internvl3-1b"}[role])
                expected = weight_bytes(config, "bfloat16", None, "int8")
                assert expected < 0.8 * own["weights"]
            assert small["roles"][role] == {**own, "weights": expected}


def test_which_published_pair_fits(capsys) -> None:
    pairs = found(capsys, "--memory", "16GB")["pairs"]
    assert len(pairs) >= 30
    assert [pair["most"] for pair in pairs] == sorted(pair["most"] for pair in pairs)
    verdicts = {(pair["target"], pair["draft"]): pair["verdict"] for pair in pairs}
    assert verdicts["internvl3-2b", "internvl3-1b"] == "fits"
    assert verdicts["qwen2.5-vl-7b", "qwen2.5-vl-3b"] == "does not fit"
    assert main(["plan", "--memory", "16GB"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(pairs) + 2
    assert lines[1].split()[:2] == ["internvl3-2b", "internvl3-1b"]
    assert lines[1].endswith("fits") and "a device has 14.90 GiB" in lines[-1]
    assert "XLA_PYTHON_CLIENT_MEM_FRACTION" in lines[-1]


def test_what_jax_takes_of_a_gpu_is_said(capsys) -> None:
    """Where the verdict stands, with the variable that changes it; of other devices nothing."""
    for platform, count in (("gpu", 1), ("tpu", 0), ("cpu", 0)):
        asked = ("--target", "internvl3-1b", "--memory", "16GB", "--platform", platform)
        assert main(["plan", *asked]) == 0
        last = capsys.readouterr().out.splitlines()[-1]
        assert "a device has 14.90 GiB" in last
        assert last.count("75 % of a GPU's memory; XLA_PYTHON_CLIENT_MEM_FRACTION=0.95") == count


def test_of_the_hub_only_small_files_are_asked_for(capsys, tmp_path, monkeypatch) -> None:
    asked = []

    def snapshot(name, *, allow_patterns, **options):
        asked.extend(allow_patterns)
        return DEMO["draft"]

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert found(capsys, "--target", "some/model", "--size", "64x64")["visual_tokens"]
    assert asked and not any("safetensors" in pattern for pattern in asked)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--target", "qwen2.5-vl-7b", "--int8", "draft"], "--int8 draft is about a draft"),
        (["--target", "qwen9"], "neither a directory nor a published size"),
        (["--target", ""], "a source is empty"),
        (["--target", "./nowhere"], "no such directory"),
        (["--draft", "qwen2.5-vl-3b"], "--draft needs --target"),
        (["--target", "qwen2.5-vl-7b", "--draft", "qwen2-vl-2b"], "do not fit: family"),
        (["--memory", "much"], "write a size as 16GB"),
        (["--memory", "0GB"], "write a size as 16GB"),
        (["--devices", "two"], "write a number, or two as 3+1"),
        (["--devices", "0"], "at least 1"),
        (["--devices", "3+1", "--placement", "shared"], "split over all of them"),
        (["--placement", "meshes"], "needs devices for each model"),
        (["--size", "wide"], "write height and width"),
        (["--size", "4x4", "--visual-tokens", "9"], "not both"),
        (["--frames", "-3"], "frames must be at least 0"),
        (["--keep-ratio", "2"], "keep_ratio must be above 0"),
        (["--gamma", "0"], "gamma must be at least 1"),
        (["--platform", "tpu"], "this machine has no tpu"),
        (["--target", "llava-onevision-7b", "--frames", "900"], "that the model allows"),
    ],
)
def test_what_cannot_be_planned_is_one_line(capsys, arguments, said) -> None:
    assert main(["plan", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("hippo: error: ") and err.count("\n") == 1
    assert said in err


def test_sizes_in_words() -> None:
    for text, size in (("16GB", 16 * 10**9), ("1.5 GiB", 3 * 2**29), ("80g", 80 * 10**9)):
        assert parse_size(text) == size
    assert (parse_size("7"), parse_size("2KiB"), parse_size("1TiB")) == (7, 2048, 2**40)
