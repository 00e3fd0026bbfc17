"""MVBench: 20 tasks of 200 questions each about short videos.

Layout: ``data_list`` in ``video_chat2/mvbench.ipynb`` of github.com/OpenGVLab/Ask-Anything (a file
and a folder of videos for each task; parts of videos for five of them; one task as folders of
frames, taken at 3 a second) and the files of ``OpenGVLab/MVBench`` on the Hugging Face hub, branch
``main`` (``json/`` and ``video/``, whose zips unpack to those folders; ``data0613`` holds corrected
videos of two of them). Its branch ``video`` cuts and names videos otherwise and is not read.

    data/json/action_sequence.json, ...
    data/video/star/Charades_v1_480/*.mp4, ...
"""

from __future__ import annotations

from pathlib import Path

from hippo_jax.evaluation.benchmarks import layout
from hippo_jax.evaluation.choice import Style
from hippo_jax.evaluation.samples import Sample, question

STYLE = Style(rule="mvbench", layout="Question: {question}\nOptions:\n{options}\n{instruction}")
FRAME_RATE = 3.0  # of the folders of frames

# Task: its folder of videos, and whether a question is about a part of its video.
TASKS = {
    "action_sequence": ("star/Charades_v1_480", True),
    "action_prediction": ("star/Charades_v1_480", True),
    "action_antonym": ("ssv2_video", False),
    "fine_grained_action": ("Moments_in_Time_Raw/videos", False),
    "unexpected_action": ("FunQA_test/test", False),
    "object_existence": ("clevrer/video_validation", False),
    "object_interaction": ("star/Charades_v1_480", True),
    "object_shuffle": ("perception/videos", False),
    "moving_direction": ("clevrer/video_validation", False),
    "action_localization": ("sta/sta_video", True),
    "scene_transition": ("scene_qa/video", False),
    "action_count": ("perception/videos", False),
    "moving_count": ("clevrer/video_validation", False),
    "moving_attribute": ("clevrer/video_validation", False),
    "state_change": ("perception/videos", False),
    "fine_grained_pose": ("nturgbd", False),
    "character_order": ("perception/videos", False),
    "egocentric_navigation": ("vlnqa", False),
    "episodic_reasoning": ("tvqa/frames_fps3_hq", True),
    "counterfactual_inference": ("clevrer/video_validation", False),
}


def read(data: Path, videos: Path | None, style: Style) -> list[Sample]:
    """The questions of all tasks whose file is there; of one, if ``data`` is its file."""
    files, own = layout.task_files(data, tuple(TASKS), "MVBench")
    root = videos or own
    return [sample for file in files for sample in _task(file, root, style)]


def _task(file: Path, root: Path, style: Style) -> list[Sample]:
    folder, part = TASKS[file.stem]
    found = []
    for number, (where, record) in enumerate(layout.records(file)):
        path = root / folder / layout.text(record, where, "video")
        if not path.exists() and (root / "data0613" / folder / path.name).exists():
            path = root / "data0613" / folder / path.name
        found.append(
            question(
                id=f"{file.stem}:{number}",
                question=layout.text(record, where, "question"),
                options=layout.texts(record, where, "candidates"),
                answer=layout.text(record, where, "answer"),
                style=style,
                where=where,
                video=str(path),
                tasks=(file.stem,),
                start=layout.seconds(record, where, "start") if part else None,
                end=layout.seconds(record, where, "end") if part else None,
                frame_rate=FRAME_RATE if "frames" in folder else None,
            )
        )
    return found
