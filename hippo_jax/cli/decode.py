"""Decoding for the command line: prefill and rounds, two programs compiled ahead of time.

They are made of the functions that ``generate`` and ``hippo_generate`` are made of, so that
compilation, prefill and decoding can be timed apart. How many rounds the second program goes on is
data: it serves an answer shown piece by piece and one that is wanted whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hippo_jax.decoding.arguments import KEY_INSIDE, Settings, make_settings
from hippo_jax.decoding.config import HippoConfig
from hippo_jax.decoding.generate import Generation, decode_loop, prefill_state
from hippo_jax.decoding.sampling import Sampler
from hippo_jax.inputs.model_inputs import ModelInputs
from hippo_jax.scheduling.plan import Plan, both, make_plan, placement_of
from hippo_jax.scheduling.programs import ALL_ROUNDS, advance, start
from hippo_jax.scheduling.role_watch import watched
from hippo_jax.scheduling.state import finish
from hippo_jax.scheduling.streaming import TextPieces

First = Callable[[Any, ModelInputs, Any, Any], Any]
"""``(models, inputs, limit, seed) -> (state, view)``: both prefills and the first tokens. A view is
what the host looks at: the ``Generation`` so far and whether it is complete."""

More = Callable[[Any, Any, Any, Any, Any], Any]
"""``(models, state, limit, seed, rounds) -> (state, view)``: so many rounds more, or to the end."""


@dataclass(frozen=True)
class Decoded:
    """One answer and what it took.

    Attributes:
        generation: host arrays of one row.
        schedule: the one that ran: ``"autoregressive"``, ``"sequential"`` or ``"parallel"``.
        gamma: tokens of a chunk, ``None`` for plain decoding.
        seconds: of ``"compile"``, ``"prefill"`` (until the first committed token), ``"decode"``.
    """

    generation: Generation
    schedule: str
    gamma: int | None
    seconds: dict[str, float]


def decode(
    models: Any,
    inputs: ModelInputs,
    *,
    max_new_tokens: int,
    sampler: Sampler,
    seed: int,
    config: HippoConfig | None,
    say: Callable[[str], None] | None = None,
) -> Decoded:
    """Answer one prompt with a pair, or with a model alone.

    Args:
        models: a ``ModelPair`` wherever one program can reach, or a ``VideoLM``, which decodes
            alone.
        inputs: one row.
        seed: what ``jax.random.key`` is made of, inside the programs.
        config: of a pair.
        say: called with each piece of the text once it is committed; ``None``: all rounds at once.

    Raises:
        HippoError: arguments that do not fit.
        RoleError: draft and target have devices of their own, and the program of one failed.
    """
    target, draft = both(models)
    placement = placement_of(models)
    # The key is made inside the programs from the seed, which spares a program of its own.
    arguments = (max_new_tokens, None, sampler, KEY_INSIDE, None)
    if draft is None:
        settings, limit = make_settings(target, inputs, *arguments)
        schedule, gamma = "autoregressive", None
        first, more = _plain(settings)
    else:
        plan, limit = make_plan(models, inputs, *arguments, config)
        schedule, gamma = plan.config.schedule, plan.gamma
        first, more = _speculative(plan)
    begin = time.perf_counter()
    fixed = (limit, np.uint32(seed % 2**32))
    rounds = np.int32(ALL_ROUNDS if say is None else 1)
    lowered = jax.jit(first).lower(models, inputs, *fixed)
    rest = jax.jit(more, donate_argnums=1).lower(models, lowered.out_info[0], *fixed, rounds)
    with ThreadPoolExecutor(2) as pool:  # a compiler works on one core
        programs = pool.map(lambda program: program.compile(), (lowered, rest))
        first_program, more_program = programs
    compiled = time.perf_counter()
    state, view = watched(lambda: first_program(models, inputs, *fixed), placement)
    jax.block_until_ready(view)
    prefilled = time.perf_counter()
    pieces, shown = TextPieces(target.tokenizer), 0
    while True:
        generation, done = jax.device_get(view)
        if say is not None:
            length = int(generation.lengths[0])
            say(pieces.push(generation.tokens[0, shown:length].tolist()))
            shown = length
        if done:
            break
        one = partial(more_program, models, state, *fixed, rounds)
        state, view = watched(one, placement)
    if say is not None:
        say(pieces.rest())
    seconds = {
        "compile": compiled - begin,
        "prefill": prefilled - compiled,
        "decode": time.perf_counter() - prefilled,
    }
    return Decoded(generation, schedule, gamma, seconds)


def _speculative(plan: Plan) -> tuple[First, More]:
    def view(state: Any) -> Any:
        return Generation(*finish(state, plan)), jnp.all(state.progress.done)

    def first(pair: Any, inputs: Any, limit: Any, seed: Any) -> Any:
        state = start(pair.target, pair.draft, inputs, limit, jax.random.key(seed), plan)
        return state, view(state)

    def more(pair: Any, state: Any, limit: Any, seed: Any, rounds: Any) -> Any:
        key = jax.random.key(seed)
        state = advance(pair.target, pair.draft, state, limit, key, rounds, plan)
        return state, view(state)

    return first, more


def _plain(settings: Settings) -> tuple[First, More]:
    """A round is one token. The state carries where the prompt ended."""

    def view(state: Any) -> Any:
        return Generation(state.tokens, state.lengths), jnp.all(state.done)

    def first(model: Any, inputs: Any, limit: Any, seed: Any) -> Any:
        state = prefill_state(model, inputs, limit, jax.random.key(seed), settings)
        return (state, jnp.asarray(inputs.next_position)), view(state)

    def more(model: Any, carried: Any, limit: Any, seed: Any, rounds: Any) -> Any:
        state, following = carried
        key, until = jax.random.key(seed), state.step + rounds
        state = decode_loop(model, state, following, limit, key, settings, until=until)
        return (state, following), view(state)

    return first, more
