"""Cases of speculative decoding, compared with plain decoding and counted transition by transition.

A *case* is one call on a batch: random weights, prompts, pixels, limit and key. A *transition* is
one row's round, and its category says in which state it was and what happened.
"""

import functools
import itertools
from collections import Counter
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np

from hippo_jax.decoding.generate import generate
from hippo_jax.decoding.sampling import Greedy, Sampling, gumbel_noise, process
from hippo_jax.inputs.model_inputs import ModelInputs
from hippo_jax.placement.pair import ModelPair
from hippo_jax.scheduling.hippo import hippo_generate
from hippo_jax.scheduling.one_device import one_round, start
from hippo_jax.scheduling.plan import Plan, make_plan
from hippo_jax.scheduling.state import finish
from support import pairs
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
