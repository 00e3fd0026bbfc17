"""Where the draft was right, as recorded beside the card, is what the pair does."""

from pathlib import Path

import numpy as np
import pytest

from hippo_jax.benchmark.recording import pattern_of, read_recording, record
from hippo_jax.benchmark.script import typical_stretch, write_script
from hippo_jax.decoding.config import HippoConfig
from hippo_jax.errors import HippoError
from hippo_jax.placement.pair import load_pair
from hippo_jax.scheduling.time_model import replay
from hippo_jax.training.report import card_clips


def test_the_first_recorded_clips_are_found_again(tmp_path: Path) -> None:
    kept = read_recording("demo")
    assert len(kept.answers) == 64 and kept.keep_ratio == HippoConfig().keep_ratio
    found = record(load_pair("demo"), *card_clips(tmp_path, 2))
    again = [[mark == "1" for mark in answer] for answer in found["answers"]]
    assert again == list(kept.answers[:2])
    assert not all(map(all, again))  # the draft is wrong somewhere in them


def test_a_pattern_is_read_from_the_runs() -> None:
    right = [True, True, False, False, True, False, True]
    assert pattern_of([2, 0, 1, -1, -1], 7) == right
    rng = np.random.default_rng(0)
    for _ in range(50):
        tokens = int(rng.integers(0, 30))
        pattern = (rng.random(tokens) < 0.7).tolist()
        runs = replay(pattern, 4, "parallel").runs
        assert pattern_of([*runs, -1], tokens) == pattern


def test_a_stretch_is_as_lucky_as_the_whole() -> None:
    answers = [[True] * 30, [False] * 5 + [True] * 5, [False] * 10]
    chosen = typical_stretch(answers, 10)
    assert sum(chosen) == 7 and len(chosen) == 10  # 35 of 50
    with pytest.raises(HippoError, match="50 places"):
        typical_stretch(answers, 51)


def test_a_script_is_wrong_where_the_recording_says() -> None:
    script = write_script([True, False, True, False], 9, 100)
    places = [i for i, (a, b) in enumerate(zip(script.target, script.draft, strict=True)) if a != b]
    assert places == [9, 11]  # token i of the answer stands behind position 8 + i
    assert script.target.max() < 100 and script.draft.max() < 100


@pytest.mark.parametrize(
    "text", ["", "{}", '{"answers": ["12"], "keep_ratio": 0.1}', '{"answers": [], "keep_ratio": 1}']
)
def test_another_file_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "acceptance.json"
    path.write_text(text)
    with pytest.raises(HippoError, match="holds no recorded acceptance"):
        read_recording("demo", path)
