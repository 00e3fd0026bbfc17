"""Whether a parallel round takes as long as the slower role alone, in both schedulers.

The schedulers' own rounds run on two CPU devices with a pair whose forwards take a known time
(``injected``). Measured in turns, each under the profiler: each role's program of a round alone,
both roles one after the other on one device, rounds of one program with two roles, and rounds of
two meshes side by side. That shows what the schedules do, not how fast a real pair is: real
forwards on the same host share its cores.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import jax

from hippo_jax.benchmark.cpu_devices import cpu_devices
from hippo_jax.benchmark.injected import KINDS, Kind, make_works
from hippo_jax.benchmark.injected_rounds import ADVANCE, PROPOSES, VERIFIES, Answer, InjectedRounds
from hippo_jax.benchmark.intervals import (
    Op,
    Round,
    of_branches,
    of_runs,
    periods,
    read_ops,
    rounds_of,
    traced,
)
from hippo_jax.benchmark.measure import Run, cell, interleave, machine, plain, where
from hippo_jax.errors import HippoError

SCHEDULERS = {"A": "one program, two roles", "B": "two meshes"}
GAMMA, ROUNDS, REPEATS = 4, 8, 7
TARGET_MS, DRAFT_MS = 25.0, 20.0  # injected into a target forward and into a chunk


@dataclass
class Last:
    """What the turn before left behind: each way's answer, each scheduler's rounds."""

    turns: int = 0
    answers: dict[str, Answer] = field(default_factory=dict)
    rounds: dict[str, list[Round]] = field(default_factory=dict)


def measure_overlap(
    *,
    repeats: int = REPEATS,
    rounds: int = ROUNDS,
    target_ms: float = TARGET_MS,
    draft_ms: float = DRAFT_MS,
    kinds: Sequence[Kind] = tuple(KINDS),
    trace: Path | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Milliseconds of a round by kind of work and scheduler, and how many times those of the slower
    role alone (``"ratio"``, turn by turn).

    A round's time is the median over a turn's rounds, from one's beginning to the next one's, out
    of the profiler's trace; where that does not show the rounds (``"intervals"`` is then false), it
    is the wall clock's over all of them. ``"wall_ms"`` is always the latter: it has the host's work
    before the first round and behind the last in it. ``"timeline"`` are the last turn's rounds.

    Args:
        repeats: turns that the medians are taken of.
        rounds: of one turn.
        target_ms, draft_ms: injected into each target forward and each chunk of the draft.
        kinds: of injected work.
        trace: a folder for the profiler's traces of the last turn; ``None`` keeps none.

    Raises:
        HippoError: numbers that do not fit, no two CPU devices, tokens that are not those of one
            device.
    """
    if repeats < 1 or rounds < 2 or min(target_ms, draft_ms) <= 0:
        raise HippoError("overlap needs at least 1 repeat, 2 rounds and times above 0")
    devices = cpu_devices(2)
    by_kind = {}
    for kind in kinds:
        name = KINDS[kind]
        report(f"compiling: {name}")
        works = make_works(kind, target_ms / 1e3, draft_ms / 1e3, GAMMA)
        own, last = InjectedRounds.of(works, devices, GAMMA, rounds), Last()
        turn = one_turn(own, devices, repeats, trace and trace / kind, last)
        found = interleave({name: turn}, repeats, report)
        if len({tuple(tokens) for tokens, _ in last.answers.values()}) > 1:
            raise HippoError(f"the schedulers do not say the same ({name}): decoding is at fault")
        by_kind[kind] = _by_scheduler(plain(found)[name], last)
    return {
        "machine": machine(),
        "gamma": GAMMA,
        "rounds": rounds,
        "repeats": repeats,
        "injected_ms": {"target": target_ms, "draft": draft_ms},
        "same_tokens": True,  # else there had been an error
        "kinds": by_kind,
    }


