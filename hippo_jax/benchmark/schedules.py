"""What the model of time makes of a pair's measured parts, beside the time that schedules take."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from hippo_jax.architectures.sharding import TENSOR_AXIS
from hippo_jax.benchmark.hop import measured_hop
from hippo_jax.benchmark.measure import Run, Summary, cell, interleave, machine, plain, where
from hippo_jax.benchmark.parts import measured_parts, step_times, without_scores
from hippo_jax.benchmark.recording import pattern_of
from hippo_jax.decoding.config import HippoConfig
from hippo_jax.decoding.generate import Generation, generate
from hippo_jax.errors import HippoError
from hippo_jax.inputs.model_inputs import ModelInputs
from hippo_jax.inputs.prepare import prepare_inputs
from hippo_jax.placement.pair import ModelPair, load_pair
from hippo_jax.placement.placement import Placement
from hippo_jax.resources import clip, clip_names
from hippo_jax.scheduling.hippo import hippo_generate
from hippo_jax.scheduling.plan import make_plan
from hippo_jax.scheduling.time_model import (
    Schedule,
    StepTimes,
    plain_seconds,
    predict_wall,
    replay,
)

ONE = "one device"
PLAIN, SEQUENTIAL, PARALLEL = "target alone", "sequential", "parallel, by turns"
Parts = Mapping[str, Mapping[str, Summary]]


@dataclass(frozen=True)
class Way:
    """One way to decode.

    Attributes:
        name: for the table.
        schedule: ``None`` for the target alone.
        pair: where it is placed.
        parts: whose measured parts it is predicted from.
        concurrent: whether the roles work at the same time.
    """

    name: str
    schedule: Schedule | None
    pair: ModelPair
    parts: str = ONE
    concurrent: bool = False

    def decode(self, inputs: ModelInputs, new_tokens: int, gamma: int) -> Generation:
        """One answer, greedy."""
        if self.schedule is None:
            return generate(self.pair.target, inputs, max_new_tokens=new_tokens)
        config = HippoConfig(schedule=self.schedule, gamma=gamma)
        return hippo_generate(self.pair, inputs, max_new_tokens=new_tokens, config=config)


def all_ways(pair: str, devices: tuple[int, int] | None) -> list[Way]:
    """Those on one device; with ``devices`` (the target's and the draft's) three on all of them.

    Raises:
        HippoError: an unknown pair, too few devices.
    """
    single = load_pair(pair)
    ways = [
        Way(PLAIN, None, single),
        Way(SEQUENTIAL, "sequential", single),
        Way(PARALLEL, "parallel", single),
    ]
    if devices is None:
        return ways
    apart = Placement.on(*devices)
    assert apart.target is not None and apart.draft is not None
    every = np.concatenate([mesh.devices.ravel() for mesh in (apart.target, apart.draft)])
    shared = Mesh(every, (TENSOR_AXIS,))
    counts, total = f"{devices[0]} + {devices[1]} devices", f"{sum(devices)} devices"
    places = {
        f"parallel, two meshes, {counts}": apart,
        f"parallel, one program, {counts}": Placement.on(*devices, one_program=True),
    }
    for name, placement in places.items():
        placed = load_pair(pair, placement=placement)
        ways.append(Way(name, "parallel", placed, counts, concurrent=True))
    rival = load_pair(pair, placement=Placement(target=shared, draft=shared))
    ways.append(Way(f"sequential, both models over {total}", "sequential", rival, total))
    return ways


def predict(
    way: Way, times: StepTimes, parts: Parts, patterns: Sequence[Sequence[bool]], gamma: int
) -> tuple[float, int]:
    """Mean seconds of a way's answers, and how many rounds they take together."""
    if way.schedule is None:
        alone = without_scores(times, parts)
        return fmean(plain_seconds(alone, len(pattern)) for pattern in patterns), 0
    replayed = [replay(pattern, gamma, way.schedule) for pattern in patterns]
    walls = [predict_wall(times, one, way.concurrent) for one in replayed]
    return fmean(walls), sum(one.rounds for one in replayed)


