"""What an unfinished study has measured, kept so that the same command goes on where it was.

    OUT/NAME.partial.jsonl   the settings, then a line for each part: its name and what was found

A part is a whole turn of a study that takes times (every setting once, so that medians are over
interleaved turns however often a study was interrupted), and a batch of clips of one that counts.
The file goes when the study's own files are written.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hippo_jax.benchmark.measure import Once, machine
from hippo_jax.errors import HippoError
from hippo_jax.studies.material import Material
from hippo_jax.training.domain import CARD_SEED
from hippo_jax.weights.durable import only_here
from hippo_jax.weights.fingerprint import identity
from hippo_jax.weights.journal import Journal, refuse_other

VERSION = 1  # of the file


def describe(material: Material, drawn: bool, settings: Mapping[str, Any]) -> dict[str, Any]:
    """All that the parts of a study depend on, as JSON.

    Args:
        drawn: whether a program draws the videos, wherever they lie; else path, size and time of
            change tell a user's own from others.
        settings: of the study, without the number of turns: those that were taken stay of use.
    """
    import hippo_jax

    pair, known = material.pair, machine()
    return {
        "version": VERSION,
        "hippo_jax": hippo_jax.__version__,
        "target": identity(pair.target),
        "draft": identity(pair.draft),
        "dtype": str(pair.target.dtype),
        "videos": (
            {"drawn": len(material.videos), "seed": CARD_SEED}
            if drawn
            else {str(video.resolve()): _state(video) for video in material.videos}
        ),
        "batch": material.batch,
        **settings,
        "machine": {key: known[key] for key in ("device", "cores", "jax")},
    }


def _state(video: Path) -> list[list[Any]]:
    files = sorted(video.iterdir()) if video.is_dir() else [video]
    found = ((file.name, file.stat()) for file in files)
    return [[name, stat.st_size, stat.st_mtime_ns] for name, stat in found]


@contextmanager
def kept(
    file: Path, settings: Mapping[str, Any], report: Callable[[str], None] = lambda line: None
) -> Iterator[Once]:
    """What measures each part once, however often a study is begun.

    At the end the file goes; where the study fails or is interrupted it stays, unless it is empty.

    Args:
        file: of this study alone.
        settings: from ``describe``.

    Raises:
        HippoError: the file holds parts of a study with other settings, is damaged, or another
            process writes it.
    """
    wanted = json.loads(json.dumps(settings))  # as it will be read: tuples are lists
    file.touch()
    with only_here(file, "at work on this study"):
        finished = False
        journal = Journal(file)
        try:
            found = _parts(file, wanted)
            if found:
                report(f"{file}: {len(found)} part{'s' if found[1:] else ''} measured earlier")
            known = dict(found)

            def once(part: str, work: Callable[[], Any]) -> Any:
                if part not in known:
                    value = work()
                    if file.stat().st_size == 0:
                        journal.append({"settings": wanted})
                    journal.append({"part": part, "found": value})
                    known[part] = json.loads(json.dumps(value))
                return known[part]

            try:
                yield once
            except KeyboardInterrupt:
                if file.stat().st_size:
                    report(f"{file} keeps what was measured; the same command goes on")
                raise
            finished = True
        finally:
            journal.close()
            if finished or file.stat().st_size == 0:
                file.unlink()


def _parts(file: Path, wanted: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Parts that were measured; ``HippoError`` where they are of another study."""
    try:
        lines = [json.loads(line) for line in file.read_bytes().splitlines()]
        settings = lines[0]["settings"] if lines else wanted
        found = [(str(line["part"]), line["found"]) for line in lines[1:]]
    except (ValueError, KeyError, TypeError):
        raise HippoError(f"{file} is damaged; remove it, and the study begins anew") from None
    refuse_other(
        settings,
        wanted,
        f"{file} is of an unfinished study with other settings",
        "finish that one, choose another --out, or remove the file",
    )
    return found
