"""The resolver of embedded files, on a made-up data folder."""

from pathlib import Path

import pytest

from hippo_jax import resources
from hippo_jax.errors import HippoError


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package folder whose `_data` holds the pairs `demo` (weights too) and `other`."""
    root = tmp_path / "package" / "_data"
    for pair in ("demo", "other"):
        (root / "models" / pair).mkdir(parents=True)
        (root / "models" / pair / "pair.toml").touch()
    (root / "models" / "no_card").mkdir()
    clips = root / "models" / "demo" / "clips"
    clips.mkdir()
    for file in ("b.mp4", "a.webm", "notes.txt"):
        (clips / file).touch()
    for role in ("target", "draft"):
        (root / "checkpoints" / "demo" / role).mkdir(parents=True)
    monkeypatch.setattr(resources, "_PACKAGE", tmp_path / "package")
    return root


def test_what_exists_is_found(data: Path) -> None:
    assert resources.pair_names() == ("demo", "other")
    assert resources.pair_directory() == data / "models" / "demo"
    assert resources.pair_directory("other") == data / "models" / "other"
    assert (
        resources.checkpoint_directory("demo", "draft") == data / "checkpoints" / "demo" / "draft"
    )
    assert resources.clip_names() == ("a", "b")
    assert resources.clip() == data / "models" / "demo" / "clips" / "a.webm"
    assert resources.clip("b") == resources.clip("b.mp4") == resources.clip().with_name("b.mp4")


@pytest.mark.parametrize(
    ("ask", "listed"),
    [
        (lambda: resources.pair_directory("no_card"), "demo, other"),
        (lambda: resources.pair_directory("../models/demo"), "demo, other"),
        (lambda: resources.checkpoint_directory("other", "target"), "demo"),
        (lambda: resources.checkpoint_directory("demo", "judge"), "draft, target"),
        (lambda: resources.clip("c"), "a, b"),
        (lambda: resources.clip("notes"), "a, b"),
        (lambda: resources.clip(pair="other"), "none"),
        (lambda: resources.clip(pair="third"), "demo, other"),
    ],
)
def test_an_unknown_name_lists_those_that_exist(data: Path, ask, listed: str) -> None:
    with pytest.raises(HippoError, match=f": {listed}$") as caught:
        ask()
    assert "\n" not in str(caught.value)


def test_a_stranger_s_models_folder_is_not_taken_for_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models" / "demo").mkdir(parents=True)
    (tmp_path / "models" / "demo" / "pair.toml").touch()
    monkeypatch.setattr(resources, "_PACKAGE", tmp_path / "package")
    with pytest.raises(HippoError, match="no data folder"):
        resources.pair_names()
