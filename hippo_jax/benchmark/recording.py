"""Where a pair's draft is right, place by place: recorded once, replayed with random weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from hippo_jax.benchmark.acceptance import NEW_TOKENS, REFERENCE, Setting, batches_of, check_same
from hippo_jax.benchmark.measure import machine
from hippo_jax.decoding.config import DEFAULT_GAMMA, HippoConfig
from hippo_jax.decoding.generate import generate
from hippo_jax.errors import HippoError
from hippo_jax.resources import pair_directory

NAME = "acceptance.json"  # beside a pair's card


def pattern_of(runs: Sequence[int], tokens: int) -> list[bool]:
    """Where the draft was right, place by place of an answer, from the parallel schedule's runs
    (``SpeculationStats.runs`` of one row): every token was judged, and each run ended with one that
    was not the draft's. ``tokens``: of the answer."""
    found: list[bool] = []
    for run in runs:
        if run >= 0:
            found += [True] * int(run) + [False]
    return found + [True] * (tokens - len(found))


def record(
    pair: Any,
    clips: Sequence[Path],
    prompts: Sequence[str],
    *,
    gamma: int = DEFAULT_GAMMA,
    batch: int | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Whether the draft, given the target's answer up to each place, proposes the target's token
    for it: a text of ``0`` and ``1`` for each clip, which depends neither on the schedule nor on
    gamma. The draft sees what it sees by default.

    Args:
        clips: video files of one size; clip i is asked ``prompts[i]``.

    Raises:
        HippoError: tokens that are not those of plain decoding.
    """
    ratio = HippoConfig().keep_ratio
    setting, answers = Setting(REFERENCE, ratio), []
    for inputs, rows in batches_of(pair, clips, prompts, batch):
        expected = jax.device_get(generate(pair.target, inputs, max_new_tokens=NEW_TOKENS))
        found = jax.device_get(setting.decode(pair, inputs, gamma, "parallel"))
        check_same(expected, found, setting.name)
        for runs, length in list(zip(found.stats.runs, found.lengths, strict=True))[:rows]:
            pattern = pattern_of(runs.tolist(), int(length))
            answers.append("".join("01"[right] for right in pattern))
        report(f"{len(answers)} of {len(clips)} clips")
    return {"machine": machine(), "keep_ratio": ratio, "clips": len(clips), "answers": answers}


@dataclass(frozen=True)
class Recording:
    """Where a pair's draft was right.

    Attributes:
        answers: of each clip, place by place.
        keep_ratio: what the draft saw.
    """

    answers: Sequence[Sequence[bool]]
    keep_ratio: float

    @property
    def places(self) -> int:
        """Tokens of all answers."""
        return sum(map(len, self.answers))

    @property
    def rate(self) -> float:
        """Share of them that the draft had right."""
        return sum(map(sum, self.answers)) / self.places


def read_recording(pair: str, path: Path | None = None) -> Recording:
    """The recording beside a pair's card, made by ``hippo bench --record``.

    Raises:
        HippoError: there is none, or it cannot be used.
    """
    path = pair_directory(pair) / NAME if path is None else path
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        answers = [[{"0": False, "1": True}[mark] for mark in one] for one in found["answers"]]
        kept = Recording(answers, float(found["keep_ratio"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise HippoError(
            f"{path} holds no recorded acceptance ({type(error).__name__}); make it with "
            f"hippo bench --record {path}"
        ) from error
    if not kept.places:
        raise HippoError(f"{path} holds no recorded acceptance: it has no answers")
    return kept
