"""Checks of speculative decoding: the answer is the target's own, whatever the draft does.

A *case* is one call on a batch: random weights, prompts, pixels, limit and key. A *transition* is
one row's round, and its category says in which state it was and what happened.
"""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from hippo_jax import scoring
from hippo_jax.architectures.config import VideoLMConfig
from hippo_jax.architectures.parameters import values
from hippo_jax.architectures.video_lm import VideoLM
from hippo_jax.decoding.arguments import Settings
from hippo_jax.decoding.config import HippoConfig
from hippo_jax.decoding.generate import generate
from hippo_jax.decoding.hippo import hippo_generate, make_plan
from hippo_jax.decoding.pruning import prune
from hippo_jax.decoding.sampling import Greedy, Sampling, gumbel_noise, process
from hippo_jax.decoding.speculation import Plan, _propose, finish, one_round, start
from hippo_jax.decoding.transition import begin, candidates, transition
from hippo_jax.inputs import model_inputs
from hippo_jax.inputs.model_inputs import ModelInputs, Row, assemble
from hippo_jax.placement.pair import ModelPair
from hippo_jax.scoring.config import ScoringConfig
from support import pairs
from support.oracles import close
from support.pairs import Shape

# How much of an unrelated model is mixed into a draft: identical, noisy, independent.
NOISES = (0.0, 0.0, 0.01, 0.02, 0.05, 0.15, 0.5)
MIXED = Sampling(0.9, top_k=20, top_p=0.95, repetition_penalty=1.2)
SAMPLERS = (Greedy(), Sampling(0.7), Greedy(1.3), MIXED)
EOS = ((3, 9, 17, 22), (), (5,), (2, 3, 7))
FEW = range(24)  # cases of the quick checks: one small shape a question
NEAR = 1e-3  # logits closer than this may change places when a forward has another shape

_PLAIN: dict[tuple[Shape, int], tuple[np.ndarray, np.ndarray]] = {}


class Case:
    """Data of one call for a shape."""

    def __init__(self, shape: Shape, seed: int) -> None:
        rng = np.random.default_rng((seed, shape.gamma, shape.batch))
        own = pairs.weights(int(rng.integers(2**31)))
        other = pairs.noisy(own, NOISES[rng.integers(len(NOISES))], int(rng.integers(2**31)))
        self.pair = ModelPair(pairs.build(own), pairs.build(other))
        self.inputs = pairs.prompts(rng, shape.batch)
        self.limit = int(rng.choice([1, 2, *range(3, shape.capacity + 1)]))
        self.key = jax.random.key(int(rng.integers(2**31)))
        self.shape, self.seed = shape, seed
        if shape.eos and rng.random() < 0.9:
            self._end_at_the_limit(rng)

    def arguments(self) -> dict:
        return {
            "max_new_tokens": self.limit,
            "capacity": self.shape.capacity,
            "sampling": self.shape.sampler,
            "key": self.key,
            "eos_token_ids": self.shape.eos,
        }

    def _end_at_the_limit(self, rng: np.random.Generator) -> None:
        """Let a row's end token be the last that the limit allows: chance alone seldom does. Half
        of the time it is the first row to end."""
        arguments = {**self.arguments(), "max_new_tokens": self.shape.capacity}
        lengths = np.asarray(generate(self.pair.target, self.inputs, **arguments).lengths)
        self.limit = int(lengths.min() if rng.random() < 0.5 else rng.choice(lengths))

    def plain(self) -> tuple[np.ndarray, np.ndarray]:
        """Of the target alone; kept, so that a mutant is compared with the code as it is."""
        place = (self.shape, self.seed)
        if place not in _PLAIN:
            found = generate(self.pair.target, self.inputs, **self.arguments())
            _PLAIN[place] = np.asarray(found.tokens), np.asarray(found.lengths)
        return _PLAIN[place]

    def speculative(self):
        return hippo_generate(self.pair, self.inputs, config=self.shape.config, **self.arguments())

    def recorded(self):
        """Tokens, lengths, stats and a log of every round, from the same pieces."""
        plan, limit = make_plan(
            self.pair, self.inputs, *self.arguments().values(), self.shape.config
        )
        return _recorded(self.pair.target, self.pair.draft, self.inputs, limit, self.key, plan)


