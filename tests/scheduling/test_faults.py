"""Two programs side by side: if one fails the call ends and names its role; so does Ctrl-C."""

import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.deadline import at_most, interruptible
from support.pairs import Shape
from support.placements import PLACES, placed
from support.speculative_cases import Case

import hippo_jax as hj
from hippo_jax.decoding.generate import Generation
from hippo_jax.decoding.sampling import Sampling
from hippo_jax.scheduling import sides, two_meshes
from hippo_jax.scheduling.faults import RoleError, reason
from hippo_jax.scheduling.plan import make_plan, placement_of
from hippo_jax.scheduling.state import finish

PARALLEL = Shape("parallel", 2, 1, 0.5, capacity=12)
OTHERS = {
    "sequential": Shape("sequential", 2, 1, 0.5, capacity=12),
    "rejection sampling": Shape(
        "parallel", 2, 1, 0.5, sampler=Sampling(0.9, coupling="maximal"), capacity=12
    ),
}
LIMIT = 120  # seconds that any of these may take, compilation included
PREFILL = ("target_reads", "draft_looks", "draft_starts", "target_starts")
ROUNDS = ("target_verifies", "draft_proposes")
THREADS = pytest.mark.parametrize("threads", [False, True], ids=["one thread", "two threads"])


def case_on_two_meshes(shape: Shape) -> Case:
    case = Case(shape, 1)
    case.limit = shape.capacity
    case.pair = placed(case.pair, PLACES["two meshes, 1 + 1"]())
    return case


@pytest.fixture(scope="module", autouse=True)
def no_failure_behind() -> Iterator[None]:
    """jax keeps a token of the last callback on each device and looks at it once more at exit."""
    yield
    for device in jax.devices()[:2]:
        x = jax.device_put(np.float32(0), device)
        jax.jit(lambda x: jax.pure_callback(np.asarray, x, x))(x)


@pytest.fixture(scope="module")
def case() -> Case:
    return case_on_two_meshes(PARALLEL)


@pytest.fixture(scope="module")
def expected(case: Case) -> np.ndarray:
    with at_most(LIMIT):
        return np.asarray(answer(case, threads=True).tokens)


def answer(case: Case, threads: bool) -> Generation:
    """``hippo_generate`` on two meshes, with the choice between one thread and two."""
    plan, limit = make_plan(case.pair, case.inputs, *case.arguments().values(), case.shape.config)
    placement = placement_of(case.pair)
    roles = two_meshes.begin(
        case.pair.target, case.pair.draft, case.inputs, limit, case.key, plan, placement
    )
    return Generation(*finish(two_meshes.run(*roles, threads=threads), plan))


def change(
    patch: pytest.MonkeyPatch, name: str, instead: Callable[[Callable[..., Any]], Any], call: int
) -> list[str]:
    """Let ``instead(program)`` give the results of one call (from 1) of a program of ``sides``.

    Returns a list that grows with every call."""
    program = getattr(sides, name)
    calls: list[str] = []

    def changed(*arguments: Any) -> Any:
        calls.append(name)
        if len(calls) == call:
            return instead(lambda: program(*arguments))
        return program(*arguments)

    patch.setattr(sides, name, changed)
    return calls


def refuse(program: Callable[[], Any]) -> Any:
    """Fails when it is enqueued."""
    raise ValueError("out of luck\nand of time")


def break_down(program: Callable[[], Any]) -> Any:
    """Fails while it runs, behind the host's back: all of its results are spoilt."""
    results = program()
    device = next(iter(jax.tree.leaves(results)[0].devices()))

    def raises(x: np.ndarray) -> np.ndarray:
        raise ValueError("out of luck\nand of time")

    def failing(results: Any, busy: jax.Array) -> Any:
        word = jax.pure_callback(raises, jax.ShapeDtypeStruct((), jnp.float32), busy[0, 0])
        return jax.lax.optimization_barrier(results), word

    homes = jax.tree.map(lambda x: x.sharding, results), None
    busy = jax.device_put(jnp.eye(500), device)
    broken = jax.jit(failing, out_shardings=homes).lower(results, busy).compile()
    # What it waits for is not there yet, or it would run and fail in the thread that enqueues it.
    return broken(results, _long_work(busy))[0]


@jax.jit
def _long_work(x: jax.Array) -> jax.Array:
    for _ in range(80):
        x = x @ x
    return x


def assert_names(caught: pytest.ExceptionInfo[RoleError], role: str) -> None:
    assert str(caught.value) == f"the {role}'s program failed: ValueError: out of luck"
    assert caught.value.role == role
    assert isinstance(caught.value, hj.HippoError)
    assert isinstance(caught.value.__cause__, (ValueError, jax.errors.JaxRuntimeError))


