"""A benchmark's outcome kept in a file, and another one held against it: nothing may get slower
unseen."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hippo_jax.benchmark.ceilings import COPY, MATMUL
from hippo_jax.benchmark.measure import where
from hippo_jax.errors import HippoError
from hippo_jax.resources import pair_directory

NAME = "bench.json"  # beside a pair's card
SAME = ("name", "dtype", "attention", "visual_tokens", "max_new_tokens", "gamma", "keep_ratio")
FORMER = {"attention": "blocks"}  # what runs did that do not say
ALLOWED = 1.1  # times as long
PARTS = ("machine", "case", "ceilings", "ways", "parts")  # of an outcome


def kept_file(pair: str) -> Path:
    """Where a pair's last run is kept."""
    return pair_directory(pair) / NAME


def read_run(path: Path) -> dict[str, Any]:
    """A kept outcome of ``measure_speed``.

    Raises:
        HippoError: there is none, or the file is something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not all(
            isinstance(found[name], dict)
            for name in ("ways", "parts", "ceilings", "case", "machine")
        ):
            raise ValueError("something else")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise HippoError(
            f"{path} holds no run of the benchmark ({type(error).__name__}); make one with "
            f"hippo bench --out {path}"
        ) from error
    return dict(found)


def write_run(outcome: Mapping[str, Any], path: Path) -> None:
    """Whole or not at all.

    Raises:
        HippoError: the file cannot be written.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(json.dumps(outcome, indent=1) + "\n", encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise HippoError(f"{path} cannot be written: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)


@dataclass(frozen=True)
class Change:
    """One time, before and after.

    Attributes:
        name: of the way or part, and of the time.
        before, after: summaries (median, low, high).
    """

    name: str
    before: Mapping[str, float]
    after: Mapping[str, float]

    @property
    def ratio(self) -> float:
        """After / before, of the medians."""
        return self.after["median"] / self.before["median"]

    @property
    def slower(self) -> bool:
        """Beyond what is allowed, and no turn of the new run was as fast as any of the old."""
        return self.ratio > ALLOWED and self.after["low"] > self.before["high"]


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """Every time that both runs have.

    Raises:
        HippoError: they measured different things.
    """
    for name in SAME:
        old, new = (run["case"].get(name, FORMER.get(name)) for run in (before, after))
        if old != new:
            raise HippoError(
                f"the runs cannot be compared: {name} is {old!r} in the kept one and {new!r} now"
            )
    return list(_changes(before, after))


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Change]:
    for name, found in after["ways"].items():
        for what in ("prefill_s", "decode_ms_per_token"):
            old = before["ways"].get(name, {}).get(what)
            if old is not None:
                yield Change(f"{name}: {what}", old, found[what])
    for name, found in after["parts"].items():
        if name in before["parts"]:
            yield Change(f"{name}: ms", before["parts"][name]["ms"], found["ms"])


def got_slower(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether any time did, on the hardware and jax of the kept run."""
    same = where(before["machine"]) == where(after["machine"])
    return same and any(one.slower for one in changes(before, after))


def as_table(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """All times side by side, and the verdict."""
    found, machines = changes(before, after), (where(before["machine"]), where(after["machine"]))
    lines = [f"kept: {machines[0]}; now: {machines[1]}"]
    if machines[0] != machines[1]:
        lines.append("other hardware or another jax: times differ for reasons that are not ours")
    rates = [
        f"{name} {after['ceilings'][name]['median'] / before['ceilings'][name]['median']:.2f}"
        for name in (COPY, MATMUL)
    ]
    lines.append(f"the machine's own rates, now / kept: {', '.join(rates)}")
    lines += ["", "| | kept | now | now / kept |", "|---|---|---|---|"]
    for one in found:
        mark = " slower" if one.slower else ""
        lines.append(
            f"| {one.name} | {one.before['median']:.4g} | {one.after['median']:.4g} "
            f"| {one.ratio:.2f}{mark} |"
        )
    slower = [one.name for one in found if one.slower]
    said = "nothing got slower" if not slower else f"slower: {', '.join(slower)}"
    lines += [
        "",
        f"{said} (more than {100 * (ALLOWED - 1):.0f} % and outside of what the kept run's turns "
        "differ by)",
    ]
    return "\n".join(lines)
