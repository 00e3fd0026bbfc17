"""MLVU (dev set): questions about videos of 3 minutes to 2 hours in seven tasks.

Layout: ``videochat2/choice_bench.py`` of github.com/JUNJIE99/MLVU (a JSON file a task with
``video``, ``question``, ``candidates``, ``answer``) and the folders of ``MLVU/MVLU`` on the Hugging
Face hub as ``videomind/dataset/sub_classes/mlvu.py`` of the space ``yeliudev/VideoMind-2B`` reads
them (``json/1_plotQA.json`` with ``video/1_plotQA/``, and so on). The two tasks that ask for a text
(sub-scene captioning and summary) are scored by a language model and are not read.

    data/json/1_plotQA.json, ...
    data/video/1_plotQA/*.mp4, ...
"""

from __future__ import annotations

from pathlib import Path

from hippo_jax.evaluation.benchmarks import layout
from hippo_jax.evaluation.choice import Style
from hippo_jax.evaluation.samples import Sample, question

STYLE = Style(rule="mlvu", layout="Question: {question}\nOptions:\n{options}\n{instruction}")
TASKS = (
    "1_plotQA",
    "2_needle",
    "3_ego",
    "4_count",
    "5_order",
    "6_anomaly_reco",
    "7_topic_reasoning",
)


def read(data: Path, videos: Path | None, style: Style) -> list[Sample]:
    """The multiple-choice questions of all tasks whose file is there; of one, if ``data`` is its
    file."""
    files, own = layout.task_files(data, TASKS, "MLVU")
    root = videos or own
    found = []
    for file in files:
        for number, (where, record) in enumerate(layout.records(file)):
            found.append(
                question(
                    id=f"{file.stem}:{number}",
                    question=layout.text(record, where, "question"),
                    options=layout.texts(record, where, "candidates"),
                    answer=layout.text(record, where, "answer"),
                    style=style,
                    where=where,
                    video=str(root / file.stem / layout.text(record, where, "video")),
                    tasks=(file.stem,),
                )
            )
    return found
