"""`hippo doctor` on whatever machine the tests run."""

import json
from importlib import metadata

import pytest

from hippo_jax import resources
from hippo_jax.cli import doctor
from hippo_jax.cli.main import main


@pytest.fixture
def complete(tmp_path, monkeypatch: pytest.MonkeyPatch):
    """A data folder with a complete embedded pair."""
    root = tmp_path / "_data"
    (root / "models" / "demo" / "clips").mkdir(parents=True)
    (root / "models" / "demo" / "pair.toml").touch()
    (root / "models" / "demo" / "clips" / "street.mp4").touch()
    for role in ("target", "draft"):
        (root / "checkpoints" / "demo" / role).mkdir(parents=True)
        (root / "checkpoints" / "demo" / role / "w.safetensors").write_bytes(bytes(2048))
    monkeypatch.setattr(resources, "_PACKAGE", tmp_path)
    return root


def report(capsys) -> tuple[int, dict]:
    status = main(["doctor", "--json"])
    return status, json.loads(capsys.readouterr().out)


def test_a_complete_install_is_healthy(complete, capsys) -> None:
    status, found = report(capsys)
    assert (status, found["problems"]) == (0, [])
    assert found["packages"]["jax"] == metadata.version("jax")
    assert found["devices"]
    assert found["video"].startswith("ffmpeg ")
    assert found["pairs"] == {
        "demo": {"weights": {"target": 2048, "draft": 2048}, "clips": ["street"]}
    }


def test_the_report_for_people_says_the_same(complete, capsys) -> None:
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert f"jax                {metadata.version('jax')}" in text
    assert "demo: weights target 2.0 KiB, draft 2.0 KiB; clips street" in text
    assert "problems" not in text


def test_missing_weights_are_a_problem_and_the_rest_still_prints(complete, capsys) -> None:
    (complete / "checkpoints" / "demo" / "draft").rename(complete / "checkpoints" / "demo" / "x")
    status, found = report(capsys)
    assert status == 1
    assert found["problems"] == [
        "the embedded pair is not complete: "
        "the weights of 'demo' have no role 'draft'; roles that exist: target, x"
    ]
    assert found["devices"]


def test_devices_that_cannot_be_had_are_one_line(complete, capsys, monkeypatch) -> None:
    import jax

    def refuse() -> None:
        raise RuntimeError("Unable to initialize backend 'tpu':\n no TPU")

    monkeypatch.setattr(jax, "local_devices", refuse)
    status, found = report(capsys)
    assert status == 1
    assert found["problems"] == [
        "cannot find devices: RuntimeError: Unable to initialize backend 'tpu': no TPU"
    ]


def test_a_package_outside_the_declared_range_is_named(complete, monkeypatch) -> None:
    monkeypatch.setattr(
        metadata,
        "requires",
        lambda name: [
            "numpy<0.1",
            "jax>=0.1",
            "torch==9; extra == 'test'",
            "flax<0; python_version < '3'",
        ],
    )
    (line,) = doctor.examine()["problems"]
    assert line.startswith("numpy ")
    assert 'pip install "numpy<0.1"' in line


def test_the_compilation_cache_is_where_jax_is_told(
    complete, capsys, monkeypatch, tmp_path
) -> None:
    (tmp_path / "programs").mkdir()
    (tmp_path / "programs" / "one").write_bytes(bytes(10))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "programs"))
    _, found = report(capsys)
    assert found["caches"]["compiled programs"] == {
        "path": str(tmp_path / "programs"),
        "bytes": 10,
    }
