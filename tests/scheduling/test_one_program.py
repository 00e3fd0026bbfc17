"""One program, two roles: what is compiled."""

import functools

import jax
import numpy as np
import pytest
from support.pairs import Shape
from support.placements import PLACES, assert_same, placed
from support.speculative_cases import Case

import hippo_jax as hj
from hippo_jax.architectures import cache as kv
from hippo_jax.scheduling import hlo, one_program
from hippo_jax.scheduling.plan import make_plan
from hippo_jax.scheduling.programs import advance, start

# Sizes that nothing else in the program has: prompt slots, tail slots of target and draft.
SHAPE = Shape("parallel", 3, 2, 0.5, (3,), capacity=41)
CACHES = ("f32[2,1,32,8]", "f32[2,1,44,8]", "f32[2,1,47,8]")


@pytest.fixture(scope="module")
def case() -> Case:
    case = Case(SHAPE, 1)
    case.pair = placed(case.pair, PLACES["one program, 1 + 1"]())
    return case


def test_jit_gives_it_when_the_placement_says_so(case: Case) -> None:
    one_device = Case(SHAPE, 1).speculative()
    arguments = {**case.arguments(), "max_new_tokens": 41, "config": SHAPE.config}
    call = functools.partial(hj.hippo_generate, **arguments)
    limited = jax.jit(
        lambda pair, inputs, limit: hj.hippo_generate(
            pair, inputs, **{**arguments, "max_new_tokens": limit}
        )
    )
    assert_same(limited(case.pair, case.inputs, np.int32(case.limit)), one_device)
    jaxpr = str(jax.make_jaxpr(call)(case.pair, case.inputs))
    assert "shard_map" in jaxpr and "while[" in jaxpr
    assert "callback" not in jaxpr and "device_put" not in jaxpr


def loop_copies(case: Case) -> dict[str, int]:
    """Copies of whole caches inside the loop over rounds."""
    plan, limit = make_plan(case.pair, case.inputs, *case.arguments().values(), SHAPE.config)
    pair = case.pair

    def rounds(target, draft, state):
        return advance(target, draft, state, limit, None, np.int32(9), plan)

    state = jax.jit(lambda t, d, i: start(t, d, i, limit, None, plan))(
        pair.target, pair.draft, case.inputs
    )
    lowered = jax.jit(rounds, donate_argnums=2).lower(pair.target, pair.draft, state)
    text = lowered.compile().as_text()
    loop = hlo.loop_of_rounds(text)
    assert all(shape in text for shape in CACHES)
    # Ids one way, a count and a token the other.
    sent = sorted(shape for kind in loop.collectives for shape in kind.split()[1:])
    assert sent == ["s32[2,3]", "s32[2]", "s32[2]"]
    assert loop.conditionals >= 1
    return {shape: loop.copies[shape] for shape in CACHES if loop.copies[shape]}


def test_no_cache_is_copied_in_the_loop(case: Case) -> None:
    assert loop_copies(case) == {}


def test_a_branch_that_returned_the_cache_would_copy_it(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Written:
        """``cache.write``, where the branch has written already."""

        @staticmethod
        def write(cache, blocks, slot):
            return blocks if isinstance(blocks, kv.KVCache) else kv.write(cache, blocks, slot)

    honest = one_program.verify

    def returns_cache(target, state, chunk, plan):
        logits, blocks = honest(target, state, chunk, plan)
        slot = one_program.verified_slot(state)
        return logits, kv.write(state.target_cache, blocks, slot)

    monkeypatch.setattr(one_program, "verify", returns_cache)
    monkeypatch.setattr(one_program, "kv", Written)
    assert loop_copies(case)


def test_roles_of_different_mesh_axes_are_told_apart() -> None:
    for place, axes in (
        ("one program, 2 + 2", ("role", "tp")),
        ("one program, 3 + 1", ("device",)),
    ):
        target, draft = PLACES[place]().homes()
        roles = one_program.Roles(target, draft)
        assert target.mesh.axis_names == axes

        def who(roles=roles, axes=axes):
            mine = jax.lax.axis_index(axes).astype(np.int32)
            is_draft = roles.is_draft()
            found = roles.side_by_side(lambda: mine, lambda: mine)
            return (
                is_draft[None],
                jax.numpy.stack([roles.from_target(found[0]), roles.from_draft(found[1])])[None],
            )

        spec = jax.P(target.mesh.axis_names)
        is_draft, sent = jax.jit(
            jax.shard_map(who, mesh=target.mesh, in_specs=(), out_specs=spec, check_vma=False)
        )()
        count = target.size
        np.testing.assert_array_equal(is_draft, np.arange(target.mesh.size) >= count)
        # Everybody hears the first device of each role.
        np.testing.assert_array_equal(sent, [[0, count]] * target.mesh.size)
