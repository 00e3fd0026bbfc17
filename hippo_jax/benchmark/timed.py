"""Answers timed with prefill and decoding apart: two compiled programs for each size of prompts."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from hippo_jax.architectures.video_lm import VideoLM
from hippo_jax.benchmark.measure import Run
from hippo_jax.decoding.arguments import make_settings
from hippo_jax.decoding.config import HippoConfig
from hippo_jax.decoding.generate import Generation, decode_loop, prefill_state
from hippo_jax.decoding.stats import SpeculationStats, joined
from hippo_jax.inputs.model_inputs import ModelInputs
from hippo_jax.scheduling.plan import make_plan
from hippo_jax.scheduling.programs import ALL_ROUNDS, advance, start
from hippo_jax.scheduling.state import finish


@dataclass
class Answers:
    """What one way of decoding said in its last turn.

    Attributes:
        tokens: of every row.
        rounds: behind the prefill; a batch runs as many as its slowest row.
        stats: counters of every call, on the host; none for plain decoding.
    """

    tokens: list[list[int]] = field(default_factory=list)
    rounds: int = 0
    stats: list[SpeculationStats] = field(default_factory=list)

    @property
    def pooled(self) -> SpeculationStats:
        """The counters of all rows."""
        return joined(self.stats)


@dataclass(frozen=True)
class Decoder:
    """One way to decode, greedily.

    Attributes:
        begin: prompts -> a state, behind the prefill and the first tokens.
        finish: prompts and their state, which is used up -> the whole answers.
        prefilled: rounds that the prefill counts.
        programs: prompts -> the compiled programs of both, for what the compiler knows of them.
    """

    begin: Callable[[ModelInputs], Any]
    finish: Callable[[ModelInputs, Any], Generation]
    prefilled: int = 0
    programs: Callable[[ModelInputs], Sequence[Any]] = lambda inputs: ()


def plain_decoder(
    model: VideoLM, new_tokens: int, end_tokens: tuple[int, ...] | None = None
) -> Decoder:
    """Two programs: the prompt, then one token at a time. ``end_tokens`` as ``eos_token_ids`` of
    ``generate``."""

    def compiled(inputs: ModelInputs) -> tuple[Any, Any, Any]:
        settings, limit = make_settings(model, inputs, new_tokens, None, None, None, end_tokens)

        def first(model: VideoLM, inputs: ModelInputs, limit: Any) -> Any:
            return prefill_state(model, inputs, limit, None, settings)

        def rest(model: VideoLM, state: Any, next_position: Any, limit: Any) -> Any:
            return decode_loop(model, state, next_position, limit, None, settings)

        lowered = jax.jit(first).lower(model, inputs, limit)
        then = jax.jit(rest, donate_argnums=1)
        following = then.lower(model, lowered.out_info, inputs.next_position, limit)
        return lowered.compile(), following.compile(), limit

    programs = _by_size(compiled)

    def begin(inputs: ModelInputs) -> Any:
        first, _, limit = programs(inputs)
        return first(model, inputs, limit)

    def end(inputs: ModelInputs, state: Any) -> Generation:
        _, rest, limit = programs(inputs)
        final = rest(model, state, inputs.next_position, limit)
        return Generation(final.tokens, final.lengths)

    return Decoder(begin, end, programs=lambda inputs: programs(inputs)[:2])


def hippo_decoder(
    models: Any, new_tokens: int, config: HippoConfig, end_tokens: tuple[int, ...] | None = None
) -> Decoder:
    """Two programs: both prompts with the choice of tokens, then rounds.

    Args:
        config: its schedule must not be ``"auto"``.
        end_tokens: as ``eos_token_ids`` of ``generate``.
    """
    target, draft = models.target, models.draft
    rounds = np.int32(ALL_ROUNDS)

    def compiled(inputs: ModelInputs) -> tuple[Any, Any, Any]:
        plan, limit = make_plan(models, inputs, new_tokens, None, None, None, end_tokens, config)

        def first(target: VideoLM, draft: VideoLM, inputs: ModelInputs, limit: Any) -> Any:
            return start(target, draft, inputs, limit, None, plan)

        def rest(target: VideoLM, draft: VideoLM, state: Any, limit: Any, rounds: Any) -> Any:
            state = advance(target, draft, state, limit, None, rounds, plan)
            return state, Generation(*finish(state, plan))

        lowered = jax.jit(first).lower(target, draft, inputs, limit)
        then = jax.jit(rest, donate_argnums=2)
        following = then.lower(target, draft, lowered.out_info, limit, rounds)
        return lowered.compile(), following.compile(), limit

    programs = _by_size(compiled)

    def begin(inputs: ModelInputs) -> Any:
        first, _, limit = programs(inputs)
        return first(target, draft, inputs, limit)

    def end(inputs: ModelInputs, state: Any) -> Generation:
        _, rest, limit = programs(inputs)
        return rest(target, draft, state, limit, rounds)[1]

    first_rounds = int(config.schedule == "parallel")
    return Decoder(begin, end, first_rounds, lambda inputs: programs(inputs)[:2])


def timed(prompts: Sequence[ModelInputs], decoder: Decoder, answers: Answers) -> Run:
    """All prompts one after the other.

    Measures, per row: ``prefill_s``, ``decode_ms_per_token`` of each token behind the first,
    ``whole_s``; with rounds also ``decode_ms_per_round``.
    """

    def run() -> dict[str, float]:
        prefill = decode = 0.0
        answers.tokens, answers.rounds, answers.stats = [], 0, []
        for inputs in prompts:
            first = time.perf_counter()
            state = jax.block_until_ready(decoder.begin(inputs))
            second = time.perf_counter()
            said = jax.block_until_ready(decoder.finish(inputs, state))
            third = time.perf_counter()
            prefill, decode = prefill + second - first, decode + third - second
            said = jax.device_get(said)
            answers.tokens += [
                row[:length].tolist()
                for row, length in zip(said.tokens, said.lengths.tolist(), strict=True)
            ]
            if said.stats is not None:
                answers.rounds += int(said.stats.rounds.max()) - decoder.prefilled
                answers.stats.append(said.stats)
        rows = len(answers.tokens)
        # The first token of each answer came with the prefill.
        later = sum(map(len, answers.tokens)) - rows
        found = {
            "prefill_s": prefill / rows,
            "decode_ms_per_token": 1e3 * decode / max(1, later),
            "whole_s": (prefill + decode) / rows,
        }
        if answers.rounds:
            found["decode_ms_per_round"] = 1e3 * decode / answers.rounds
        return found

    return run


def _by_size(compiled: Callable[[ModelInputs], Any]) -> Callable[[ModelInputs], Any]:
    """``compiled`` once for each set of shapes."""
    known: dict[Any, Any] = {}

    def programs(inputs: ModelInputs) -> Any:
        leaves, structure = jax.tree.flatten(inputs)
        size = (structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves))
        if size not in known:
            known[size] = compiled(inputs)
        return known[size]

    return programs
