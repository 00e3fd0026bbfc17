"""Mutants of the speculative core. Some would change the answer, some would only cost acceptance;
each is noticed by a check that an ordinary test runs under the name given in its line."""

import functools

import pytest
from support import checks_draft, checks_law, checks_transition
from support import checks_speculation as checks
from support.mutation import assert_noticed, forget_programs, mutate

from hippo_jax.decoding import drafting, pruning, sampling, transition, verification
from hippo_jax.scheduling import one_device, roles, state

identical_parallel = functools.partial(checks_draft.check_identical_draft, "parallel")
identical_sequential = functools.partial(checks_draft.check_identical_draft, "sequential")

ANSWER = [
    (
        "rollback one short: the target's block is written one slot late",
        (
            roles.verified_slot,
            "jnp.maximum(state.progress.lengths - 1, 0)",
            "state.progress.lengths",
        ),
        checks.check_parallel,
    ),
    (
        "a garbage slot is visible",
        (roles.verify, "cache, tail\n", "cache, tail + 1\n"),
        checks.check_parallel,
    ),
    (
        "a verified end token is ignored",
        (transition.commit, "progress.done | ended |", "progress.done |"),
        checks_transition.check_transition,
    ),
    (
        "tokens behind an end token are kept",
        (transition.commit, "count = jnp.minimum(count, first_end + 1)\n", "\n"),
        checks_transition.check_transition,
    ),
    (
        "an end token that was only proposed ends the row",
        (transition.commit, "first_end < count", "first_end < width"),
        checks_transition.check_transition,
    ),
    (
        "a run goes over the limit",
        (transition.commit, "jnp.minimum(count, room)", "count"),
        checks_transition.check_transition,
    ),
    (
        "finished rows go on",
        (transition.commit, "jnp.where(progress.done, 0, ", "jnp.where(False, 0, "),
        checks_transition.check_transition,
    ),
    (
        "a bonus token in the parallel schedule",
        (
            transition.transition,
            "jnp.minimum(accepted + 1, judged) if parallel else accepted + 1",
            "accepted + 1",
        ),
        checks_transition.check_transition,
    ),
    (
        "the correction is the draft's own token",
        (
            verification.judge,
            "return choice, choice == proposed",
            "return jnp.where(proposed < 0, choice, proposed), choice == proposed",
        ),
        checks.check_sequential,
    ),
    (
        "every slot draws with the noise of the first",
        (roles.rule, "[:, None] + slots", "[:, None] + 0 * slots"),
        checks.check_parallel_sampled,
    ),
    (
        "the penalty does not count accepted candidates of the same round",
        (roles._seen_by_slot, "_mark_one(masks[-1], tokens[:, slot])", "masks[-1]"),
        checks.check_penalty,
    ),
    (
        "the penalty counts what was proposed and refused",
        (
            state.follow,
            "mark(state.seen, choice, following.lengths - progress.lengths)",
            "mark(state.seen, proposed, judged)",
        ),
        checks.check_penalty,
    ),
    (
        "a run is over where the round is",
        (transition.transition, "(progress.run if parallel else 0)", "0"),
        checks_transition.check_transition,
    ),
    (
        "a correction behind the limit is judged",
        (transition.transition, "(finished & ~full)", "(running & ~full)"),
        checks_transition.check_transition,
    ),
    (
        "optimistic after a rejection",
        (transition.transition, "parallel & full & ~state.done", "parallel & ~state.done"),
        checks_transition.check_transition,
    ),
]

