"""VideoDetailCaption: detailed captions of 499 videos; for speed, as it is scored by a language
model only.

Layout: the data set card of ``lmms-lab/VideoDetailCaption`` on the Hugging Face hub (columns
``video_name``, ``question``, ``answer``; ``videos.zip``) and
``lmms_eval/tasks/video_detail_description/utils.py`` of github.com/EvolvingLMMs-Lab/lmms-eval
(videos ``Test_Videos/<video_name>.mp4``). Its annotations are published as Parquet; here they are
read as JSON, a list of records. Where ``videos.zip`` unpacks to was not verified, so several names
are tried.

    data/videodetailcaption.json
    data/Test_Videos/*.mp4           (or data/videos/, or beside the annotations)
"""

from __future__ import annotations

from pathlib import Path

from hippo_jax.evaluation.benchmarks import layout
from hippo_jax.evaluation.choice import Style
from hippo_jax.evaluation.samples import Sample

STYLE = None


def read(data: Path, videos: Path | None, style: Style | None) -> list[Sample]:
    """One caption a record; the reference caption is kept in ``extra``."""
    names = ("videodetailcaption.json", "test.json", "videodetailcaption.jsonl")
    file = layout.annotation_file(data, names)
    root = layout.folder_of(data)
    folder = videos or layout.first_folder(root, ("Test_Videos", "videos", "."))
    found = []
    for number, (where, record) in enumerate(layout.records(file)):
        name = layout.text(record, where, "video_name")
        found.append(
            Sample(
                id=f"{number}:{name}",
                video=layout.video(folder, name.removesuffix(".mp4")),
                prompt=layout.text(record, where, "question"),
                extra={"reference": layout.text(record, where, "answer")},
            )
        )
    return found