# Compiled without optimisation: twice as fast to compile, and most cases run but once.
@functools.partial(
    jax.jit, static_argnames="plan", compiler_options={"xla_backend_optimization_level": 0}
)
def _recorded(target, draft, inputs: ModelInputs, limit, key, plan: Plan):
    """``hippo_generate`` with the state written down after each round."""

    def note(state):
        p = state.progress
        return jnp.stack(
            [p.pending_count, p.lengths, p.done, p.accepted, p.judged, p.rounds, p.run_count]
        )

    def body(carry):
        state, log, count = carry
        state = one_round(target, draft, state, limit, key, plan)
        return state, log.at[count].set(note(state)), count + 1

    state = start(target, draft, inputs, limit, key, plan)
    rounds = plan.settings.capacity + 1
    log = jnp.zeros((rounds, 7, inputs.token_ids.shape[0]), jnp.int32).at[0].set(note(state))
    state, log, count = jax.lax.while_loop(
        lambda carry: ~jnp.all(carry[0].progress.done), body, (state, log, jnp.int32(1))
    )
    return finish(state, plan), log, count


def same_or_near(case: Case, expected, found) -> int:
    """Equal tokens, or rows that part where the target itself is undecided to rounding.

    Returns how many rows parted; anything else is an ``AssertionError``.
    """
    tokens, lengths = (np.asarray(x) for x in found)
    parted = 0
    for row in range(len(lengths)):
        ours, theirs = tokens[row, : lengths[row]], expected[0][row, : expected[1][row]]
        if np.array_equal(ours, theirs):
            continue
        at = int(np.argmin(_equal_prefix(ours, theirs)))
        assert at < min(len(ours), len(theirs)), f"row {row}: {ours} instead of {theirs}"
        assert _undecided(case, row, theirs[:at], int(ours[at]), int(theirs[at])), (
            f"row {row} at {at}: {ours} instead of {theirs}"
        )
        parted += 1
    return parted


