"""An interrupted study goes on where it was, and only there."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from hippo_jax.benchmark.measure import Summary, interleave
from hippo_jax.errors import HippoError
from hippo_jax.studies import unfinished
from hippo_jax.studies.material import Material
from hippo_jax.studies.unfinished import describe, kept

SETTINGS = {"gamma": 5, "values": (1, 2), "machine": {"cores": 2}}


def measure(file: Path, parts: int, settings: dict | None = None, stop: int | None = None) -> list:
    """What was found in each part, and which were measured now; interrupted in part ``stop``."""
    now: list[int] = []

    def work(part: int) -> dict:
        if part == stop:
            raise KeyboardInterrupt
        now.append(part)
        return {"times": [part / 3, part]}

    with kept(file, SETTINGS if settings is None else settings) as once:
        found = [once(f"part {i}", lambda i=i: work(i)) for i in range(parts)]
    return [found, now]


def test_what_was_measured_is_not_measured_again(tmp_path: Path) -> None:
    whole, _ = measure(tmp_path / "whole", 4)
    file = tmp_path / "study.partial.jsonl"
    for stop in (2, 3):
        with pytest.raises(KeyboardInterrupt):
            measure(file, 4, stop=stop)
    assert len(file.read_text().splitlines()) == 1 + 3
    assert measure(file, 4) == [whole, [3]]
    assert not list(tmp_path.iterdir())  # the study's own files are the user's


def test_half_a_line_of_a_kill_is_cut_off(tmp_path: Path) -> None:
    file = tmp_path / "file"
    with pytest.raises(KeyboardInterrupt):
        measure(file, 3, stop=2)
    whole = file.read_bytes()
    file.write_bytes(whole[:-5])
    assert measure(file, 3) == [measure(tmp_path / "other", 3)[0], [1, 2]]
    file.write_bytes(whole[:5])  # nothing whole is left
    assert measure(file, 3)[1] == [0, 1, 2]


def test_an_interruption_before_the_first_part_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        measure(tmp_path / "file", 3, stop=0)
    assert not list(tmp_path.iterdir())


def test_another_study_is_refused_and_loses_nothing(tmp_path: Path) -> None:
    file = tmp_path / "file"
    with pytest.raises(KeyboardInterrupt):
        measure(file, 3, stop=2)
    before = file.read_bytes()
    for other, said in {
        "gamma": "gamma was 5 and is now 4",
        "values": r"values was \[1, 2\] and is now 4",
        "new": "new was null and is now 4",
    }.items():
        with pytest.raises(HippoError, match=f"other settings: {said}; finish that one"):
            measure(file, 3, {**SETTINGS, other: 4})
    file.write_bytes(before.replace(b'"found"', b'"lost"'))
    with pytest.raises(HippoError, match="is damaged; remove it"):
        measure(file, 3)
    file.write_bytes(before)
    assert measure(file, 3)[1] == [2]


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    with (
        kept(tmp_path / "file", SETTINGS),
        pytest.raises(HippoError, match="another process is at work on this study"),
        kept(tmp_path / "file", SETTINGS),
    ):
        pass


def test_a_turn_is_measured_whole_or_not_at_all(tmp_path: Path) -> None:
    """Medians stay over turns in which every setting had its place."""
    order: list[str] = []
    stop = [5]

    def run(name: str):
        def one() -> dict[str, float]:
            if len(order) == stop[0]:
                raise KeyboardInterrupt
            order.append(name)
            return {"ms": float(len(order))}

        return one

    runs = {"a": run("a"), "b": run("b")}
    with pytest.raises(KeyboardInterrupt), kept(tmp_path / "file", SETTINGS) as once:
        interleave(runs, 3, once=once)
    assert order == ["a", "b"] * 2 + ["a"]  # warm-up, a turn, half of one
    order.clear()
    stop[0] = 99
    with kept(tmp_path / "file", SETTINGS) as once:
        found = interleave(runs, 3, once=once)
    assert order == ["a", "b"] * 3  # warm-up, and the two turns that were missing
    assert found["a"]["ms"] == Summary(median=3.0, low=3.0, high=5.0)
    assert found["b"]["ms"] == Summary(median=4.0, low=4.0, high=6.0)


def test_what_a_study_depends_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unfinished, "identity", lambda model: model.name)
    models = [SimpleNamespace(name=name, dtype="float32") for name in ("target", "draft")]
    pair = SimpleNamespace(target=models[0], draft=models[1])
    video, folder = tmp_path / "a.mp4", tmp_path / "frames"
    video.write_bytes(b"abc")
    folder.mkdir()
    (folder / "0.png").write_bytes(b"0")
    material = Material("pair", pair, (video, folder), ("say", "say"), 1)

    def seen(drawn: bool = False, **settings: object) -> str:
        return json.dumps(describe(material, drawn, settings))

    known = seen(gamma=5)
    assert seen(gamma=5) == known != seen(gamma=4)
    (folder / "1.png").write_bytes(b"1")
    more = seen(gamma=5)
    video.write_bytes(b"abcd")
    assert len({known, more, seen(gamma=5)}) == 3
    # Drawn clips lie in another folder each time.
    assert "a.mp4" in known and str(tmp_path) not in seen(drawn=True)
    models[1].name = "other"
    assert '"draft": "other"' in seen()
