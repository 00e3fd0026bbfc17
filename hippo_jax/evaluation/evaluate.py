"""An evaluation from beginning to end: go on where it was, run what is missing, sum up."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import Any

from hippo_jax.benchmark.measure import machine
from hippo_jax.decoding.config import HippoConfig
from hippo_jax.errors import HippoError
from hippo_jax.evaluation.calls import Calls
from hippo_jax.evaluation.charts import picture
from hippo_jax.evaluation.report import as_markdown
from hippo_jax.evaluation.results import (
    Share,
    open_evaluation,
    opened,
    parts,
    read_all,
    read_manifest,
    read_rows,
    write_whole,
)
from hippo_jax.evaluation.runner import Settings, run_samples
from hippo_jax.evaluation.samples import Sample, fingerprint
from hippo_jax.evaluation.summary import summarize
from hippo_jax.placement.pair import ModelPair
from hippo_jax.weights.fingerprint import identity

VERSION = 1  # of the manifest and the lines
LATE = 60.0  # seconds until other processes must have begun

Report = Callable[[int, int, int], None]
"""``report(before, done, total)``: samples that earlier runs did, those done by now, and all."""


def describe(
    benchmark: str,
    samples: Sequence[Sample],
    root: Path,
    pair: ModelPair,
    name: str,
    settings: Settings,
    share: Share,
) -> dict[str, Any]:
    """All that the lines of an evaluation depend on, as JSON.

    Args:
        root: folder of the videos, which may move.
        name: of the pair, for people.
    """
    known = machine()
    return {
        "version": VERSION,
        "benchmark": benchmark,
        "samples": {"count": len(samples), "fingerprint": fingerprint(samples, root)},
        "pair": {
            "name": name,
            "target": identity(pair.target),
            "draft": identity(pair.draft),
            "dtype": str(pair.target.dtype),
        },
        "settings": {**asdict(settings), "config": _plain(settings.config)},
        "processes": share.count,
        "machine": {key: known[key] for key in ("device", "cores", "jax")},
    }


def _plain(config: HippoConfig) -> dict[str, Any]:
    """Its fields, a choice of one's own by its name."""
    found = asdict(config)
    selector = found["scoring"]["selector"]
    if callable(selector):
        found["scoring"]["selector"] = getattr(selector, "__qualname__", repr(selector))
    return found


def run_missing(
    out: Path,
    manifest: Mapping[str, Any],
    samples: Sequence[Sample],
    calls: Calls,
    settings: Settings,
    share: Share,
    *,
    retry_errors: bool = False,
    report: Report = lambda before, done, total: None,
    **ways: Any,
) -> None:
    """Evaluate the samples of this process that have no line yet.

    Args:
        retry_errors: those whose line is an error too.
        ways: of ``run_samples``.

    Raises:
        HippoError: the folder holds another evaluation, or another process writes to it.
    """
    open_evaluation(out, manifest)
    with opened(out, share) as results:
        rows = read_rows(results.file)
        finished = {i for i, row in rows.items() if not (retry_errors and row["error"] is not None)}
        own = [(i, one) for i, one in enumerate(samples) if i % share.count == share.index]
        missing = [(i, one) for i, one in own if i not in finished]
        before = done = len(own) - len(missing)

        def more(count: int) -> None:
            nonlocal done
            done += count
            report(before, done, len(own))

        report(before, done, len(own))
        run_samples(missing, calls, settings, results, report=more, **ways)


def complete(out: Path, count: int) -> bool:
    """Whether every sample has its line."""
    return len(read_all(out)) >= count


def wait_for_others(out: Path, count: int, share: Share, pause: float = 2.0) -> bool:
    """Wait until the other processes of this run have written all their lines; whether they have.
    ``False``: they write elsewhere."""
    begun = time.monotonic()
    while not complete(out, count):
        if len(parts(out)) < share.count and time.monotonic() - begun > LATE:
            return False
        time.sleep(pause)
    return True


def sum_up(out: Path) -> dict[str, Any]:
    """Write ``summary.md``, ``summary.json`` and ``summary.png``; the figures.

    Raises:
        HippoError: no evaluation, lines that are missing, or none without an error.
    """
    manifest = read_manifest(out)
    count = manifest["samples"]["count"]
    rows = list(read_all(out).values())
    if len(rows) < count:
        raise HippoError(
            f"{out} has {len(rows)} of {count} samples; run the same command (of other processes "
            "theirs) until all are there"
        )
    found = summarize(rows, manifest)
    write_whole(out / "summary.json", json.dumps(found, indent=1, allow_nan=False).encode() + b"\n")
    write_whole(out / "summary.md", as_markdown(found).encode())
    drawn = picture(found, rows)
    if drawn is not None:
        stream = BytesIO()
        drawn.save(stream, format="PNG")
        write_whole(out / "summary.png", stream.getvalue())
    if len(found["errors"]) == len(rows):
        raise HippoError(
            f"none of the {len(rows)} samples could be evaluated; the first: "
            f"{found['errors'][0]['error']}"
        )
    return found
