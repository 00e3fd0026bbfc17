"""``stream``: the answer piece by piece, round by round, from the program that decodes it whole."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hippo_jax.decoding.arguments import make_settings
from hippo_jax.decoding.config import HippoConfig
from hippo_jax.decoding.generate import decode_loop, prefill_state
from hippo_jax.decoding.sampling import Sampler
from hippo_jax.errors import HippoError
from hippo_jax.inputs.model_inputs import ModelInputs
from hippo_jax.scheduling.plan import both, inside_trace, make_plan, placement_of
from hippo_jax.scheduling.programs import advance, start_alone
from hippo_jax.scheduling.role_watch import watched
from hippo_jax.scheduling.two_meshes import begin, rounds

UNFINISHED = "\N{REPLACEMENT CHARACTER}"  # what a tokenizer shows for half a character


class TextPieces:
    """Turns growing lists of token ids into the text that each growth adds."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.ids: list[int] = []
        self.shown = ""

    def push(self, ids: Iterable[int]) -> str:
        """The text that ``ids`` add; half a character waits for its other half."""
        self.ids += ids
        return self._new(self._text().rstrip(UNFINISHED))

    def rest(self) -> str:
        """What was held back, once nothing more comes."""
        return self._new(self._text())

    def _text(self) -> str:
        return self.tokenizer.decode(self.ids, skip_special_tokens=True)

    def _new(self, text: str) -> str:
        # A tokenizer that rewrites what it said before cannot be followed: wait for more.
        if not text.startswith(self.shown):
            return ""
        piece = text[len(self.shown) :]
        self.shown = text
        return piece


def stream(
    pair: Any,
    inputs: ModelInputs,
    *,
    max_new_tokens: Any = 128,
    capacity: int | None = None,
    sampling: Sampler | None = None,
    key: jax.Array | None = None,
    eos_token_ids: tuple[int, ...] | None = None,
    config: HippoConfig | None = None,
) -> Iterator[str]:
    """The answer to one prompt as text pieces, each as soon as it is committed.

    Takes what ``hippo_generate`` takes and gives its text; joined, the pieces are
    ``hippo_generate(...).text(pair.tokenizer)[0]``. A piece is what one round commits, so it may
    hold several words. Without a draft the target decodes alone, and a warning says so.

    Raises:
        HippoError: arguments that do not fit, or more than one row; at once, before the first
            piece is asked for.
    """
    target, draft = both(pair)
    if inside_trace((inputs.lengths, max_new_tokens, key)):
        raise HippoError("stream talks to the host, so it cannot run inside a jax trace")
    if inputs.batch != 1:
        raise HippoError(f"stream answers one prompt, got a batch of {inputs.batch}")
    tokenizer = target.tokenizer
    arguments = (max_new_tokens, capacity, sampling, key, eos_token_ids)
    if draft is None:
        warnings.warn("there is no draft: the target decodes alone", stacklevel=2)
        settings, limit = make_settings(target, inputs, *arguments)
        states: Iterator[Any] = _plain_states(target, inputs, limit, key, settings)
    else:
        plan, limit = make_plan(pair, inputs, *arguments, config)
        placement = placement_of(pair)
        find = _states_of_two if placement.two_meshes else _speculative_states
        states = find(target, draft, inputs, limit, key, plan, placement)
    return _pieces(tokenizer, states)


def _pieces(tokenizer: Any, states: Iterator[tuple[np.ndarray, int]]) -> Iterator[str]:
    pieces, shown = TextPieces(tokenizer), 0
    for tokens, length in states:
        piece = pieces.push(tokens[shown:length].tolist())
        shown = length
        if piece:
            yield piece
    if last := pieces.rest():
        yield last


def _speculative_states(
    target: Any, draft: Any, inputs: ModelInputs, limit: Any, key: Any, plan: Any, placement: Any
) -> Iterator[tuple[np.ndarray, int]]:
    state = watched(lambda: start_alone(target, draft, inputs, limit, key, plan), placement)
    while True:
        tokens, length, done = jax.device_get(
            (state.progress.tokens[0], state.progress.lengths[0], state.progress.done[0])
        )
        yield tokens, int(length)
        if done:
            return
        one = partial(_advance, target, draft, state, limit, key, jnp.int32(1), plan)
        state = watched(one, placement)


def _states_of_two(
    target: Any, draft: Any, inputs: ModelInputs, limit: Any, key: Any, plan: Any, placement: Any
) -> Iterator[tuple[np.ndarray, int]]:
    """The host waits for each round here: it is asked for the text of each."""
    own, other = begin(target, draft, inputs, limit, key, plan, placement)
    for done in rounds(own, other):
        progress = own.state.progress
        with own.call.trail.of("target"):
            tokens, length, ended = jax.device_get((progress.tokens[0], progress.lengths[0], done))
        if length:
            yield tokens, int(length)
        if ended:
            return


def _plain_states(
    model: Any, inputs: ModelInputs, limit: Any, key: Any, settings: Any
) -> Iterator[tuple[np.ndarray, int]]:
    state = _plain_start(model, inputs, limit, key, settings)
    while True:
        tokens, length, done = jax.device_get((state.tokens[0], state.lengths[0], state.done[0]))
        yield tokens, int(length)
        if done:
            return
        state = _plain_advance(model, state, inputs.next_position, limit, key, settings)


_advance = partial(jax.jit, static_argnames="plan", donate_argnames="state")(advance)
_plain_start = partial(jax.jit, static_argnames="settings")(prefill_state)


@partial(jax.jit, static_argnames="settings", donate_argnames="state")
def _plain_advance(
    model: Any, state: Any, next_position: Any, limit: Any, key: Any, settings: Any
) -> Any:
    return decode_loop(model, state, next_position, limit, key, settings, until=state.step + 1)
