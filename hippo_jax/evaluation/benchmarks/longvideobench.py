"""LongVideoBench: questions with up to five options about videos of 8 seconds to an hour.

Layout: the README and ``longvideobench/longvideobench_dataset.py`` of
github.com/longvideobench/LongVideoBench: ``lvb_val.json`` (or ``lvb_test_wo_gt.json``, without
answers), records with ``id``, ``video_path``, ``question``, ``candidates``, ``correct_choice``,
``duration_group`` and ``question_category``; videos in ``videos/``. The benchmark interleaves
subtitles with frames; they are not shown here, so figures are those of the setting without
subtitles.

    data/lvb_val.json
    data/videos/*.mp4
"""

from __future__ import annotations

from pathlib import Path

from hippo_jax.errors import HippoError
from hippo_jax.evaluation.benchmarks import layout
from hippo_jax.evaluation.choice import Style
from hippo_jax.evaluation.samples import Sample, question

STYLE = Style(
    rule="longvideobench",
    option="{letter}. {text}",
    layout="Question: {question}\n{options}\n{instruction}",
)


def read(data: Path, videos: Path | None, style: Style) -> list[Sample]:
    """One sample a record; tasks are its category and the video's length class."""
    folder = videos or layout.folder_of(data) / "videos"
    found = []
    file = layout.annotation_file(data, ("lvb_val.json", "lvb_test_wo_gt.json"))
    for where, record in layout.records(file):
        right = record.get("correct_choice")
        if not (right is None or (isinstance(right, int) and not isinstance(right, bool))):
            raise HippoError(f"{where}: 'correct_choice' must be a number, got {right!r}")
        group = layout.text(record, where, "duration_group")
        found.append(
            question(
                id=layout.text(record, where, "id"),
                question=layout.text(record, where, "question"),
                options=layout.texts(record, where, "candidates"),
                answer=right,
                style=style,
                where=where,
                video=str(folder / layout.text(record, where, "video_path")),
                tasks=(layout.text(record, where, "question_category"), f"length: {group} s"),
            )
        )
    return found
