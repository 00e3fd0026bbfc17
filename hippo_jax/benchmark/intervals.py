"""Who was busy when: a round's intervals of each role, out of a profiler trace.

On CPU devices the profiler notes every operation of a program with the program's name, the device
and the run. Two programs side by side are told apart by their names, one run a round. In one
program with two roles the devices tell the roles apart; a device's part of a round begins with the
branch of its role and ends where it begins to wait for the other, that is, with the first
collective behind the branch.
"""

from __future__ import annotations

import itertools
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

_BRANCH = re.compile(r"cond(itional)?(\.(clone|\d+))*$")
_COLLECTIVE = re.compile(r"(all-|psum|pmax|all_gather|reduce-scatter|collective-)")


@dataclass(frozen=True)
class Op:
    """One operation as the profiler saw it.

    Attributes:
        name: of the HLO instruction.
        program: of the HLO module, ``jit_`` and the function's name.
        device: its ordinal.
        run: one number for each run of a program.
        start, end: milliseconds since the trace began.
    """

    name: str
    program: str
    device: int
    run: int
    start: float
    end: float


@dataclass(frozen=True)
class Interval:
    """From ``start`` to ``end``, in milliseconds."""

    start: float
    end: float

    @property
    def length(self) -> float:
        """Milliseconds."""
        return self.end - self.start


@dataclass(frozen=True)
class Round:
    """When each role worked in one round."""

    target: Interval
    draft: Interval

    @property
    def start(self) -> float:
        """When the first of them began."""
        return min(self.target.start, self.draft.start)

    @property
    def end(self) -> float:
        """When the last of them was done."""
        return max(self.target.end, self.draft.end)


@contextmanager
def traced(folder: Path) -> Iterator[None]:
    """Write a profiler trace of what runs inside. Python's own calls are left out: to note them
    takes longer than they do."""
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    with jax.profiler.trace(folder, profiler_options=options):
        yield


def read_ops(folder: Path) -> list[Op]:
    """The operations of the newest trace below ``folder``, by their start; none where the profiler
    does not name programs and devices."""
    files = sorted(folder.rglob("*.xplane.pb"), key=lambda file: file.stat().st_mtime)
    if not files:
        return []
    with warnings.catch_warnings():
        # jaxlib's own types warn in Python 3.12, and abort the process if a warning is an error.
        warnings.simplefilter("ignore", DeprecationWarning)
        trace = jax.profiler.ProfileData.from_file(str(files[-1]))
        lines = [line for plane in trace.planes for line in plane.lines]
        found = [_op(event) for line in lines for event in line.events]
    return sorted((op for op in found if op is not None), key=lambda op: op.start)


def _op(event: Any) -> Op | None:
    """``None`` for what is not an operation of a compiled program."""
    stats = dict(event.stats)
    if not {"hlo_module", "device_ordinal", "run_id"} <= stats.keys():
        return None
    return Op(
        name=event.name,
        program=str(stats["hlo_module"]),
        device=int(stats["device_ordinal"]),
        run=int(stats["run_id"]),
        start=event.start_ns / 1e6,
        end=(event.start_ns + event.duration_ns) / 1e6,
    )


def of_runs(ops: Sequence[Op], program: str) -> list[Interval]:
    """Each run of a program, from its first operation to its last."""
    runs: dict[int, list[Op]] = {}
    for op in ops:
        if op.program == program:
            runs.setdefault(op.run, []).append(op)
    found = [Interval(run[0].start, max(op.end for op in run)) for run in runs.values()]
    return sorted(found, key=lambda interval: interval.start)


def of_branches(ops: Sequence[Op], program: str, device: int) -> list[Interval]:
    """A device's part of each round of one program: from each branch to the next collective."""
    own = [op for op in ops if op.program == program and op.device == device]
    starts = [op.start for op in own if _BRANCH.match(op.name)]
    waits = [op.start for op in own if _COLLECTIVE.match(op.name)]
    found = []
    for start in starts:
        stop = next((wait for wait in waits if wait > start), float("inf"))
        ends = [op.end for op in own if start <= op.start < stop]
        found.append(Interval(start, min(max(ends), stop)))
    return found


def rounds_of(target: Sequence[Interval], draft: Sequence[Interval], count: int) -> list[Round]:
    """The first ``count`` rounds, counted from the first one's start. Behind the last there may be
    runs that found nothing left to do. Empty where the trace does not show as many."""
    if min(len(target), len(draft)) < count:
        return []
    pairs = list(itertools.starmap(Round, zip(target[:count], draft[:count], strict=True)))
    zero = pairs[0].start

    def shifted(interval: Interval) -> Interval:
        return Interval(interval.start - zero, interval.end - zero)

    return [Round(shifted(one.target), shifted(one.draft)) for one in pairs]


def periods(rounds: Sequence[Round]) -> list[float]:
    """Milliseconds of each round: from its start to the next one's, the last to its end."""
    starts = [one.start for one in rounds] + [rounds[-1].end]
    return [after - before for before, after in itertools.pairwise(starts)]
