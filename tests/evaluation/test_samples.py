"""Samples of one's own: what a line may say, and one clear line for what it may not."""

import json
from pathlib import Path

import pytest

from hippo_jax.errors import HippoError
from hippo_jax.evaluation.choice import Style
from hippo_jax.evaluation.samples import Sample, fingerprint, read_jsonl

STYLE = Style()


def written(folder: Path, *lines: object) -> Path:
    file = folder / "mine.jsonl"
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    file.write_text("\n".join(texts) + "\n")
    return file


def test_captions_and_questions_of_ones_own(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        {"video": "a.mp4", "prompt": "Describe it."},
        "",
        {
            "id": "q1",
            "video": "sub/b.mp4",
            "prompt": "Which colour?",
            "options": ["red", "green"],
            "answer": "green",
            "task": "colours",
            "start": 1,
            "end": 2.5,
            "extra": {"from": "me"},
        },
        {"video": "c.mp4", "prompt": "Yes?", "options": ["yes", "no"], "answer": " a "},
        {"video": "c.mp4", "prompt": "And?", "options": ["yes", "no"]},
    )
    first, second, third, fourth = read_jsonl(file, None, STYLE)
    assert first == Sample("1", str(tmp_path / "a.mp4"), "Describe it.")
    assert (second.id, second.kind, second.answer) == ("q1", "choice", "B")
    assert second.prompt.startswith("Which colour?\n(A) red\n(B) green\n")
    assert (second.tasks, second.start, second.end) == (("colours",), 1.0, 2.5)
    assert second.extra == {"from": "me"}
    assert (third.id, third.answer, fourth.answer) == ("4", "A", None)
    elsewhere = read_jsonl(file, Path("/videos"), STYLE)
    assert elsewhere[1].video == "/videos/sub/b.mp4"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"video": "a"', "line 2: not JSON"),
        ("[1]", "line 2: expected a JSON object, got list"),
        ({"video": "a"}, "line 2: 'prompt' must be a text that is not empty"),
        ({"video": " ", "prompt": "x"}, "line 2: 'video' must be a text"),
        ({"video": "a", "prompt": "x", "opts": []}, "line 2: unknown field 'opts'; known are answ"),
        ({"video": "a", "prompt": "x", "answer": "A"}, "line 2: an 'answer' needs 'options'"),
        ({"video": "a", "prompt": "x", "options": "ab"}, "line 2: 'options' must be a list"),
        ({"video": "a", "prompt": "x", "options": ["a"]}, "line 2: 1 options; a question needs"),
        (
            {"video": "a", "prompt": "x", "options": ["a", "b"], "answer": "C"},
            "line 2: the answer 'C' is none of the 2 options",
        ),
        (
            {"video": "a", "prompt": "x", "options": ["a", "b"], "answer": 1},
            "line 2: 'answer' must be a letter",
        ),
        ({"video": "a", "prompt": "x", "start": "1 s"}, "line 2: 'start' must be a number"),
        ({"video": "a", "prompt": "x", "end": True}, "line 2: 'end' must be a number"),
        ({"video": "a", "prompt": "x", "id": 1}, "the id '1' stands twice"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: object, said: str) -> None:
    file = written(tmp_path, {"video": "a.mp4", "prompt": "Describe it."}, line)
    with pytest.raises(HippoError) as caught:
        read_jsonl(file, None, STYLE)
    assert str(file) in str(caught.value) and said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(HippoError, match=r"mine.jsonl cannot be read: No such file"):
        read_jsonl(tmp_path / "mine.jsonl", None, STYLE)
    with pytest.raises(HippoError, match="holds no samples"):
        read_jsonl(written(tmp_path, ""), None, STYLE)
    (tmp_path / "mine.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(HippoError, match="no UTF-8 text"):
        read_jsonl(tmp_path / "mine.jsonl", None, STYLE)


def test_a_fingerprint_is_of_what_is_asked_wherever_it_lies() -> None:
    here = [Sample("1", "/here/a.mp4", "x"), Sample("2", "/here/b.mp4", "y", start=1.0)]
    there = [Sample("1", "/there/a.mp4", "x"), Sample("2", "/there/b.mp4", "y", start=1.0)]
    known = fingerprint(here, "/here")
    assert fingerprint(there, "/there") == known
    others = [
        here[::-1],
        here[:1],
        [here[0], Sample("2", "/here/b.mp4", "y", start=2.0)],
        [here[0], Sample("2", "/here/c.mp4", "y", start=1.0)],
        [here[0], Sample("2", "/here/b.mp4", "z", start=1.0)],
    ]
    assert len({known, *(fingerprint(other, "/here") for other in others)}) == 6
