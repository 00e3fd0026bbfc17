"""Ways of decoding the same prompts, timed in turns, each held to the target's own tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hippo_jax.benchmark.acceptance import figures
from hippo_jax.benchmark.measure import Once, Run, Summary, directly, interleave
from hippo_jax.benchmark.timed import Answers, Decoder, timed
from hippo_jax.errors import HippoError
from hippo_jax.inputs.model_inputs import ModelInputs
from hippo_jax.studies.charts import Point

PLAIN = "target alone"


@dataclass(frozen=True)
class Way:
    """One way to decode and how it did.

    Attributes:
        answers: of the last turn.
        times: as ``benchmark.timed.timed`` names them.
    """

    answers: Answers
    times: Mapping[str, Summary]

    @property
    def counters(self) -> dict[str, float | None]:
        """Acceptance in %, MAT and tokens a round, pooled over clips."""
        found = figures(self.answers.pooled)
        rate = found["acceptance_rate"]
        return {
            "acceptance": None if rate is None else 100 * rate,
            "mat": found["mat"],
            "tokens_per_round": found["tokens_per_round"],
        }

    def speedup(self, plain: Way) -> dict[str, float]:
        """Median times of plain decoding divided by one's own, without prefill and with it."""
        parts = {"decode_speedup": "decode_ms_per_token", "whole_speedup": "whole_s"}
        return {
            name: plain.times[part].median / self.times[part].median for name, part in parts.items()
        }


def measure_ways(
    prompts: Mapping[str, Sequence[ModelInputs]],
    decoders: Mapping[str, Decoder],
    plain: Mapping[str, str],
    repeats: int,
    report: Callable[[str], None],
    others: Mapping[str, Run] | None = None,
    once: Once = directly,
) -> tuple[dict[str, Way], dict[str, dict[str, Summary]]]:
    """Time every decoder on its prompts in turns (A B A B), and compare what they say.

    Args:
        prompts, decoders: by name of the way.
        plain: which way of plain decoding, on the same prompts, each other way must equal.
        others: what else to measure in the same turns.
        once: a part is a turn, of which the answers were compared.

    Returns the ways, and the times of ``others``.

    Raises:
        HippoError: other tokens than the target's.
    """
    answers = {name: Answers() for name in decoders}
    runs = {name: timed(prompts[name], decoders[name], answers[name]) for name in decoders}
    for number, (name, decoder) in enumerate(decoders.items(), 1):
        report(f"compiling {number} of {len(decoders)}: {name}")
        first = prompts[name][0]
        decoder.finish(first, decoder.begin(first))

    def compare() -> None:
        for name, reference in plain.items():
            if answers[name].tokens != answers[reference].tokens:
                raise HippoError(f"not the target's own tokens ({name}): decoding is at fault")

    def compared_once(part: str, work: Callable[[], Any]) -> Any:
        def compared() -> Any:
            found = work()
            compare()
            return found

        return once(part, compared)

    # The turn that warms up is taken in every run, so that there are answers.
    results = interleave({**runs, **(others or {})}, repeats, report, compared_once)
    compare()
    ways = {name: Way(answers[name], results[name]) for name in decoders}
    return ways, {name: results[name] for name in others or {}}


def point(value: Any) -> Point | None:
    """A value of a study's row for a line of a chart."""
    if value is None or isinstance(value, str):
        return None
    if isinstance(value, Summary):
        return value.median, value.low, value.high
    return float(value), float(value), float(value)


def check_repeats(repeats: int) -> None:
    """Raise ``HippoError`` unless something is measured."""
    if repeats < 1:
        raise HippoError(f"--repeats {repeats}: at least one is needed")
