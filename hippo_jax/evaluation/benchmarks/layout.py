"""What the readers share: finding annotation files and videos, and fields of a record."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hippo_jax.errors import HippoError
from hippo_jax.evaluation.samples import json_lines, read_text

Record = Mapping[str, Any]
SUFFIXES = (".mp4", ".MP4", ".mkv", ".webm", ".avi", ".mov")


def folder_of(data: Path) -> Path:
    """The benchmark's folder, where its annotation file may have been named instead."""
    return data if data.is_dir() else data.parent


def annotation_file(data: Path, names: Sequence[str]) -> Path:
    """The annotation file: ``data`` itself, or the first of ``names`` in that folder.

    Raises:
        HippoError: there is none; where there is a Parquet file instead, what to do with it.
    """
    if data.is_file():
        if data.suffix == ".parquet":
            raise HippoError(_parquet(data, data.parent / names[0]))
        return data
    for name in names:
        if (data / name).is_file():
            return data / name
    tables = sorted(data.rglob("*.parquet"))
    if tables:
        raise HippoError(_parquet(tables[0], data / names[0]))
    raise HippoError(f"{data} has no {' or '.join(names)}; give the benchmark's own folder")


def task_files(data: Path, tasks: Sequence[str], benchmark: str) -> tuple[list[Path], Path]:
    """The files of the tasks that are there (``data/json/<task>.json``, or ``data`` itself, one of
    them), and the folder of their videos (``data/video``).

    Raises:
        HippoError: none is there, or the file is of no such task.
    """
    if data.is_file():
        if data.stem not in tasks:
            raise HippoError(
                f"{data}: {benchmark} has no task {data.stem} that is read here; tasks: "
                f"{', '.join(tasks)}"
            )
        return [data], data.parent.parent / "video"
    files = [data / "json" / f"{task}.json" for task in tasks]
    files = [file for file in files if file.is_file()]
    if not files:
        raise HippoError(f"{data} has no json/{tasks[0]}.json or other task of {benchmark}")
    return files, data / "video"


def _parquet(table: Path, wanted: Path) -> str:
    return (
        f"{table} is Parquet, which is not read here; write it as JSON first: python -c "
        f"\"import pandas; pandas.read_parquet('{table}').to_json('{wanted}', orient='records')\""
    )


def records(path: Path) -> Iterator[tuple[str, Record]]:
    """The objects of a JSON list, or of a file with one object a line, and where each stands."""
    if path.suffix == ".jsonl":
        found: Iterable[tuple[str, Any]] = (
            (f"{path}, line {number}", value) for number, value in json_lines(path)
        )
    else:
        try:
            values = json.loads(read_text(path))
        except ValueError as error:
            raise HippoError(f"{path} is not JSON ({error})") from None
        if not isinstance(values, list):
            raise HippoError(f"{path}: expected a list of objects")
        found = ((f"{path}, entry {number}", value) for number, value in enumerate(values, 1))
    for where, value in found:
        if not isinstance(value, dict):
            raise HippoError(f"{where}: expected an object, got {type(value).__name__}")
        yield where, value


def text(record: Record, where: str, *names: str) -> str:
    """The first of these fields that is there, a text that is not empty."""
    for name in names:
        if name in record:
            found = record[name]
            if isinstance(found, (int, float)) and not isinstance(found, bool):
                found = str(found)
            if isinstance(found, str) and found.strip():
                return found
            raise HippoError(f"{where}: {name!r} must be a text that is not empty")
    raise HippoError(f"{where}: there is no {' or '.join(map(repr, names))}")


def texts(record: Record, where: str, *names: str) -> list[str]:
    """The first of these fields that is there, a list of texts."""
    for name in names:
        found = record.get(name)
        if found is not None:
            if isinstance(found, list) and all(
                isinstance(part, (str, int, float)) for part in found
            ):
                return [str(part) for part in found]
            raise HippoError(f"{where}: {name!r} must be a list of texts")
    raise HippoError(f"{where}: there is no {' or '.join(map(repr, names))}")


def seconds(record: Record, where: str, name: str) -> float | None:
    """A field that is a number of seconds, or ``None``."""
    found = record.get(name)
    if found is not None and (isinstance(found, bool) or not isinstance(found, (int, float))):
        raise HippoError(f"{where}: {name!r} must be a number of seconds, got {found!r}")
    return None if found is None else float(found)


def first_folder(root: Path, names: Sequence[str]) -> Path:
    """The first of these folders that exists; none of them: the first name, where the videos are
    then found missing one by one."""
    return next((root / name for name in names if (root / name).is_dir()), root / names[0])


def video(folder: Path, stem: str) -> str:
    """The video of this name without suffix; one that is missing is named as an mp4."""
    for suffix in SUFFIXES:
        if (folder / f"{stem}{suffix}").is_file():
            return str(folder / f"{stem}{suffix}")
    return str(folder / f"{stem}.mp4")
