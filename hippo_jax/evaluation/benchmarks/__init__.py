"""The benchmarks by name. Each is a module with

    STYLE   how its questions are written and read, ``None`` if it has none
    read(data, videos, style) -> list[Sample]

``data`` is the benchmark's folder as it is published, unpacked, or its annotation file;
``videos`` is the folder of the videos where that is elsewhere.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from hippo_jax.errors import HippoError
from hippo_jax.evaluation.samples import Sample, check_unique

# As the command line names them; the modules of the same name are beside this file.
NAMES = ("longvideobench", "lvbench", "mlvu", "mvbench", "videodetailcaption", "videomme")


def read_benchmark(
    name: str, data: Path, videos: Path | None = None, *, instruction: str | None = None
) -> list[Sample]:
    """The samples of a benchmark, in the order of its files.

    Args:
        instruction: instead of our sentence on how to answer a multiple-choice question.

    Raises:
        HippoError: no such benchmark, or files that are missing or do not fit.
    """
    if name not in NAMES:
        raise HippoError(f"there is no benchmark {name!r}; benchmarks: {', '.join(NAMES)}")
    if not data.exists():
        raise HippoError(f"there is no file or folder {data}; give the benchmark's folder")
    if videos is not None and not videos.is_dir():
        raise HippoError(f"there is no folder {videos}; give the folder of the videos")
    module = import_module(f"hippo_jax.evaluation.benchmarks.{name}")
    style = None if module.STYLE is None else module.STYLE.saying(instruction)
    found: list[Sample] = module.read(data, videos, style)
    check_unique(found, str(data))
    return found