def compare_schedules(
    *,
    pair: str,
    new_tokens: int,
    repeats: int,
    gamma: int,
    devices: tuple[int, int] | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Seconds a clip that ``time_model`` predicts for each way to decode the embedded clips, and
    seconds measured, from prompt to last token, compiled before. Greedy.

    Predicted from forwards of the target over several widths and of the draft, the parts of both
    prefills, and where the draft was right in the clips' answers (``"pattern"``, from the parallel
    schedule's runs). Nothing is fitted to the times that are predicted. All is measured in turns of
    one run.

    Args:
        devices: how many the target and the draft have of their own. Three ways more are then
            measured: one program with two roles, two meshes, and the fair rival: both models
            tensor-parallel over all of these devices, taking turns.

    Raises:
        HippoError: numbers that do not fit, an unknown pair, too few devices, tokens that are not
            the target's.
    """
    if new_tokens < 2 or repeats < 1:
        raise HippoError("the benchmark needs at least 2 new tokens and 1 repeat")
    ways = all_ways(pair, devices)
    names = clip_names()
    inputs = [prepare_inputs(ways[0].pair, clip(name), "Describe the video.") for name in names]
    answers: dict[str, list[Generation]] = {}
    runs: dict[str, Run] = {}
    parts: dict[str, list[str]] = {}
    for way in ways:
        report(f"compiling: {way.name}")
        runs[way.name] = _whole(way, inputs, new_tokens, gamma, answers)
        config = HippoConfig(schedule="parallel", gamma=gamma)
        plan, limit = make_plan(way.pair, inputs[0], new_tokens, None, None, None, None, config)
        if way.parts not in parts:
            found = measured_parts(way.pair, inputs[0], plan)
            parts[way.parts] = list(found)
            runs |= {f"{way.parts}: {name}": run for name, run in found.items()}
        if way.concurrent:
            runs[f"{way.name}: hop"] = measured_hop(way.pair, inputs[0], limit, plan)
    results = interleave(runs, repeats, report)
    for name, said in answers.items():
        if not _same(said, answers[PLAIN]):
            raise HippoError(f"{name}: not the target's own tokens; decoding is at fault")
    patterns = [
        pattern_of(one.stats.runs[0].tolist(), int(one.lengths[0])) for one in answers[PARALLEL]
    ]
    rows = {}
    for way in ways:
        own = {name: results[f"{way.parts}: {name}"] for name in parts[way.parts]}
        hop = results[f"{way.name}: hop"]["ms"].median if way.concurrent else 0.0
        seconds, rounds = predict(way, step_times(own, hop), own, patterns, gamma)
        measured = results[way.name]["s"]
        rows[way.name] = {
            "measured_s": asdict(measured),
            "modelled_s": seconds,
            "error_percent": 100 * (seconds / measured.median - 1),
            "rounds": sum(int(one.stats.rounds[0]) for one in answers[way.name] if one.stats),
            "modelled_rounds": rounds,
        }
    return {
        "machine": machine(),
        "pair": pair,
        "clips": len(inputs),
        "gamma": gamma,
        "keep_ratio": HippoConfig().keep_ratio,
        "max_new_tokens": new_tokens,
        "repeats": repeats,
        "devices": devices,
        "tokens": sum(map(len, patterns)),
        "acceptance": fmean(right for pattern in patterns for right in pattern),
        "patterns": patterns,
        "same_tokens": True,  # else there had been an error
        "schedules": rows,
        "parts_ms": plain({name: found for name, found in results.items() if name not in rows}),
    }


def _whole(
    way: Way,
    inputs: Sequence[ModelInputs],
    new_tokens: int,
    gamma: int,
    answers: dict[str, list[Generation]],
) -> Run:
    """All clips, one after the other; seconds a clip."""

    def run() -> dict[str, float]:
        begin = time.perf_counter()
        found = [jax.block_until_ready(way.decode(one, new_tokens, gamma)) for one in inputs]
        seconds = (time.perf_counter() - begin) / len(inputs)
        answers[way.name] = jax.device_get(found)
        return {"s": seconds}

    return run


def _same(some: Sequence[Generation], others: Sequence[Generation]) -> bool:
    """Whether the answers have the same tokens."""
    return all(
        np.array_equal(one.tokens, other.tokens) and np.array_equal(one.lengths, other.lengths)
        for one, other in zip(some, others, strict=True)
    )


def as_table(outcome: Mapping[str, Any]) -> str:
    """The outcome as two markdown tables."""
    shared = ""
    if outcome["devices"] is not None and outcome["machine"]["platform"] == "cpu":
        shared = "; all devices share these cores, which the model does not know"
    lines = [
        f"{outcome['pair']}: {outcome['clips']} clips, {outcome['tokens']} new tokens in all, "
        f"gamma {outcome['gamma']}, keep ratio {outcome['keep_ratio']:g}, greedy, acceptance "
        f"{outcome['acceptance']:.3f}, median of {outcome['repeats']} (smallest to largest); "
        f"{where(outcome['machine'])}{shared}",
        "",
        "| | s a clip, modelled | s a clip, measured | error of the model "
        "| rounds, modelled | rounds |",
        "|" + "---|" * 6,
    ]
    for name, row in outcome["schedules"].items():
        cells = [name, f"{row['modelled_s']:.3g}", cell(row["measured_s"])]
        cells.append(f"{row['error_percent']:+.1f} %")
        cells += [str(row["modelled_rounds"]), str(row["rounds"])] if row["rounds"] else ["", ""]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "| part, measured alone | ms |", "|---|---|"]
    lines += [f"| {name} | {cell(found['ms'])} |" for name, found in outcome["parts_ms"].items()]
    return "\n".join(lines)