ACCEPTANCE = [
    (
        "the pending chunk begins with the token already judged",
        (transition.transition, "chunk[:, 1:], chunk[:, :1]", "chunk[:, :-1], chunk[:, -1:]"),
        checks_transition.check_transition,
    ),
    (
        "the draft never feeds its last accepted token",
        (
            roles.propose,
            "fed = jnp.stack([before, last], axis=1)",
            "fed = last[:, None]",
        ),
        identical_sequential,
    ),
    (
        "the last prompt token is in the draft's cache twice",
        (roles.prepare_draft, "jnp.asarray(pruned.lengths) - 1", "jnp.asarray(pruned.lengths)"),
        identical_sequential,
    ),
    (
        "the draft stands one position late",
        (
            drafting.draft_chunk,
            "prompt.next_position[:, None] - 1",
            "prompt.next_position[:, None]",
        ),
        identical_parallel,
    ),
    (
        "the draft draws with the noise of the next position",
        (
            drafting.draft_chunk,
            "prompt.lengths + slots[:, -1]",
            "prompt.lengths + slots[:, -1] + 1",
        ),
        identical_parallel,
    ),
    (
        "the draft forgets what is pending when it penalises",
        (
            roles.propose,
            "mark(seen, progress.pending, progress.pending_count)",
            "seen",
        ),
        identical_parallel,
    ),
    (
        "the draft keeps ids that its target does not have",
        (verification.fit_vocabulary, "return logits[..., :size]", "return logits"),
        checks_draft.check_vocabularies,
    ),
    (
        "the draft may propose placeholders",
        (drafting.draft_chunk, "if banned:", "if False:"),
        checks_draft.check_placeholders,
    ),
    (
        "a packed draft goes on where the whole prompt ends",
        (pruning.prune, "following = lengths", "following = jnp.asarray(inputs.next_position)"),
        checks_draft.check_packed_draft,
    ),
    (
        "all layers are scored whatever was asked",
        (
            roles.read_prompt,
            "layers = config.score_layers",
            "pass",
        ),
        checks_draft.check_selection,
    ),
    (
        "the target's features for the draft's scores",
        (
            one_device.start,
            "read_prompt(draft, inputs, draft_visual",
            "read_prompt(draft, inputs, visual",
        ),
        checks_draft.check_selection,
    ),
    (
        "the scope is forgotten",
        (roles.read_prompt, ", scope=scope(scoring)", ""),
        checks_draft.check_selection,
    ),
    (
        "the support is forgotten",
        (
            roles.read_prompt,
            "Relevance(inputs, support(scoring), ",
            "Relevance(inputs, heads=",
        ),
        checks_draft.check_selection,
    ),
    (
        "kept tokens stand where they stand in the pruned prompt",
        (pruning.prune, 'positions == "packed"', "True"),
        checks_draft.check_pruned_prompt,
    ),
    (
        "kept ordinals are counted from the batch's first token",
        (pruning.kept_columns, "start[:, None] + ", "0 + "),
        checks_draft.check_pruned_prompt,
    ),
]

LAW = [
    (
        "the residual ignores q",
        (verification.judge, "jnp.maximum(p - q, 0.0)", "p"),
        checks_law.check_rejection_sequential,
    ),
    (
        "q of the wrong slot",
        (roles.rule, "laws[:, :1])", "laws[:, -1:])"),
        checks_law.check_rejection_parallel,
    ),
    (
        "the laws of pending tokens are in the wrong order",
        (state.follow, "laws[:, 1:], proposal", "laws[:, :0:-1], proposal"),
        checks_law.check_rejection_parallel,
    ),
    (
        "pending tokens are judged by the next chunk's laws",
        (roles.rule, "state.laws, laws[:, :1]", "laws, laws[:, :1]"),
        checks_law.check_rejection_parallel,
    ),
]

# The others take half a minute each: `pytest -m slow tests/mutants`.
QUICK = (
    checks_transition.check_transition,
    checks.check_parallel,
    checks_draft.check_pruned_prompt,
    checks_draft.check_packed_draft,
    checks_draft.check_placeholders,
)


def parameter(name: str, change: tuple, check) -> object:
    marks = () if check in QUICK else pytest.mark.slow
    return pytest.param(change, check, id=name, marks=marks)


@pytest.mark.parametrize(
    ("change", "check"), [parameter(*mutant) for mutant in [*ANSWER, *ACCEPTANCE, *LAW]]
)
def test_mutant_is_noticed(change, check) -> None:
    assert_noticed(change, check)


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["sequential", "parallel"])
def test_noise_reused_between_positions_is_seen(schedule: str) -> None:
    """The law is then off by more than chance allows: p < 1e-9 at 200,000 samples."""
    try:
        with pytest.MonkeyPatch.context() as patch:
            mutate(
                patch,
                verification._uniform,
                "jax.random.fold_in(jax.random.fold_in(key, row), position)",
                "jax.random.fold_in(key, row)",
            )
            mutate(
                patch,
                sampling.gumbel_noise,
                "jax.random.fold_in(jax.random.fold_in(key, row), position)",
                "jax.random.fold_in(key, row)",
            )
            assert checks_law.law_p_value(schedule, checks_law.MAXIMAL) < 1e-9
    finally:
        forget_programs()