def no_threads_left() -> bool:
    return not [thread for thread in threading.enumerate() if thread.name.startswith("hippo ")]


@THREADS
@pytest.mark.parametrize("fault", [refuse, break_down])
@pytest.mark.parametrize("name", [*PREFILL, *ROUNDS])
def test_a_failed_program_ends_the_call_and_names_its_role(
    case: Case, expected: np.ndarray, name: str, fault: Callable, threads: bool
) -> None:
    check_fault(case, expected, name, fault, threads)


@pytest.mark.slow
@THREADS
@pytest.mark.parametrize("shape", OTHERS.values(), ids=OTHERS)
def test_in_every_state_machine(shape: Shape, threads: bool) -> None:
    case = case_on_two_meshes(shape)
    with at_most(LIMIT):
        expected = np.asarray(answer(case, threads).tokens)
    rules = ["target_rules"] if "sampling" in shape.sampler.__class__.__name__.lower() else []
    for name in [*PREFILL, *ROUNDS, *rules]:
        for fault in (refuse, break_down):
            check_fault(case, expected, name, fault, threads)


def check_fault(
    case: Case, expected: np.ndarray, name: str, fault: Callable, threads: bool
) -> None:
    with pytest.MonkeyPatch.context() as patch, at_most(LIMIT):
        change(patch, name, fault, call=1 if name in PREFILL else 3)
        with pytest.raises(RoleError) as caught:
            answer(case, threads)
    assert_names(caught, name.split("_")[0])
    assert no_threads_left()
    with at_most(LIMIT):
        np.testing.assert_array_equal(answer(case, threads).tokens, expected)


def test_a_failure_in_a_surplus_round_is_no_answer(case: Case) -> None:
    """Behind the last look at the flag nobody would see it but the caller."""
    with pytest.MonkeyPatch.context() as patch:
        calls = change(patch, "target_verifies", refuse, call=0)
        answer(case, threads=False)
    with pytest.MonkeyPatch.context() as patch, at_most(LIMIT):
        change(patch, "target_verifies", break_down, call=len(calls))
        with pytest.raises(RoleError) as caught:
            answer(case, threads=False)
    assert_names(caught, "target")


def test_the_public_function_says_so(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    change(monkeypatch, "draft_proposes", refuse, call=2)
    with at_most(LIMIT), pytest.raises(hj.HippoError, match="the draft's program failed: "):
        case.speculative()


def test_stream_says_so_too(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = hj.load_pair("demo", placement=PLACES["two meshes, 1 + 1"]())
    inputs = hj.prepare_inputs(pair, None, "Describe the video.")
    change(monkeypatch, "target_verifies", break_down, call=2)
    pieces = hj.stream(pair, inputs, max_new_tokens=16, config=hj.HippoConfig(gamma=2))
    with at_most(LIMIT), pytest.raises(RoleError) as caught:
        list(pieces)
    assert_names(caught, "target")


@pytest.fixture
def main_thread_interrupts() -> Iterator[None]:
    with interruptible():
        yield


@THREADS
@pytest.mark.usefixtures("main_thread_interrupts")
def test_ctrl_c_ends_the_call_and_its_threads(
    case: Case, expected: np.ndarray, threads: bool
) -> None:
    def interrupted(program: Callable[[], Any]) -> Any:
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        return program()

    with pytest.MonkeyPatch.context() as patch, at_most(LIMIT):
        change(patch, "draft_proposes", interrupted, call=2)
        with pytest.raises(KeyboardInterrupt):
            answer(case, threads)
    assert no_threads_left()
    with at_most(LIMIT):
        np.testing.assert_array_equal(answer(case, threads).tokens, expected)


def test_the_users_own_errors_stay_as_they_are(case: Case) -> None:
    def mistaken(program: Callable[[], Any]) -> Any:
        raise hj.HippoError("score_layers is too large")

    for threads in (False, True):
        with pytest.MonkeyPatch.context() as patch, at_most(LIMIT):
            change(patch, "draft_proposes", mistaken, call=2)
            with pytest.raises(hj.HippoError, match="score_layers is too large") as caught:
                answer(case, threads)
        assert type(caught.value) is hj.HippoError


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "RuntimeError"),
        ("full\nof lines", "RuntimeError: full"),
        (
            'INTERNAL: Traceback (most recent call last):\n  File "a.py", line 1, in f\n'
            "    f(x)\n    ^^^^\nKeyError: 3\nand more",
            "KeyError: 3",
        ),
        ("long " * 100, ("RuntimeError: " + "long " * 100)[:300]),
    ],
)
def test_an_error_in_one_line(text: str, said: str) -> None:
    assert reason(RuntimeError(text)) == said.strip()
