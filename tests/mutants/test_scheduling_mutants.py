"""Mutants of tensor parallelism and of both schedulers over devices, each noticed by a check that
compares with one device."""

import pytest
from support import checks_scheduling as checks
from support.mutation import assert_noticed

from hippo_jax.architectures import decoder, linear, sharding, tensor_parallel
from hippo_jax.scheduling import one_program, roles, two_meshes
from hippo_jax.scoring import attention

MUTANTS = [
    (
        "partial sums are not added up",
        (linear.Linear.__call__, "y = self.shards.sum(y)", "y = y"),
        checks.check_split_model,
    ),
    (
        "every device looks its ids up in the first rows",
        (decoder.Decoder.embed, " - self.shards.index() * rows", ""),
        checks.check_split_model,
    ),
    (
        "every device reads the first key head",
        (decoder.Attention._own_heads, "first // (", "0 * first // ("),
        checks.check_split_model,
    ),
    (
        "scores are added up over devices, not averaged",
        (attention.Relevance.scores, " / self.heads.size", ""),
        checks.check_split_model,
    ),
    (
        "logits are joined in the wrong order",
        (tensor_parallel.Shards.gather, "self.index(), 0", "self.size - 1 - self.index(), 0"),
        checks.check_unequal_groups,
    ),
    (
        "a group's shards are counted from the mesh's first device",
        (sharding.Home.owner, "(slot - self.first)", "slot"),
        checks.check_unequal_groups,
    ),
    (
        "what other devices found with their copies is returned",
        (tensor_parallel._from_first, "== home.first", "== 0"),
        checks.check_unequal_groups,
    ),
    (
        "the roles are exchanged",
        (one_program.Roles.is_draft, "== 1", "== 0"),
        checks.check_one_program,
    ),
    (
        "every device adds what it holds to what is sent",
        (one_program.Roles._from, "told_by(values, own, axes)", "told_by(values, True, axes)"),
        checks.check_more_devices,
    ),
    (
        "the draft does not hear which tokens are kept",
        (
            one_program.start,
            "kept = roles.from_target(chosen)",
            "kept = chosen",
        ),
        checks.check_one_program,
    ),
    (
        "the verdict stays with the target",
        (one_program._exchange, "roles.from_target(said)", "said"),
        checks.check_one_program,
    ),
    (
        "new keys are written where the next round begins",
        (one_program.one_round, "verified_slot(state)", "verified_slot(moved)"),
        checks.check_one_program,
    ),
    (
        "the target moves on by another verdict than it said",
        (
            two_meshes.TargetSide.step,
            "counted = (proposal, self.said)",
            "counted = (proposal, jax.tree.map(jax.numpy.zeros_like, self.said))",
        ),
        checks.check_two_meshes,
    ),
    (
        "a chunk is judged against the one before it",
        (roles.rule, "jnp.where(waiting, progress.pending, -1)", "progress.pending[:, ::-1]"),
        checks.check_two_meshes,
    ),
]

QUICK = ("partial sums are not added up", "the verdict stays with the target")


@pytest.mark.parametrize(
    ("change", "check"),
    [
        pytest.param(change, check, id=name, marks=() if name in QUICK else pytest.mark.slow)
        for name, change, check in MUTANTS
    ],
)
def test_mutant_is_noticed(change, check) -> None:
    assert_noticed(change, check)
