"""Two programs side by side: how they are driven."""

import itertools

import jax
import numpy as np
import pytest
from support.pairs import Shape
from support.placements import PLACES, assert_same, placed
from support.speculative_cases import Case

import hippo_jax as hj
from hippo_jax.decoding.generate import Generation
from hippo_jax.decoding.sampling import Sampling
from hippo_jax.scheduling import role_threads, sides, two_meshes
from hippo_jax.scheduling.plan import make_plan, placement_of
from hippo_jax.scheduling.state import finish

MAXIMAL = Sampling(0.9, top_k=12, coupling="maximal")
PARALLEL = Shape("parallel", 3, 3, 0.5, (3, 9, 17, 22))
PLACE = PLACES["two meshes, 1 + 1"]


def begun(case: Case):
    plan, limit = make_plan(case.pair, case.inputs, *case.arguments().values(), case.shape.config)
    pair = case.pair
    return plan, two_meshes.begin(
        pair.target, pair.draft, case.inputs, limit, case.key, plan, placement_of(pair)
    )


@pytest.mark.parametrize("threads", [False, True])
@pytest.mark.parametrize(
    "shape",
    [
        pytest.param(PARALLEL, id="greedy"),
        pytest.param(
            Shape("parallel", 4, 2, 0.5, (5,), MAXIMAL),
            id="rejection sampling",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_one_thread_or_two(shape: Shape, threads: bool) -> None:
    for seed in range(3):
        case = Case(shape, seed)
        expected = case.speculative()
        case.pair = placed(case.pair, PLACE())
        plan, roles = begun(case)
        state = two_meshes.run(*roles, threads=threads)
        assert_same(Generation(*finish(state, plan)), expected)


def test_the_target_does_not_wait_for_the_draft_to_hear_what_it_chose(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Between platforms the host waits for what goes over; the other layers must be on by then."""
    case = Case(PARALLEL, 0)
    case.pair = placed(case.pair, PLACE())
    events: list[str] = []

    def noting(name: str):
        program = getattr(sides, name)

        def noted(*arguments):
            events.append(name)
            return program(*arguments)

        return noted

    for name in ("target_reads", "draft_looks", "target_starts", "draft_starts"):
        monkeypatch.setattr(sides, name, noting(name))
    put = two_meshes._put
    draft_mesh = case.pair.placement.draft

    def waiting(mesh):
        def on_mesh(tree):
            if mesh == draft_mesh and events:
                leaves = [leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.Array)]
                events.extend(["chosen go over"] * bool(leaves))
                jax.block_until_ready(leaves)
            return put(mesh)(tree)

        return on_mesh

    monkeypatch.setattr(two_meshes, "_put", waiting)
    case.inputs = jax.device_get(case.inputs)  # the prompt is the host's: nothing to wait for
    begun(case)
    assert events == [
        "target_reads",
        "draft_looks",
        "target_starts",
        "chosen go over",
        "draft_starts",
    ]


def test_the_draft_keeps_its_own_copy_of_the_state() -> None:
    """Ids one way, a count and a token the other: nothing else tells it what was committed."""
    case = Case(PARALLEL, 2)
    case.pair = placed(case.pair, PLACE())
    _, (target, draft) = begun(case)
    rounds = two_meshes.rounds(target, draft)
    for _ in range(4):
        next(rounds)
    behind = jax.device_get(draft.state.progress)
    ahead = jax.device_get(target.state.progress)
    # The draft has not heard the round that was enqueued last.
    assert (behind.lengths <= ahead.lengths).all() and behind.lengths.sum() > 0
    for row, length in enumerate(behind.lengths):
        np.testing.assert_array_equal(behind.tokens[row, :length], ahead.tokens[row, :length])
    assert draft.state.target_cache is None and target.state.draft_cache is None
    homes = {d for leaf in jax.tree.leaves(draft.state) for d in leaf.devices()}
    assert homes == set(case.pair.placement.draft.devices.flat)


def test_surplus_rounds_change_nothing_and_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(PARALLEL, 0)
    case.pair = placed(case.pair, PLACE())
    plan, (target, draft) = begun(case)
    calls = []
    step = target.step
    monkeypatch.setattr(target, "step", lambda *args: calls.append(1) or step(*args))
    state = two_meshes.run(target, draft, threads=False)
    needed = int(np.max(state.progress.rounds))
    assert needed <= len(calls) <= needed + two_meshes.LAG + 1
    before = jax.device_get(finish(state, plan))
    rounds = two_meshes.rounds(target, draft)
    for _ in range(2):
        assert bool(next(rounds))
    after = jax.device_get(finish(target.state, plan))
    jax.tree.map(np.testing.assert_array_equal, after, before)


def test_no_forward_once_all_rows_are_done() -> None:
    """The program's forward stands inside a branch."""
    case = Case(PARALLEL, 0)
    case.pair = placed(case.pair, PLACE())
    plan, (target, draft) = begun(case)
    proposal = two_meshes.first_chunk(target, draft)
    arguments = (target.call.on_target(proposal), target.said, *target.call.target_constants)
    jaxpr = jax.make_jaxpr(sides.target_verifies.__wrapped__, static_argnums=6)(
        target.call.target, target.state, *arguments, plan
    )
    dots = [str(e) for e in jaxpr.eqns if e.primitive.name == "dot_general"]
    conds = [e for e in jaxpr.eqns if e.primitive.name == "cond"]
    assert not dots and len(conds) == 1
    sizes = sorted(str(branch).count("dot_general") for branch in conds[0].params["branches"])
    assert sizes[0] == 0 and sizes[1] > 10


def test_a_jit_over_two_meshes_is_refused() -> None:
    case = Case(PARALLEL, 0)
    case.pair = placed(case.pair, PLACE())
    arguments = {**case.arguments(), "config": case.shape.config}
    with pytest.raises(hj.HippoError, match="outside of jit") as caught:
        jax.jit(lambda inputs: hj.hippo_generate(case.pair, inputs, **arguments))(case.inputs)
    assert "\n" not in str(caught.value)
    with pytest.raises(hj.HippoError, match="outside of jit"):  # nothing of it is traced
        jax.jit(lambda: hj.hippo_generate(case.pair, case.inputs, **arguments))()


def test_which_schedule_auto_is() -> None:
    case = Case(PARALLEL, 0)
    arguments = case.arguments().values()

    def schedule(place: str) -> str:
        pair = placed(case.pair, PLACES[place]())
        plan, _ = make_plan(pair, case.inputs, *arguments, hj.HippoConfig(gamma=2))
        return plan.config.schedule

    assert schedule("two meshes, 1 + 1") == schedule("one program, 1 + 1") == "parallel"
    assert schedule("one mesh") == "sequential"


def test_stream_on_two_meshes() -> None:
    pair = hj.load_pair("demo", placement=PLACE())
    inputs = hj.prepare_inputs(pair, hj.clip("shapes_1"), "Describe the video.")
    arguments = {"max_new_tokens": 16, "config": hj.HippoConfig(gamma=3)}
    pieces = list(hj.stream(pair, inputs, **arguments))
    assert len(pieces) > 2
    assert "".join(pieces) == hj.hippo_generate(pair, inputs, **arguments).text(pair.tokenizer)[0]


def test_who_waits_for_a_round_lets_both_work() -> None:
    """``stream`` does: by then the draft must have its next chunk to make."""
    case = Case(PARALLEL, 2)
    case.pair = placed(case.pair, PLACE())
    _, (target, draft) = begun(case)
    before = draft.proposal
    for _ in itertools.islice(two_meshes.rounds(target, draft), 3):
        ahead, behind = jax.device_get((target.state.progress, draft.state.progress))
        assert draft.proposal is not before
        np.testing.assert_array_equal(behind.lengths, ahead.lengths)
        before = draft.proposal


def test_settings_of_the_callers_hold_in_the_threads() -> None:
    """Else the rounds would be computed otherwise than the prompt and than plain decoding."""
    found = []

    def job() -> None:
        found.append([getattr(jax.config, name) for name in role_threads.SETTINGS])

    with (
        jax.default_matmul_precision("highest"),
        jax.threefry_partitionable(False),
        jax.enable_x64(True),
    ):
        role_threads.run_threads({"target": job}, ())
    role_threads.run_threads({"target": job}, ())
    assert found == [["highest", False, True], [None, True, False]]
