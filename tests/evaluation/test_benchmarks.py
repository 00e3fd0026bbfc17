"""Each benchmark's layout, in small files made here with the fields of the public descriptions."""

import json
from pathlib import Path
from typing import Any

import pytest

from hippo_jax.errors import HippoError
from hippo_jax.evaluation.benchmarks import NAMES, read_benchmark
from hippo_jax.evaluation.choice import INSTRUCTION
from hippo_jax.evaluation.samples import Sample

VIDEO_MME = {
    "question_id": "001-1",
    "task_type": "Counting Problem",
    "question": "How many bars?",
    "options": ["A. One.", "B. Two.", "C. Three.", "D. None."],
    "answer": "C",
}
MVBENCH = {
    "video": "ABC.mp4",
    "question": "What moved?",
    "candidates": ["The bar.", "The ring."],
    "answer": "The ring.",
    "start": 0.5,
    "end": 1.5,
}
MLVU = {
    "video": "1.mp4",
    "duration": 480.0,
    "question": "What colour?",
    "candidates": ["red", "green", "blue", "pink"],
    "answer": "blue",
    "question_type": "plotQA",
}
LVBENCH = {
    "key": "Cm73ma6Ibcs",
    "type": "cartoon",
    "qa": [
        {
            "uid": "7",
            "question": "What is left?\n(A) a bar\n(B) a ring\n(C) a disc\n(D) nothing",
            "answer": "D",
            "question_type": ["entity recognition", "reasoning"],
            "time_reference": "00:15-00:19",
        }
    ],
}
LONG_VIDEO_BENCH = {
    "id": "86C_0",
    "video_id": "86C",
    "video_path": "86C.mp4",
    "subtitle_path": "86C_en.json",
    "question": "Where is it?",
    "candidates": ["left", "middle", "right", "top", "nowhere"],
    "correct_choice": 4,
    "duration_group": 15,
    "question_category": "S2E",
}


