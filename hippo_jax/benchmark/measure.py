"""Interleaved timing: A B A B, medians with spread."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

Run = Callable[[], Mapping[str, float]]
"""One turn of something measured: named measurements."""

Once = Callable[[str, Callable[[], Any]], Any]
"""``once(part, work)``: what ``work()`` finds (as JSON can say it), or found in an earlier run."""


def directly(part: str, work: Callable[[], Any]) -> Any:
    """There was no earlier run."""
    return work()


@dataclass(frozen=True)
class Summary:
    """Median, smallest and largest of repeated measurements, in the unit of what was measured."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, samples: list[float]) -> Summary:
        """Of at least one sample."""
        return cls(float(np.median(samples)), min(samples), max(samples))


def interleave(
    runs: Mapping[str, Run],
    repeats: int,
    report: Callable[[str], None] = lambda line: None,
    once: Once = directly,
) -> dict[str, dict[str, Summary]]:
    """Run every entry in turn, ``repeats`` times over; one unmeasured turn goes first.

    Each run returns named measurements. Taking turns spreads whatever else the machine does over
    all entries alike. A part of ``once`` is a whole turn.
    """
    samples: dict[str, dict[str, list[float]]] = {name: {} for name in runs}

    def one_turn() -> dict[str, dict[str, float]]:
        return {
            name: {what: float(value) for what, value in run().items()}
            for name, run in runs.items()
        }

    one_turn()
    report("warm-up done")
    for turn in range(1, repeats + 1):
        for name, values in once(f"turn {turn}", one_turn).items():
            for what, value in values.items():
                samples[name].setdefault(what, []).append(value)
        report(f"turn {turn} of {repeats} done")
    return {
        name: {what: Summary.of(values) for what, values in found.items()}
        for name, found in samples.items()
    }


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    import jax

    device = jax.devices()[0]
    return {
        "device": device.device_kind if device.platform != "cpu" else _processor(),
        "platform": device.platform,
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "jax": jax.__version__,
        "python": platform.python_version(),
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def where(machine: Mapping[str, Any]) -> str:
    """The machine in a few words."""
    return f"{machine['device']}, {machine['cores']} cores, jax {machine['jax']}"


def cell(summary: Mapping[str, float]) -> str:
    """A plain summary in a table: median (smallest to largest)."""
    return f"{summary['median']:.3g} ({summary['low']:.3g} to {summary['high']:.3g})"


def plain(results: dict[str, dict[str, Summary]]) -> dict[str, Any]:
    """The same as plain dictionaries, for JSON."""
    return {n: {w: asdict(s) for w, s in found.items()} for n, found in results.items()}