def _equal_prefix(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    size = min(len(a), len(b))
    return np.append(a[:size] == b[:size], False)


def _undecided(case: Case, row: int, said: np.ndarray, one: int, other: int) -> bool:
    """Whether two tokens tie, up to ``NEAR``, in the law that the token was drawn from."""
    capacity = case.shape.capacity
    inputs, model = case.inputs, case.pair.target
    cache = jax.jit(lambda m, i: m.prefill(i, capacity))(model, inputs)[1]
    batch = inputs.batch
    block = np.zeros((batch, len(said)), np.int32)
    block[row] = said
    if not len(said):
        logits = jax.jit(lambda m, i: m.prefill(i, 1))(model, inputs)[0][row]
    else:
        places = np.asarray(inputs.next_position)[:, None] + np.arange(len(said))
        logits, _ = model.forward_block(
            jnp.asarray(block),
            jnp.broadcast_to(jnp.asarray(places), (3, batch, len(said))),
            cache,
            jnp.zeros(batch, jnp.int32),
        )
        logits = logits[row, -1]
    prompt = np.asarray(inputs.token_ids)[row, : int(inputs.lengths[row])]
    seen = np.zeros(logits.shape[-1], bool)
    seen[prompt] = True
    seen[said] = True
    law = process(logits, case.shape.sampler, jnp.asarray(seen))
    if isinstance(case.shape.sampler, Sampling):
        position = jnp.asarray([int(inputs.lengths[row]) + len(said)])
        law = law + gumbel_noise(case.key, jnp.asarray([row]), position, law.shape[-1])[0]
        # A token at the border of top-k or top-p may be in or out.
        if min(float(law[one]), float(law[other])) < -1e29:
            return case.shape.sampler.top_k > 0 or case.shape.sampler.top_p < 1
    return abs(float(law[one]) - float(law[other])) < NEAR


def categories(case: Case, log: np.ndarray, lengths: np.ndarray, tokens: np.ndarray) -> Counter:
    """Count each row's rounds: mode, accepted tokens, how the row ended, finished mates."""
    shape, parallel = case.shape, case.shape.schedule == "parallel"
    found: Counter = Counter()
    if parallel:  # the first verdict is the prefill's
        log = np.concatenate([np.zeros_like(log[:1]), log])
    for before, after in itertools.pairwise(log):
        done_before = before[2].astype(bool)
        for row in np.flatnonzero(~done_before):
            pending = before[0, row]
            judged = min(pending + 1, shape.gamma) if parallel else shape.gamma
            mode = "sequential" if not parallel else "optimistic" if pending else "conservative"
            accepted = int(after[3, row] - before[3, row])
            kind = "none" if not accepted else "all" if accepted == judged else "some"
            ended = "goes on"
            if after[2, row]:
                by_token = tokens[row, lengths[row] - 1] in shape.eos
                by_limit = lengths[row] == case.limit
                ended = "end token" if by_token and not by_limit else "limit"
                ended = "both" if by_token and by_limit else ended
            mates = "mates done" if done_before.any() else "no mate done"
            found[mode, kind, ended, mates] += 1
    return found


def run_cases(shape: Shape, seeds: Iterable[int], *, whole: bool = False) -> tuple[Counter, int]:
    """Compare every seed's case with plain decoding.

    ``whole``: also through ``hippo_generate`` itself. Returns transition counts and the number of
    rows that parted on a tie.
    """
    found: Counter = Counter()
    parted = 0
    for seed in seeds:
        case = Case(shape, seed)
        expected = case.plain()
        (tokens, lengths, stats), log, count = case.recorded()
        parted += same_or_near(case, expected, (tokens, lengths))
        log = np.asarray(log)[: int(count)]
        check_counters(case, log, stats, np.asarray(lengths))
        found += categories(case, log, np.asarray(lengths), np.asarray(tokens))
        if whole:
            result = case.speculative()
            np.testing.assert_array_equal(result.tokens, tokens)
            np.testing.assert_array_equal(result.lengths, lengths)
            for ours, theirs in zip(
                jax.tree.leaves(result.stats), jax.tree.leaves(stats), strict=True
            ):
                np.testing.assert_array_equal(ours, theirs)
    return found, parted


def check_counters(case: Case, log: np.ndarray, stats, lengths: np.ndarray) -> None:
    """The counters agree with a count in plain Python from the log, and with each other."""
    parallel = case.shape.schedule == "parallel"
    runs = np.asarray(stats.runs)
    for row in range(len(lengths)):
        finished, run, rounds, tokens = [], 0, int(parallel), 0
        previous = np.zeros(7, int)
        for step, now in enumerate(log[:, :, row]):
            accepted, committed = now[3] - previous[3], now[1] - previous[1]
            if step or parallel:
                tokens += committed
                rounds += bool(step and not previous[2])
                run = (run if parallel else 0) + accepted
                if committed > accepted:
                    finished.append(run)
                    run = 0
            previous = now
        assert [r for r in runs[row] if r >= 0] == finished
        assert int(stats.rounds[row]) == rounds
        assert int(stats.round_tokens[row]) == tokens == lengths[row] - (0 if parallel else 1)
        rejected = int(stats.judged[row]) - int(stats.accepted[row])
        full = 0 if parallel else sum(r == case.shape.gamma for r in finished)
        assert rejected == len(finished) - full
        assert int(stats.accepted[row]) + len(finished) == tokens
        kept = np.asarray(stats.kept_indices[row])
        own = int(case.inputs.visual_tokens[row])
        wanted = max(1, int(np.ceil(case.shape.keep_ratio * own))) if own else 0
        assert int(stats.kept_visual_tokens[row]) == (kept >= 0).sum() == wanted


def check_penalty() -> None:
    """Tokens of a round count as seen for the next ones of the same round, refused ones never."""
    run_cases(Shape("sequential", 4, 3, 1.0, (), Greedy(1.5)), FEW)


class OneRow:
    """The state machine of one row in plain Python."""

    def __init__(self, schedule: str, gamma: int, limit: int, eos: tuple[int, ...]) -> None:
        self.parallel, self.gamma, self.limit, self.eos = schedule == "parallel", gamma, limit, eos
        self.tokens: list[int] = []
        self.pending: list[int] = []
        self.runs: list[int] = []
        self.run = self.rounds = self.accepted = self.judged = 0

    @property
    def done(self) -> bool:
        ended = bool(self.tokens) and self.tokens[-1] in self.eos
        return ended or len(self.tokens) >= self.limit

    def judged_now(self, chunk: list[int]) -> list[int]:
        """Candidates of this round."""
        return [*self.pending, chunk[0]] if self.parallel else chunk

    def round(self, chunk: list[int], says: list[int], agrees: list[bool]) -> None:
        """``says``: the target's token at each slot."""
        if self.done:
            return
        self.rounds += 1
        if not self.parallel:
            self.run = 0
        waiting = self.judged_now(chunk)
        self.pending = []
        for slot in range(len(waiting)):
            self.tokens.append(says[slot])
            if not agrees[slot]:
                self.judged += 1
                self.runs.append(self.run)
                self.run = 0
                return
            self.accepted, self.judged, self.run = self.accepted + 1, self.judged + 1, self.run + 1
            if self.done:
                return
        if self.parallel:
            self.pending = chunk[1:]
        else:
            self.tokens.append(says[len(waiting)])
            self.runs.append(self.run)


def check_transition() -> None:
    """Random verdicts through ``transition`` and through plain Python, state by state."""
    for schedule in ("sequential", "parallel"):
        for gamma in (1, 2, 5):
            _check_transition(schedule, gamma)


def _check_transition(schedule: str, gamma: int) -> None:
    parallel = schedule == "parallel"
    batch, eos, width = 100, (3, 4), gamma if parallel else gamma + 1
    settings = Settings(capacity=30, eos=eos)
    rng = np.random.default_rng(gamma)
    # Rows have one limit in a call; here each gets its own, for variety.
    limits = rng.integers(1, 30, batch)
    rows = [OneRow(schedule, gamma, int(limit), eos) for limit in limits]
    state = begin(batch, gamma, jnp.asarray(limits), settings)
    step = jax.jit(lambda *args: transition(*args, settings, parallel=parallel))
    for _ in range(32):
        chunk = rng.integers(5, 40, (batch, gamma))
        chunk = np.where(rng.random(chunk.shape) < 0.05, 3, chunk)
        agree = rng.random((batch, width)) < rng.choice([0.3, 0.9, 1.0], (batch, 1))
        says = rng.integers(40, 80, (batch, width))
        says = np.where(rng.random(says.shape) < 0.05, 4, says)
        for b, row in enumerate(rows):
            waiting = row.judged_now(chunk[b].tolist())
            agree[b, len(waiting) :] &= parallel  # slots without a candidate may say anything
            says[b, : len(waiting)] = np.where(
                agree[b, : len(waiting)], waiting, says[b, : len(waiting)]
            )
        if parallel:
            cands, judged = candidates(state, jnp.asarray(chunk))
            for b, row in enumerate(rows):
                if not row.done:
                    waiting = row.judged_now(chunk[b].tolist())
                    assert np.asarray(cands)[b, : int(judged[b])].tolist() == waiting
        else:
            judged = jnp.full(batch, gamma)
        state = step(
            state,
            jnp.asarray(chunk, jnp.int32),
            judged,
            jnp.asarray(says, jnp.int32),
            jnp.asarray(agree),
            jnp.asarray(limits),
        )
        for b, row in enumerate(rows):
            row.round(chunk[b].tolist(), says[b].tolist(), agree[b].tolist())
        found = jax.device_get(state)
        for b, row in enumerate(rows):
            assert found.tokens[b, : found.lengths[b]].tolist() == row.tokens
            assert bool(found.done[b]) == row.done
            assert [r for r in found.runs[b] if r >= 0] == row.runs
            for name in ("rounds", "accepted", "judged"):
                assert int(getattr(found, name)[b]) == getattr(row, name), name
            if not row.done:
                assert found.pending[b, : found.pending_count[b]].tolist() == row.pending
    assert found.done.all() and sum(len(row.tokens) < row.limit for row in rows) > 10


def check_sequential() -> None:
    """Greedy, ends inside runs, unequal rows."""
    run_cases(Shape("sequential", 3, 3, 0.3, EOS[0]), FEW)


def check_parallel() -> None:
    """The same for the parallel schedule."""
    run_cases(Shape("parallel", 3, 3, 0.3, EOS[0]), FEW)


def check_parallel_sampled() -> None:
    """Gumbel coupling with every processor, the repetition penalty position by position."""
    run_cases(Shape("parallel", 3, 3, 0.5, EOS[0], MIXED), FEW)


def check_sequential_sampled() -> None:
    """The same for the sequential schedule."""
    run_cases(Shape("sequential", 3, 3, 0.5, EOS[0], MIXED), FEW)


def unbanned(own: dict, which: VideoLMConfig | None = None) -> VideoLM:
    """A model that may say placeholders when it drafts; random targets do say them."""
    which = replace(which or pairs.config(), image_token_id=1000, video_token_id=1001)
    return pairs.build(own, which)


def check_identical_draft(schedule: str) -> None:
    """A draft that is the target and sees everything is never refused, so the rounds are known.

    This is what an error on the draft's side shows in: a wrong slot, position, token or mask costs
    acceptance and nothing else.
    """
    for sampler in (Greedy(2.0), MIXED):
        shape = Shape(schedule, 4, 2, 1.0, (), sampler)
        for seed in range(3):
            case = Case(shape, seed)
            own = values(case.pair.target)
            case.pair = ModelPair(unbanned(own), unbanned(own))
            case.limit = 22
            (_, _, stats), _, _ = case.recorded()
            assert stats.acceptance_rate == 1.0
            # The first token comes from the prefill; then gamma + 1 tokens a round, or gamma.
            rounds = -(-21 // 5) if schedule == "sequential" else 1 + -(-21 // 4)
            assert np.asarray(stats.rounds).tolist() == [rounds] * 2


def check_kept_everything() -> None:
    """Keeping every token through the pruned path is the same as not pruning."""
    case = Case(Shape("sequential", 3, 3, 1.0, ()), 1)
    plan, limit = make_plan(case.pair, case.inputs, *case.arguments().values(), case.shape.config)
    own = np.asarray(case.inputs.visual_tokens)
    ordinals = np.arange(own.max())
    everything = np.where(ordinals < own[:, None], ordinals, -1)
    whole, pruned = (
        jax.jit(
            lambda pair, inputs, limit, kept: start(
                pair.target, pair.draft, inputs, limit, None, plan, kept=kept
            )
        )(case.pair, case.inputs, limit, kept)
        for kept in (None, jnp.asarray(everything))
    )
    for ours, theirs in zip(pruned.draft_cache.layers, whole.draft_cache.layers, strict=True):
        for row, length in enumerate(np.asarray(case.inputs.lengths)):
            for name in ("prompt_k", "prompt_v"):
                close(
                    getattr(ours, name)[row, :, :length],
                    getattr(theirs, name)[row, :, :length],
                    1e-5,
                )
    np.testing.assert_array_equal(pruned.draft_cache.prompt_lengths, case.inputs.lengths - 1)


def check_pruned_prompt() -> None:
    """The draft on a pruned prompt says what it says on the whole one with the rest hidden."""
    case = Case(Shape("sequential", 3, 4, 0.3, ()), 5)
    inputs, draft = case.inputs, case.pair.draft
    rng = np.random.default_rng(0)
    own = np.asarray(inputs.visual_tokens)
    kept = np.full((4, 6), -1)
    for row, count in enumerate(own):
        some = np.sort(rng.choice(count, min(count, 1 + row), replace=False))
        kept[row, : len(some)] = some
    assert (kept[:, 1] >= 0).sum() >= 2
    visible = np.zeros(inputs.token_ids.shape, bool)
    for row in range(4):
        columns = np.flatnonzero(inputs.visual_index[row] >= 0)
        visible[row, : inputs.lengths[row]] = True
        visible[row, np.delete(columns, kept[row][kept[row] >= 0])] = False

    def hidden_prompt(draft, inputs):
        def attend(layer, q, k, v):
            repeat = q.shape[2] // k.shape[2]
            scores = jnp.einsum("btnh,bsnh->bnts", q, jnp.repeat(k, repeat, 2)) * 8**-0.5
            causal = jnp.tril(jnp.ones(scores.shape[-2:], bool))
            scores = jnp.where(causal & visible[:, None, None], scores, -1e30)
            weights = jax.nn.softmax(scores, axis=-1)
            return jnp.einsum("bnts,bsnh->btnh", weights, jnp.repeat(v, repeat, 2))

        x = draft.embed_prompt(inputs, draft.encode_video(inputs))
        hidden, _ = draft.decoder.run_layers(x, jnp.asarray(inputs.positions), attend)
        last = jnp.asarray(inputs.lengths)[:, None, None] - 1
        return draft.decoder.logits(jnp.take_along_axis(hidden, last, axis=1)[:, 0])

    expected = jax.jit(hidden_prompt)(draft, inputs)
    pruned = jax.jit(lambda i, k: prune(i, k))(inputs, jnp.asarray(kept))
    np.testing.assert_array_equal(pruned.lengths, visible.sum(1))
    found, _ = jax.jit(lambda m, i: m.prefill(i, 1))(draft, pruned)
    close(found, expected, 1e-4)
    np.testing.assert_array_equal(pruned.next_position, inputs.next_position)
    for row in range(4):
        columns = np.flatnonzero(visible[row])
        length = len(columns)
        np.testing.assert_array_equal(
            pruned.token_ids[row, :length], inputs.token_ids[row, columns]
        )
        for name in ("text_columns", "query_columns"):
            new, old = (np.asarray(getattr(x, name))[row] for x in (pruned, inputs))
            np.testing.assert_array_equal(columns[new[new >= 0]], old[old >= 0])

    packed = prune(inputs, jnp.asarray(kept), positions="packed")
    np.testing.assert_array_equal(packed.next_position, packed.lengths)
    wanted = np.broadcast_to(np.arange(packed.token_ids.shape[1]), packed.positions.shape)
    np.testing.assert_array_equal(packed.positions, wanted)


def check_vocabularies() -> None:
    """A draft with more or fewer ids than its target: the answer stays, and what both know is
    accepted."""
    for size, sampler in ((24, MIXED), (40, Sampling(0.7))):
        shape = Shape("parallel", 3, 2, 1.0, (), sampler)
        case = Case(shape, 3)
        which = pairs.config(vocab_size=size)
        expected = case.plain()
        own, resized = values(case.pair.target), pairs.weights(0, which)
        least = min(size, pairs.VOCAB)
        for path, x in own.items():
            if path == "decoder.embedding":
                resized[path][:least] = x[:least]
            elif path == "decoder.head.kernel":
                resized[path][:, :least] = x[:, :least]
                resized[path][:, least:] *= 100  # ids that only the draft knows, it likes
            else:
                resized[path] = np.asarray(x)
        case.pair = ModelPair(unbanned(own), unbanned(resized, which))
        (tokens, lengths, stats), _, _ = case.recorded()
        assert same_or_near(case, expected, (tokens, lengths)) == 0
        assert stats.acceptance_rate > (0.2 if size < pairs.VOCAB else 0.99)


LAW_VOCAB = 8
LAW_ROWS = 20_000


def law_pair(seed: int) -> ModelPair:
    """Two unlike models over 8 ids."""
    which = pairs.config(vocab_size=LAW_VOCAB)
    own = pairs.weights(seed, which)
    other = pairs.noisy(own, 0.3, seed + 1, which)
    return ModelPair(pairs.build(own, which), pairs.build(other, which))


def joint_law(target, ids: np.ndarray, sampler: Sampling) -> np.ndarray:
    """The exact law of the next three tokens, float64 ``[8, 8, 8]``."""
    law = np.ones((LAW_VOCAB,) * 3)
    for depth in range(3):
        prefixes = np.array(list(itertools.product(range(LAW_VOCAB), repeat=depth)), int)
        rows = [Row(np.concatenate([ids, p.astype(int)]).astype(np.int32)) for p in prefixes]
        logits = target(assemble(target, rows), last=True)[:, 0]
        seen = np.zeros(logits.shape, bool)
        for row in range(len(rows)):
            seen[row, rows[row].ids] = True
        processed = np.asarray(process(logits, sampler, jnp.asarray(seen)), np.float64)
        probabilities = np.exp(processed - processed.max(-1, keepdims=True))
        probabilities /= probabilities.sum(-1, keepdims=True)
        shape = (LAW_VOCAB,) * (depth + 1) + (1,) * (2 - depth)
        law = law * probabilities.reshape(shape)
    return law


def law_p_value(schedule: str, sampler: Sampling, samples: int = 200_000, gamma: int = 3) -> float:
    """Chi-square of ``samples`` answers of three tokens against the exact law."""
    pair, ids = law_pair(3), np.array([1, 2, 6, 3], np.int32)
    law = joint_law(pair.target, ids, sampler).reshape(-1)
    with mock.patch.object(model_inputs, "bucket", lambda size, minimum: size):
        inputs = pairs.device(assemble(pair.target, [Row(ids)] * LAW_ROWS))
    config = HippoConfig(gamma=gamma, schedule=schedule)
    counts = np.zeros(LAW_VOCAB**3)
    for turn in range(samples // LAW_ROWS):
        found = hippo_generate(
            pair,
            inputs,
            max_new_tokens=3,
            capacity=3,
            sampling=sampler,
            key=jax.random.key(turn),
            eos_token_ids=(),
            config=config,
        )
        index = np.asarray(found.tokens) @ np.array([LAW_VOCAB**2, LAW_VOCAB, 1])
        counts += np.bincount(index, minlength=len(law))
    assert 0.2 < found.stats.acceptance_rate < 0.9
    assert counts[law == 0].sum() == 0, "a token outside the law was drawn"
    rare = law * samples < 10
    observed = np.append(counts[~rare], counts[rare].sum())
    expected = np.append(law[~rare], law[rare].sum()) * samples
    statistic = ((observed - expected) ** 2 / np.maximum(expected, 1e-9)).sum()
    return float(scipy.stats.chi2.sf(statistic, len(observed) - 1))


MAXIMAL = Sampling(0.9, top_k=6, repetition_penalty=1.1, coupling="maximal")


def check_rejection_sequential() -> None:
    """Rejection sampling gives the target's law, with a bonus token."""
    assert law_p_value("sequential", MAXIMAL) > 1e-3


def check_rejection_parallel() -> None:
    """And across rounds of the state machine."""
    assert law_p_value("parallel", MAXIMAL) > 1e-3


def all_categories() -> list[tuple[str, str, str, str]]:
    """Every transition that there can be.

    A row whose mates are done goes on and ends like any other. In conservative mode one token is
    judged, so it cannot be accepted in part.
    """
    found = []
    for mode in ("sequential", "conservative", "optimistic"):
        for kind in ("none", "some", "all"):
            if mode == "conservative" and kind == "some":
                continue
            for ended in ("goes on", "end token", "limit", "both"):
                for mates in ("mates done", "no mate done"):
                    found.append((mode, kind, ended, mates))
    return found


def check_selection() -> None:
    """``kept_indices`` are what the public scoring functions choose, model by model."""
    case = Case(Shape("sequential", 2, 8, 0.3, ()), 11)
    case.pair = ModelPair(case.pair.target, pairs.build(pairs.weights(77)))
    inputs, table = case.inputs, case.inputs.table
    for settings, layers in (
        (ScoringConfig(), 1),
        (ScoringConfig(attention_support="all", temporal=0.0, spatial=0.0), None),
        (ScoringConfig(selector="draft", attention=0.5, scope="per_frame"), None),
    ):
        model = case.pair.draft if settings.selector == "draft" else case.pair.target
        features = model.encode_video(inputs)
        expected = scoring.select_tokens(
            scoring.holistic_scores(
                scoring.attention_relevance(
                    model, inputs, support=settings.attention_support or "visual", layers=layers
                ),
                scoring.temporal_change(features, table),
                scoring.spatial_variance(features, table),
                table,
                weights=settings.weights,
            ),
            inputs,
            0.3,
            scope=settings.scope,
        )
        config = HippoConfig(2, 0.3, "sequential", settings, layers)
        found = jax.jit(
            lambda pair, inputs, config: (
                hippo_generate(
                    pair, inputs, max_new_tokens=1, capacity=2, config=config
                ).stats.kept_indices
            )
        )(case.pair, inputs, config)
        np.testing.assert_array_equal(found, expected)


def check_packed_draft() -> None:
    """A draft whose prompt is numbered anew goes on right behind it."""
    shape = Shape("sequential", 4, 1, 0.5, (), keywords=(("draft_positions", "packed"),))
    case = Case(shape, 0)
    row = pairs._row(np.random.default_rng(3), 4)
    case.inputs = assemble(case.pair.target, [row])
    plan, limit = make_plan(case.pair, case.inputs, *case.arguments().values(), shape.config)
    state = jax.jit(
        lambda pair, inputs, limit: start(pair.target, pair.draft, inputs, limit, None, plan)
    )(case.pair, case.inputs, limit)
    kept = int((state.kept >= 0).sum())
    own = int(case.inputs.lengths[0]) - int(case.inputs.visual_tokens[0]) + kept
    assert int(state.draft_prompt.next_position[0]) == own
    assert int(state.target_prompt.next_position[0]) == int(case.inputs.next_position[0]) != own


def check_placeholders() -> None:
    """A draft that would say nothing but placeholders proposes other tokens."""
    case = Case(Shape("sequential", 3, 2, 1.0, ()), 2)
    own = {path: np.asarray(x) for path, x in values(case.pair.target).items()}
    head = own["decoder.head.kernel"].copy()
    loud = 50.0 * head[:, 5]
    for token in (pairs.IMAGE, pairs.VIDEO):
        head[:, token] = loud if token == pairs.IMAGE else -loud
    own["decoder.head.kernel"] = head
    draft = pairs.build(own)
    plan, limit = make_plan(case.pair, case.inputs, *case.arguments().values(), case.shape.config)
    state = jax.jit(
        lambda target, draft, inputs, limit: start(target, draft, inputs, limit, None, plan)
    )(case.pair.target, draft, case.inputs, limit)
    chunk, _, _ = jax.jit(lambda draft, state: _propose(draft, state, pairs.VOCAB, None, plan))(
        draft, state
    )
    assert not np.isin(chunk, (pairs.IMAGE, pairs.VIDEO)).any()
