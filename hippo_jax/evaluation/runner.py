"""A pair over samples: decoding ahead, batches of one size, a durable line a sample.

A line (see ``results``) holds what was measured, so that every figure can be made again:

    index, id, kind, tasks   of the sample
    error                    why there is no answer, else null and the fields below
    text, tokens             the answer; the end token, if any, is the last one
    prompt_tokens, visual_tokens, kept_visual_tokens
    stats                    rounds, round_tokens, accepted, judged and runs of SpeculationStats
    seconds                  prepare: reading the video; hippo and plain: this row's share of its
                             call (prefill and decoding; compiling left out)
    batch                    the first sample of the call, which rows of one call share
    answer, letter, rule     of a question: the right letter and the one that the text gives
    plain                    equal: whether plain decoding gave the same tokens; of the first
                             difference its place and both tokens; null where it was not run
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from hippo_jax.decoding.config import HippoConfig
from hippo_jax.decoding.generate import Generation
from hippo_jax.errors import HippoError
from hippo_jax.evaluation.calls import HIPPO, PLAIN, Calls
from hippo_jax.evaluation.choice import read_answer
from hippo_jax.evaluation.pipeline import ahead, gather
from hippo_jax.evaluation.samples import Sample
from hippo_jax.inputs.model_inputs import Media
from hippo_jax.inputs.model_inputs import Row as Prompt
from hippo_jax.inputs.prepare import prepare_rows
from hippo_jax.inputs.sampling import check_rates
from hippo_jax.weights.journal import Journal

AHEAD = 2  # calls whose videos are read while one runs
PATIENCE = 4  # calls whose rows may wait for others of their size


@dataclass(frozen=True)
class Settings:
    """What is evaluated, samples and pair aside.

    Attributes:
        config: of HIPPO decoding, which is greedy here.
        max_new_tokens: of every answer.
        fps, num_frames, max_pixels: frames, as for ``prepare_inputs``.
        replicas, batch: pairs of this process, a device each, and rows of each in one call.
        devices: over how many one pair is split instead, one number, or the target's and the
            draft's. Tokens do not depend on it, but times do.
        baseline: plain decoding of the captions too, in turns with HIPPO's.
        check: plain decoding of everything.
    """

    config: HippoConfig = field(default_factory=HippoConfig)
    max_new_tokens: int = 128
    fps: float | None = None
    num_frames: int | None = None
    max_pixels: int | None = None
    replicas: int = 1
    batch: int = 1
    devices: tuple[int, ...] | None = None
    baseline: bool = True
    check: bool = False

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise HippoError(f"max_new_tokens must be at least 1, got {self.max_new_tokens}")
        check_rates(self.fps, self.num_frames)


@dataclass(frozen=True)
class Prepared:
    """A sample's prompt, ready for a batch."""

    prompt: Prompt
    size: Any
    seconds: float


class Preparer:
    """Reads a sample's video and makes its prompt. The last videos are kept, as benchmarks ask
    several questions about one. Called by several threads."""

    KEPT = 2

    def __init__(self, calls: Calls, settings: Settings) -> None:
        self.calls, self.settings = calls, settings
        self._media: OrderedDict[Any, Sequence[Media]] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, sample: Sample) -> Prepared:
        """The prompt and its size; HippoError says what is wrong with the video."""
        begin = time.perf_counter()
        part = (sample.video, sample.start, sample.end)
        with self._lock:
            media = self._media.get(part)
        prompt = self._prompt(sample, media)
        with self._lock:
            self._media[part] = prompt.media
            while len(self._media) > self.KEPT:
                self._media.popitem(last=False)
        size = self.calls.size_of(prompt)
        return Prepared(prompt, size, time.perf_counter() - begin)

    def _prompt(self, sample: Sample, media: Sequence[Media] | None) -> Prompt:
        model, settings = self.calls.pair.target, self.settings
        if media is not None:
            return prepare_rows(model, [list(media)], sample.prompt)[0]
        return prepare_rows(
            model,
            sample.video,
            sample.prompt,
            max_pixels=settings.max_pixels,
            fps=settings.fps,
            num_frames=settings.num_frames,
            start=sample.start,
            end=sample.end,
            folder_fps=sample.frame_rate,
        )[0]


