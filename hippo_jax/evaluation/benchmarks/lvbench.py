"""LVBench: questions with four options about videos of half an hour to two hours.

Layout: the README, ``lvbench/metrics/compute_accuracy.py`` and ``scripts/`` of
github.com/THUDM/LVBench: ``video_info.meta.jsonl``, a video a line, with ``key`` (its YouTube id)
and ``qa`` (``uid``, ``question`` that lists its options, ``answer``, ``question_type``). A question
counts under each of its types. Videos are expected as ``<key>.mp4``, as
``videomind/dataset/sub_classes/lvbench.py`` of the space ``yeliudev/VideoMind-2B`` has them; the
project's own download script numbers its files instead, so those must be renamed.

    data/video_info.meta.jsonl
    data/videos/*.mp4        (or data/all_videos/)
"""

from __future__ import annotations

import re
from pathlib import Path

from hippo_jax.errors import HippoError
from hippo_jax.evaluation.benchmarks import layout
from hippo_jax.evaluation.choice import Style
from hippo_jax.evaluation.samples import Sample, question

STYLE = Style(rule="lvbench", layout="{question}\n{instruction}")


def read(data: Path, videos: Path | None, style: Style) -> list[Sample]:
    """One sample a question."""
    root = layout.folder_of(data)
    folder = videos or layout.first_folder(root, ("videos", "all_videos"))
    found = []
    for place, video in layout.records(layout.annotation_file(data, ("video_info.meta.jsonl",))):
        key, asked = layout.text(video, place, "key"), video.get("qa")
        if not isinstance(asked, list) or not all(isinstance(one, dict) for one in asked):
            raise HippoError(f"{place}: 'qa' must be a list of objects")
        for number, one in enumerate(asked, 1):
            where = f"{place}, question {number}"
            text = layout.text(one, where, "question")
            found.append(
                question(
                    id=layout.text(one, where, "uid"),
                    question=text,
                    options=re.findall(r"^\s*\([A-Z]\)\s*(.*)$", text, re.MULTILINE),
                    answer=layout.text(one, where, "answer"),
                    style=style,
                    where=where,
                    video=layout.video(folder, key),
                    tasks=tuple(layout.texts(one, where, "question_type")),
                )
            )
    return found