def put(file: Path, value: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(value if isinstance(value, str) else json.dumps(value))


def only(name: str, data: Path, **options: Any) -> Sample:
    (found,) = read_benchmark(name, data, **options)
    return found


def test_video_mme_by_question(tmp_path: Path) -> None:
    put(tmp_path / "data" / "fFjv93ACGo8.mkv", "")
    flat = {"video_id": "001", "duration": "short", "videoID": "fFjv93ACGo8", **VIDEO_MME}
    put(tmp_path / "videomme.json", [flat])
    found = only("videomme", tmp_path)
    assert (found.id, found.kind, found.answer, found.rule) == ("001-1", "choice", "C", "videomme")
    assert found.video == str(tmp_path / "data" / "fFjv93ACGo8.mkv")
    assert found.prompt == (f"How many bars?\nA. One.\nB. Two.\nC. Three.\nD. None.\n{INSTRUCTION}")
    assert found.tasks == ("Counting Problem", "length: short")


def test_video_mme_by_video(tmp_path: Path) -> None:
    asked = {("choices" if k == "options" else k): v for k, v in VIDEO_MME.items()}
    video = {
        "video_id": "001",
        "duration_category": "long",
        "url": "https://www.youtube.com/watch?v=fFjv-3_CGo8",
        "questions": [asked, {**asked, "question_id": "001-2"}],
    }
    put(tmp_path / "mine.json", [video])
    first, second = read_benchmark("videomme", tmp_path / "mine.json", tmp_path)
    assert first.video == second.video == str(tmp_path / "fFjv-3_CGo8.mp4")
    assert (second.id, second.tasks[1]) == ("001-2", "length: long")


def test_mvbench(tmp_path: Path) -> None:
    put(tmp_path / "json" / "action_sequence.json", [MVBENCH])
    put(tmp_path / "json" / "moving_count.json", [MVBENCH, {**MVBENCH, "video": "new.mp4"}])
    put(tmp_path / "json" / "episodic_reasoning.json", [{**MVBENCH, "video": "clip_3"}])
    corrected = tmp_path / "video" / "data0613" / "clevrer" / "video_validation" / "new.mp4"
    put(corrected, "")
    part, count, renewed, frames = read_benchmark("mvbench", tmp_path)
    assert part.video == str(tmp_path / "video" / "star" / "Charades_v1_480" / "ABC.mp4")
    assert (part.start, part.end, part.answer, part.tasks) == (0.5, 1.5, "B", ("action_sequence",))
    assert part.prompt.startswith("Question: What moved?\nOptions:\n(A) The bar.\n(B) The ring.\n")
    assert (count.start, count.end, count.frame_rate) == (None, None, None)
    assert count.video.endswith("video/clevrer/video_validation/ABC.mp4")
    assert renewed.video == str(corrected)
    assert frames.video.endswith("tvqa/frames_fps3_hq/clip_3")
    assert (frames.start, frames.end, frames.frame_rate) == (0.5, 1.5, 3.0)
    one = read_benchmark("mvbench", tmp_path / "json" / "action_sequence.json")
    assert one == [part]


def test_mlvu_reads_the_tasks_with_options(tmp_path: Path) -> None:
    put(tmp_path / "json" / "1_plotQA.json", [MLVU])
    put(tmp_path / "json" / "9_summary.json", [{"video": "x.mp4", "question": "?", "answer": "."}])
    found = only("mlvu", tmp_path)
    assert found.video == str(tmp_path / "video" / "1_plotQA" / "1.mp4")
    assert (found.answer, found.tasks, len(found.options)) == ("C", ("1_plotQA",), 4)


def test_lvbench_takes_the_options_from_the_question(tmp_path: Path) -> None:
    put(tmp_path / "video_info.meta.jsonl", json.dumps(LVBENCH) + "\n\n")
    found = only("lvbench", tmp_path, instruction="One letter.")
    assert found.options == ("a bar", "a ring", "a disc", "nothing")
    assert found.prompt == LVBENCH["qa"][0]["question"] + "\nOne letter."  # type: ignore[index]
    assert found.tasks == ("entity recognition", "reasoning")
    assert found.video == str(tmp_path / "videos" / "Cm73ma6Ibcs.mp4")


def test_longvideobench_with_and_without_answers(tmp_path: Path) -> None:
    without = {k: v for k, v in LONG_VIDEO_BENCH.items() if k != "correct_choice"}
    put(tmp_path / "lvb_test_wo_gt.json", [without])
    assert only("longvideobench", tmp_path).answer is None
    put(tmp_path / "lvb_val.json", [LONG_VIDEO_BENCH])
    found = only("longvideobench", tmp_path)
    assert (found.id, found.answer, found.tasks) == ("86C_0", "E", ("S2E", "length: 15 s"))
    assert "\nE. nowhere\n" in found.prompt
    assert found.video == str(tmp_path / "videos" / "86C.mp4")


def test_videodetailcaption_is_for_speed(tmp_path: Path) -> None:
    put(tmp_path / "videos" / "v_abc.mp4", "")
    record = {"video_name": "v_abc", "question": "Describe it in detail.", "answer": "A bar moves."}
    put(tmp_path / "videodetailcaption.json", [record, record])
    first, second = read_benchmark("videodetailcaption", tmp_path)
    assert (first.kind, first.prompt) == ("caption", "Describe it in detail.")
    assert first.video == str(tmp_path / "videos" / "v_abc.mp4") and first.id != second.id
    assert first.extra == {"reference": "A bar moves."}


def test_every_reader_names_its_source() -> None:
    for name in NAMES:
        module = __import__(f"hippo_jax.evaluation.benchmarks.{name}", fromlist=["read"])
        assert "Layout:" in module.__doc__ and "github.com/" in module.__doc__


@pytest.mark.parametrize(
    ("name", "file", "record", "said"),
    [
        ("videomme", "videomme.json", [{**VIDEO_MME, "videoID": "x"}], "no 'duration' or"),
        (
            "videomme",
            "videomme.json",
            [{**VIDEO_MME, "duration": "s", "answer": "E", "videoID": "x"}],
            "entry 1: the answer 'E' is none of the 4 options",
        ),
        ("videomme", "videomme.json", {"a": 1}, "expected a list of objects"),
        ("videomme", "videomme.json", [1], "entry 1: expected an object, got int"),
        ("videomme", "videomme.json", "[", "is not JSON"),
        (
            "videomme",
            "videomme.json",
            [{**VIDEO_MME, "duration": "s", "url": "x"}],
            "no YouTube id in the url 'x'",
        ),
        ("videomme", "other.txt", "", "has no videomme.json or"),
        ("videomme", "videomme/test-0.parquet", "", "is Parquet, which is not read here; write it"),
        ("mvbench", "other.txt", "", "has no json/action_sequence.json"),
        (
            "mvbench",
            "json/action_sequence.json",
            [{**MVBENCH, "start": "1"}],
            "entry 1: 'start' must be a number of seconds",
        ),
        ("mlvu", "json/2_needle.json", [{**MLVU, "candidates": "x"}], "must be a list of texts"),
        ("lvbench", "video_info.meta.jsonl", '{"key": "a"}', "line 1: 'qa' must be a list"),
        (
            "longvideobench",
            "lvb_val.json",
            [{**LONG_VIDEO_BENCH, "correct_choice": "A"}],
            "'correct_choice' must be a number",
        ),
        ("videodetailcaption", "test.json", [{"video_name": "a"}], "there is no 'question'"),
        ("videodetailcaption", "test.json", [], "holds no samples"),
    ],
)
def test_what_does_not_fit_is_one_line(
    tmp_path: Path, name: str, file: str, record: Any, said: str
) -> None:
    put(tmp_path / file, record)
    with pytest.raises(HippoError) as caught:
        read_benchmark(name, tmp_path)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_folders_and_names_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(HippoError, match=r"no benchmark 'mine'; benchmarks: longvideobench, lv"):
        read_benchmark("mine", tmp_path)
    with pytest.raises(HippoError, match="no file or folder"):
        read_benchmark("mlvu", tmp_path / "none")
    with pytest.raises(HippoError, match="there is no folder"):
        read_benchmark("mlvu", tmp_path, tmp_path / "none")
