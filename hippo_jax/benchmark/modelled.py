"""What a run's step times would make of the paper's settings: modelled, nothing is measured here.

The paper (arXiv 2601.08273) gives mean accepted tokens (a run's length with the token that ends it)
of parallel decoding and speedups over plain decoding, for a target of 32B or 72B with a draft of
7B on H200s. A run of mean length m means that a draft token is accepted with probability 1 - 1 / m,
if all are alike and independent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from hippo_jax.benchmark.measure import Summary, where
from hippo_jax.benchmark.parts import step_times, without_scores
from hippo_jax.scheduling.time_model import StepTimes, generation_seconds, plain_seconds

GAMMAS = range(3, 8)  # the paper's
NEW_TOKENS = 256  # the paper's is not known to us; its neighbours use this
PAPER_BEST = 3.51


@dataclass(frozen=True)
class Reported:
    """What the paper reports for a benchmark.

    Attributes:
        mat: mean accepted tokens, with the correcting token.
        speedup: over plain decoding, wall time; ``None`` where we have not seen it.
    """

    mat: float
    speedup: float | None

    @property
    def acceptance(self) -> float:
        """Of a draft token."""
        return 1 - 1 / self.mat


REPORTED = {
    "VideoDetailCaption": Reported(8.05, 2.31),
    "LVBench": Reported(12.12, None),
    "MLVU": Reported(12.42, 2.78),
}


def model_paper(outcome: Mapping[str, Any]) -> dict[str, Any]:
    """Speedups over plain decoding by ``scheduling.time_model``, prefill included, at the best of
    the paper's gammas.

    ``parallel``: the draft on a device like the target's, at the same time, and an exchange costs
    nothing. ``sequential``: both on one device. ``rival``: the sequential schedule with both models
    split over the same two devices, each part of it taking half the time: the most that tensor
    parallelism could give, as its exchanges are left out.

    Args:
        outcome: of ``measure_speed``.
    """
    parts = {name: {"ms": Summary(**found["ms"])} for name, found in outcome["parts"].items()}
    times = step_times(parts)
    alone = plain_seconds(without_scores(times, parts), NEW_TOKENS)
    ways = {
        "parallel": (times, "parallel", True),
        "sequential": (times, "sequential", False),
        "rival": (_halved(times), "sequential", False),
    }
    rows = {}
    for name, reported in REPORTED.items():
        best = {}
        for way, (own, schedule, concurrent) in ways.items():
            best[way] = max(
                (
                    alone
                    / generation_seconds(
                        own,
                        reported.acceptance,
                        gamma,
                        schedule,  # type: ignore[arg-type]
                        concurrent,
                        NEW_TOKENS,
                    ),
                    gamma,
                )
                for gamma in GAMMAS
            )
        rows[name] = {
            "acceptance": reported.acceptance,
            "paper_speedup": reported.speedup,
            **{f"modelled_{way}": speed for way, (speed, _) in best.items()},
            **{f"gamma_{way}": gamma for way, (_, gamma) in best.items()},
        }
    return {
        "machine": outcome["machine"],
        "case": outcome["case"],
        "new_tokens": NEW_TOKENS,
        "ratio_of_steps": times.verify_time(1) / times.draft_step,
        "settings": rows,
    }


def _halved(times: StepTimes) -> StepTimes:
    """All work split evenly over two devices."""
    return replace(
        times,
        draft_step=times.draft_step / 2,
        verify={q: seconds / 2 for q, seconds in dict(times.verify).items()},
        target_vision=times.target_vision / 2,
        target_prefill=times.target_prefill / 2,
        selection=times.selection / 2,
        draft_vision=times.draft_vision / 2,
        draft_prefill=times.draft_prefill / 2,
    )


def as_table(found: Mapping[str, Any]) -> str:
    """Markdown, with the word in the title."""
    case = found["case"]
    lines = [
        f"Modelled speedups at the paper's acceptance: step times of {case['name']} "
        f"({case['dtype']}, {case['visual_tokens']} visual tokens; {where(found['machine'])}), one "
        f"target step = {found['ratio_of_steps']:.1f} draft steps, {found['new_tokens']} new "
        f"tokens, best gamma of {GAMMAS.start} to {GAMMAS.stop - 1}, prefill included",
        "",
        "| acceptance as on | acceptance, % | parallel, two devices, modelled | sequential, one "
        "device, modelled | sequential, both models over two devices, ideal, modelled | the paper "
        "|",
        "|" + "---|" * 6,
    ]
    for name, row in found["settings"].items():
        cells = [name, f"{100 * row['acceptance']:.1f}"]
        for way in ("parallel", "sequential", "rival"):
            cells.append(f"{row[f'modelled_{way}']:.2f} (gamma {row[f'gamma_{way}']})")
        cells.append("" if row["paper_speedup"] is None else f"{row['paper_speedup']:.2f}")
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", f"The paper's best is {PAPER_BEST}, on other models and devices."]
    return "\n".join(lines)
