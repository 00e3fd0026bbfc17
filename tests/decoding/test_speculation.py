"""Speculative decoding gives the target's own answer, and its counters are right."""

from collections import Counter

import pytest
from support import checks_draft, checks_law, checks_transition, speculative_cases
from support import checks_speculation as checks
from support.pairs import Shape

# Everything else about a case is data, so these are all the programs there are.
CI_SHAPES = (
    Shape("sequential", 1, 2, 0.02, speculative_cases.EOS[0]),
    Shape("sequential", 4, 8, 0.5, speculative_cases.EOS[2], speculative_cases.SAMPLERS[3]),
    Shape("parallel", 1, 1, 0.1, speculative_cases.EOS[3], speculative_cases.SAMPLERS[1]),
    Shape("parallel", 5, 6, 1.0, speculative_cases.EOS[0], speculative_cases.SAMPLERS[2]),
)


@pytest.mark.parametrize("shape", CI_SHAPES, ids=str)
def test_answers_are_those_of_the_target(shape: Shape) -> None:
    """75 cases each through the recorded rounds, a shape through ``hippo_generate`` itself too."""
    found, parted = speculative_cases.run_cases(shape, range(75), whole=shape.batch == 6)
    assert parted <= 1
    kinds = {mode: {kind for m, kind, *_ in found if m == mode} for mode, *_ in found}
    wanted = {"none", "all"} if shape.gamma == 1 else {"none", "some", "all"}
    for mode, seen in kinds.items():
        assert seen == (wanted - {"some"} if mode == "conservative" else wanted)


def test_the_state_machine() -> None:
    checks_transition.check_transition()


def test_sequential() -> None:
    checks.check_sequential()


def test_parallel() -> None:
    checks.check_parallel()


@pytest.mark.slow
def test_sequential_sampled() -> None:
    checks.check_sequential_sampled()


def test_the_penalty_counts_position_by_position() -> None:
    checks.check_penalty()


def test_parallel_sampled() -> None:
    checks.check_parallel_sampled()


@pytest.mark.parametrize("schedule", ["sequential", "parallel"])
def test_an_identical_draft_is_never_refused(schedule: str) -> None:
    checks_draft.check_identical_draft(schedule, (speculative_cases.MIXED,))


def test_keeping_everything_is_not_pruning() -> None:
    checks_draft.check_kept_everything()


def test_a_pruned_prompt_is_the_whole_one_with_tokens_hidden() -> None:
    checks_draft.check_pruned_prompt()


def test_the_draft_sees_what_the_scores_choose() -> None:
    checks_draft.check_selection()


def test_a_packed_draft_goes_on_behind_its_own_prompt() -> None:
    checks_draft.check_packed_draft()


def test_the_draft_proposes_no_placeholders() -> None:
    checks_draft.check_placeholders()


def test_vocabularies_may_differ() -> None:
    checks_draft.check_vocabularies()


@pytest.mark.parametrize("schedule", ["sequential", "parallel"])
def test_rejection_sampling(schedule: str) -> None:
    """The joint law of three tokens from 60,000 answers; the slow test takes 200,000."""
    assert checks_law.law_p_value(schedule, checks_law.MAXIMAL, samples=60_000) > 1e-3


@pytest.mark.slow
def test_rejection_sampling_at_length() -> None:
    checks_law.check_rejection_sequential()
    checks_law.check_rejection_parallel()


def slow_shapes() -> list[Shape]:
    """Every gamma, both schedules, every batch size, ratio, sampler and set of end tokens."""
    ratios = (0.02, 1.0, 0.3, 1.0, 0.8, 1.0, 0.1, 1.0)
    shapes = []
    for gamma in range(1, 9):
        for offset, schedule in enumerate(("sequential", "parallel")):
            number = 2 * gamma + offset
            shapes.append(
                Shape(
                    schedule,
                    gamma,
                    1 + (3 * gamma + 4 * offset) % 8,
                    ratios[(gamma + 3 * offset) % 8],
                    speculative_cases.EOS[number % 4]
                    if gamma % 4 == 1
                    else speculative_cases.EOS[0],
                    speculative_cases.SAMPLERS[(gamma + offset) % 4],
                    keywords=(
                        ("draft_positions", "packed" if gamma == 3 else "retained"),
                        ("score_layers", 1 if gamma == 5 else None),
                    ),
                )
            )
    # Optimistic rounds that are refused at once, and end there, are rare elsewhere.
    rare = [Shape("parallel", gamma, 6, 0.3, speculative_cases.EOS[0]) for gamma in (2, 4)]
    return [*shapes, *rare]


@pytest.mark.slow
def test_thousands_of_cases_and_every_transition() -> None:
    """8,640 cases; every category of transition is met 50 times, none in excess."""
    found: Counter = Counter()
    parted = cases = rows = 0
    for shape in slow_shapes():
        seeds = range(1000, 1480)
        counts, near = speculative_cases.run_cases(shape, seeds)
        speculative_cases.run_cases(shape, range(2000, 2004), whole=True)
        found += counts
        parted, cases, rows = parted + near, cases + len(seeds), rows + len(seeds) * shape.batch
    total = sum(found.values())
    print(f"{cases} cases, {rows} rows, {total} rounds, {parted} rows parted on a tie")
    for category, count in sorted(found.items()):
        print(category, count)
    assert cases >= 8000 and parted <= rows // 1000
    missing = {c: found[c] for c in speculative_cases.all_categories() if found[c] < 50}
    assert not missing
    assert max(found.values()) <= 0.3 * total