def one_turn(
    own: InjectedRounds,
    devices: list[jax.Device],
    repeats: int,
    trace: Path | None,
    last: Last,
) -> Run:
    """One run of each way, one behind the other. ``devices``: the target's and the draft's."""

    def timed(name: str, go: Callable[[], Any]) -> tuple[float, Any, list[Op]]:
        """Milliseconds in all, what ``go`` found, and what the profiler saw."""
        with tempfile.TemporaryDirectory() as folder:
            # The first turn is not counted: it compiles, and a trace of that is of no use.
            with traced(Path(folder)) if last.turns else contextlib.nullcontext():
                begin = time.perf_counter()
                answer = go()
                wall = 1e3 * (time.perf_counter() - begin)
            if trace is not None and last.turns == repeats:
                shutil.copytree(folder, trace / name, dirs_exist_ok=True)
            return wall, answer, read_ops(Path(folder))

    def run() -> dict[str, float]:
        found: dict[str, float] = {}
        alone = {"target": (own.target_alone, VERIFIES), "draft": (own.draft_alone, PROPOSES)}
        for role, (prepare, program) in alone.items():
            wall, _, ops = timed(f"{role} alone", prepare())
            busy = [interval.length for interval in of_runs(ops, program)]
            found[f"{role}_ms"] = median(busy) if busy else wall / own.rounds
        slower = max(found.values())
        wall, answer, _ = timed("one after the other", own.by_turns())
        last.answers["serial"] = answer
        found["serial_ms"] = wall / answer[1]
        for scheduler, ready in (("A", own.in_one_program()), ("B", own.on_two_meshes())):
            wall, answer, ops = timed(SCHEDULERS[scheduler], ready)
            if scheduler == "A":
                roles = [of_branches(ops, ADVANCE, device.id) for device in devices]
            else:
                roles = [of_runs(ops, program) for program in (VERIFIES, PROPOSES)]
            seen = rounds_of(roles[0], roles[1], answer[1])
            last.answers[scheduler], last.rounds[scheduler] = answer, seen
            wall /= answer[1]
            taken = median(periods(seen)) if seen else wall
            found |= {f"{scheduler} wall_ms": wall, f"{scheduler} round_ms": taken}
            found[f"{scheduler} ratio"] = taken / slower
        last.turns += 1
        return found

    return run


def _by_scheduler(found: Mapping[str, Any], last: Last) -> dict[str, Any]:
    """A kind's measurements, those of each scheduler under its letter."""
    outcome = {name: found[name] for name in ("target_ms", "draft_ms", "serial_ms")}
    for scheduler in SCHEDULERS:
        seen = last.rounds[scheduler]
        outcome[scheduler] = {
            **{name: found[f"{scheduler} {name}"] for name in ("round_ms", "wall_ms", "ratio")},
            "intervals": bool(seen),
            "timeline": [asdict(one) for one in seen],
        }
    return outcome


def as_table(outcome: Mapping[str, Any]) -> str:
    """The outcome as a markdown table."""
    injected = outcome["injected_ms"]
    lines = [
        f"One parallel round, ms, of a tiny pair with injected work (target {injected['target']:g} "
        f"ms a forward, draft {injected['draft']:g} ms a chunk of {outcome['gamma']}), median of "
        f"{outcome['repeats']} turns of {outcome['rounds']} rounds (smallest to largest); "
        f"{where(outcome['machine'])}, two CPU devices that share the cores",
        "",
        "| work | target alone | draft alone | one after the other | scheduler | round "
        "| round / slower role alone |",
        "|" + "---|" * 7,
    ]
    for kind, found in outcome["kinds"].items():
        alone = [cell(found[name]) for name in ("target_ms", "draft_ms", "serial_ms")]
        for scheduler, name in SCHEDULERS.items():
            own = found[scheduler]
            ratio = own["ratio"]
            cells = [KINDS[kind], *alone, f"{scheduler}: {name}", cell(own["round_ms"])]
            cells.append(f"{ratio['median']:.3f} ({ratio['low']:.3f} to {ratio['high']:.3f})")
            lines.append(f"| {' | '.join(cells)} |")
    seen = all(found[s]["intervals"] for found in outcome["kinds"].values() for s in SCHEDULERS)
    lines += [
        "",
        "Rounds and roles alone: intervals from the profiler; one after the other: wall clock.",
    ]
    if not seen:
        lines[-1] = "The profiler's trace does not show the rounds: wall clock over all of them."
    return "\n".join(lines)