def run_samples(
    samples: Iterable[tuple[int, Sample]],
    calls: Calls,
    settings: Settings,
    results: Journal,
    *,
    prepare: Callable[[Sample], Prepared] | None = None,
    to_text: Callable[[Sequence[int]], str] | None = None,
    report: Callable[[int], None] = lambda done: None,
) -> None:
    """Evaluate samples and append a line for each.

    Args:
        samples: with their places in the benchmark.
        prepare, to_text: other ways to make prompts and texts than by the pair's own files.
        report: called with how many lines were written.
    """
    prepare = prepare or Preparer(calls, settings)
    to_text = to_text or _decoder(calls)

    depth = AHEAD * calls.rows
    workers = max(2, min(calls.rows, (os.cpu_count() or 2) // 2))

    def ready() -> Iterator[tuple[int, Sample, Prepared]]:
        read = ahead(samples, lambda one: prepare(one[1]), depth=depth, workers=workers)
        for (index, sample), found in read:
            if isinstance(found, Exception):
                results.append({**_head(index, sample), "error": _reason(found)})
                report(1)
            else:
                yield index, sample, found

    def size_of(one: tuple[int, Sample, Prepared]) -> Any:
        # Captions are timed, so their calls are not shared with questions.
        return one[1].kind, one[2].size

    patience = PATIENCE * calls.rows
    for number, group in enumerate(gather(ready(), size_of, calls.rows, patience)):
        for row in _call(group, calls, settings, to_text, plain_first=number % 2 == 1):
            results.append(row)
        report(len(group))


def _call(
    group: Sequence[tuple[int, Sample, Prepared]],
    calls: Calls,
    settings: Settings,
    to_text: Callable[[Sequence[int]], str],
    plain_first: bool,
) -> list[dict[str, Any]]:
    """The lines of one call. Ways of decoding take turns in who goes first: videos are read
    behind that one above all."""
    kind = group[0][1].kind
    ways = [HIPPO]
    if settings.check or (settings.baseline and kind == "caption"):
        ways = [PLAIN, HIPPO] if plain_first else [HIPPO, PLAIN]
    try:
        inputs = calls.inputs([one[2].prompt for one in group])
        calls.compile(ways, inputs)
        found = {way: calls.decode(way, inputs, len(group)) for way in ways}
    except (HippoError, jax.errors.JaxRuntimeError, MemoryError) as error:
        # A device that is too small for these videos may hold the next ones.
        return [{**_head(i, sample), "error": _reason(error)} for i, sample, _ in group]
    plain = found.get(PLAIN)
    seconds = {way: one.seconds / len(group) for way, one in found.items()}
    rows = []
    for place, (index, sample, prepared) in enumerate(group):
        tokens = _tokens(found[HIPPO].generation, place)
        text = to_text(tokens)
        rows.append(
            {
                **_head(index, sample),
                "error": None,
                "text": text,
                "tokens": tokens,
                "prompt_tokens": len(prepared.prompt.ids),
                **_counters(found[HIPPO].generation.stats, place),
                "seconds": {"prepare": prepared.seconds, **seconds},
                "batch": group[0][0],
                **_choice(sample, text),
                "plain": plain and compared(_tokens(plain.generation, place), tokens),
            }
        )
    return rows


def _head(index: int, sample: Sample) -> dict[str, Any]:
    return {"index": index, "id": sample.id, "kind": sample.kind, "tasks": list(sample.tasks)}


def _choice(sample: Sample, text: str) -> dict[str, Any]:
    if sample.kind != "choice":
        return {}
    letter = read_answer(sample.rule, text, len(sample.options))
    return {"answer": sample.answer, "letter": letter, "rule": sample.rule}


def _tokens(generation: Generation, row: int) -> list[int]:
    return np.asarray(generation.tokens[row, : int(generation.lengths[row])]).tolist()


def _counters(stats: Any, row: int) -> dict[str, Any]:
    runs = np.asarray(stats.runs[row])
    counted = ("rounds", "round_tokens", "accepted", "judged")
    return {
        "visual_tokens": int(stats.visual_tokens[row]),
        "kept_visual_tokens": int(stats.kept_visual_tokens[row]),
        "stats": {
            **{name: int(getattr(stats, name)[row]) for name in counted},
            "runs": runs[runs >= 0].tolist(),
        },
    }


def compared(plain: Sequence[int], tokens: Sequence[int]) -> dict[str, Any]:
    """Plain decoding's tokens beside HIPPO's: whether they are equal, else where they part.

    A token that only one of them has stands beside ``None``.
    """
    if list(plain) == list(tokens):
        return {"equal": True}
    both = enumerate(zip(plain, tokens, strict=False))
    place = next((i for i, (a, b) in both if a != b), min(len(plain), len(tokens)))
    return {
        "equal": False,
        "place": place,
        "plain_token": plain[place] if place < len(plain) else None,
        "token": tokens[place] if place < len(tokens) else None,
    }


def _decoder(calls: Calls) -> Callable[[Sequence[int]], str]:
    tokenizer = calls.pair.tokenizer
    return lambda ids: str(tokenizer.decode(list(ids), skip_special_tokens=True))


def _reason(error: BaseException) -> str:
    """One line. What is no fault of the video is named as what it is."""
    said = " ".join(str(error).split())[:300]
    if isinstance(error, (HippoError, OSError)) and said:
        return said
    return f"{type(error).__name__}: {said}"
