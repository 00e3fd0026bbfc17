"""Video-MME: 2700 questions with four options about 900 videos of 11 seconds to an hour.

Layout: the README of github.com/BradyFU/Video-MME (a JSON list of videos with their ``questions``;
field names of two of its versions) and the data set card of ``lmms-lab/Video-MME`` on the Hugging
Face hub with ``lmms_eval/tasks/videomme/utils.py`` of github.com/EvolvingLMMs-Lab/lmms-eval (one
record a question; videos ``data/<YouTube id>.mp4``). Options carry their letters ("A. Black.").
Subtitles are not shown to the model ("w/o subs").

    data/videomme.json     either form
    data/data/*.mp4        (or data/videos/, data/video/)
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from hippo_jax.errors import HippoError
from hippo_jax.evaluation.benchmarks import layout
from hippo_jax.evaluation.benchmarks.layout import Record
from hippo_jax.evaluation.choice import Style
from hippo_jax.evaluation.samples import Sample, question

STYLE = Style(rule="videomme", option="{text}")
_NAMES = ("videomme.json", "Video-MME.json", "videomme.jsonl", "test.json")


def read(data: Path, videos: Path | None, style: Style) -> list[Sample]:
    """One sample a question; tasks are its type and the video's length class."""
    root = layout.folder_of(data)
    folder = videos or layout.first_folder(root, ("data", "videos", "video"))
    found = []
    for where, video, asked in _questions(layout.annotation_file(data, _NAMES)):
        length = layout.text(video, where, "duration", "duration_category")
        found.append(
            question(
                id=layout.text(asked, where, "question_id"),
                question=layout.text(asked, where, "question"),
                options=layout.texts(asked, where, "options", "choices"),
                answer=layout.text(asked, where, "answer"),
                style=style,
                where=where,
                video=layout.video(folder, _youtube_id(video, where)),
                tasks=(layout.text(asked, where, "task_type"), f"length: {length}"),
            )
        )
    return found


def _questions(file: Path) -> Iterator[tuple[str, Record, Record]]:
    """Where each question stands, the fields of its video and its own."""
    for where, record in layout.records(file):
        if "questions" not in record:
            yield where, record, record
            continue
        asked = record["questions"]
        if not isinstance(asked, list) or not all(isinstance(one, dict) for one in asked):
            raise HippoError(f"{where}: 'questions' must be a list of objects")
        for number, one in enumerate(asked, 1):
            yield f"{where}, question {number}", record, one


def _youtube_id(video: Record, where: str) -> str:
    if "videoID" in video:
        return layout.text(video, where, "videoID")
    url = layout.text(video, where, "url")
    found = re.search(r"(?:v=|youtu\.be/|shorts/)([\w-]+)", url)
    if found is None:
        raise HippoError(f"{where}: no 'videoID', and no YouTube id in the url {url!r}")
    return found[1]
