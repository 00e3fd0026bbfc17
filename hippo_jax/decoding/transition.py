"""The state machine of speculative decoding: one pure function on a small state.

Sequential decoding commits, each round, the accepted start of a chunk and one token of the
target. Parallel decoding (video parallel speculative decoding of HIPPO, arXiv 2601.08273, which is
the state machine of PEARL, arXiv 2408.11850) has two modes. *Conservative*: nothing is pending, the
target judges the first token of the chunk that the draft is making. *Optimistic*: the rest of the
last chunk is pending; the target judges it and the first token of the next. Acceptance leads to
optimistic, rejection to conservative mode. There is no bonus token: its place is judged together
with the next chunk.

Nothing is ever rolled back. Committed tokens only grow; the caches' lengths follow from how many
there are (``target: n - 1``, ``draft: n - 1 + pending``, n with the prompt), and what lies behind
those lengths is overwritten before it can be seen. Every row has its own mode, and all share one
forward of the target.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp

from hippo_jax.decoding.arguments import Settings


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Progress:
    """All that decides what happens next, apart from the caches.

    Attributes:
        tokens: int32 ``[B, capacity + W]``; the first ``lengths`` of a row are committed, and W is
            the most that a round commits.
        lengths: int32 ``[B]``.
        done: bool ``[B]``; a row that is done changes no more.
        pending: int32 ``[B, gamma]``, draft tokens that wait for a verdict.
        pending_count: int32 ``[B]``: 0 (conservative) or gamma - 1 (optimistic). The room for
            gamma is there for chunks prepared ahead of a verdict.
        rounds, round_tokens, accepted, judged: int32 ``[B]``, see ``SpeculationStats``.
        run: int32 ``[B]``, accepted tokens of the run that goes on.
        runs: int32 ``[B, capacity]``, finished runs, -1 behind them.
        run_count: int32 ``[B]``.
    """

    tokens: jax.Array
    lengths: jax.Array
    done: jax.Array
    pending: jax.Array
    pending_count: jax.Array
    rounds: jax.Array
    round_tokens: jax.Array
    accepted: jax.Array
    judged: jax.Array
    run: jax.Array
    runs: jax.Array
    run_count: jax.Array


def begin(batch: int, gamma: int, limit: jax.Array, settings: Settings) -> Progress:
    """Nothing committed yet; rows are done at once where the limit is 0."""
    zero = jnp.zeros(batch, jnp.int32)
    return Progress(
        tokens=jnp.full((batch, settings.capacity + gamma + 1), settings.pad, jnp.int32),
        lengths=zero,
        done=jnp.broadcast_to(jnp.asarray(limit) < 1, (batch,)),
        pending=jnp.zeros((batch, gamma), jnp.int32),
        pending_count=zero,
        rounds=zero,
        round_tokens=zero,
        accepted=zero,
        judged=zero,
        run=zero,
        runs=jnp.full((batch, settings.capacity), -1, jnp.int32),
        run_count=zero,
    )


def candidates(progress: Progress, chunk: jax.Array) -> tuple[jax.Array, jax.Array]:
    """What the parallel schedule's target judges: int32 ``[B, gamma]`` and how many, ``[B]``.

    The pending tokens, then the first token of the new ``chunk [B, gamma]``.
    """
    gamma = chunk.shape[1]
    waiting = jnp.arange(gamma) < progress.pending_count[:, None]
    judged = jnp.minimum(progress.pending_count + 1, gamma)
    return jnp.where(waiting, progress.pending, chunk[:, :1]), judged


def commit(
    progress: Progress, choice: jax.Array, count: jax.Array, limit: jax.Array, settings: Settings
) -> tuple[Progress, jax.Array]:
    """Append the first ``count [B]`` tokens of ``choice [B, W]``, up to an end token or the limit.

    Returns the new state (tokens, lengths, done) and how many were appended.
    """
    width = choice.shape[1]
    slots = jnp.arange(width)
    if settings.eos:
        ends = jnp.isin(choice, jnp.array(settings.eos, jnp.int32))
        first_end = jnp.min(jnp.where(ends, slots, width), axis=1)
    else:
        first_end = jnp.full_like(count, width)
    ended = first_end < count
    count = jnp.minimum(count, first_end + 1)
    room = limit - progress.lengths
    ended &= first_end < room
    count = jnp.where(progress.done, 0, jnp.minimum(count, room))
    write = jax.vmap(lambda row, new, at: jax.lax.dynamic_update_slice(row, new, (at,)))
    lengths = progress.lengths + count
    state = replace(
        progress,
        tokens=write(progress.tokens, choice, progress.lengths),
        lengths=lengths,
        done=progress.done | ended | (lengths >= limit),
    )
    return state, count


def transition(
    progress: Progress,
    chunk: jax.Array,
    judged: jax.Array,
    choice: jax.Array,
    agree: jax.Array,
    limit: jax.Array,
    settings: Settings,
    *,
    parallel: bool,
) -> Progress:
    """One round's verdict.

    Args:
        chunk: int32 ``[B, gamma]``, what the draft proposed this round.
        judged: int32 ``[B]``, candidates that were judged.
        choice: int32 ``[B, W]``, the target's token at each slot: the candidate where it is
            accepted, else what takes its place.
        agree: bool ``[B, W]``, whether a slot's candidate is accepted (slots from ``judged`` on
            are ignored).
        parallel: the schedule. In the sequential one all gamma candidates are judged and the
            target's token behind the last accepted one is always committed.
    """
    running = ~progress.done
    slots = jnp.arange(agree.shape[1])
    straight = jnp.cumprod(agree & (slots < judged[:, None]), axis=1)
    accepted = jnp.sum(straight, axis=1, dtype=jnp.int32)
    full = accepted == judged
    # In the parallel schedule a full verdict has no slot left for a token of the target's own.
    wanted = jnp.minimum(accepted + 1, judged) if parallel else accepted + 1
    state, count = commit(progress, choice, wanted, limit, settings)

    kept = jnp.minimum(accepted, count)  # draft tokens that are part of the answer
    finished = count > accepted  # the target's own token was committed: the run is over
    run = (progress.run if parallel else 0) + kept
    store = jax.vmap(lambda row, value, at: row.at[at].set(value))
    onward = parallel & full & ~state.done
    gamma = chunk.shape[1]
    following = jnp.concatenate([chunk[:, 1:], chunk[:, :1]], axis=1)
    return replace(
        state,
        pending=jnp.where((running & onward)[:, None], following, progress.pending),
        pending_count=jnp.where(onward, jnp.int32(gamma - 1), jnp.int32(0)),
        rounds=progress.rounds + running,
        round_tokens=progress.round_tokens + count,
        accepted=progress.accepted + kept,
        judged=progress.judged + kept + (finished & ~full),
        run=jnp.where(finished, 0, run),
        runs=store(progress.runs, jnp.where(finished, run, -1), progress.run_count),
        run_count=progress.run_count + finished,
    )
