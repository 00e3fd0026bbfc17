"""One program with two roles: an error in one role's part ends the call and names the role."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import pytest
from support.pairs import Shape
from support.placements import PLACES, placed
from support.speculative_cases import Case

import hippo_jax as hj
from hippo_jax.architectures.video_lm import VideoLM
from hippo_jax.placement.patience import WAIT_FLAG
from hippo_jax.scheduling import one_program, role_watch
from hippo_jax.scheduling.faults import RoleError

TESTS = Path(__file__).parents[1]
LIMIT = 300  # seconds until a test gives up
SOON = 20  # seconds from a failure to the error, of 60 that it may take
PLACE = PLACES["one program, 1 + 1"]
CALLBACK = 'INTERNAL: Traceback (most recent call last):\n  File "a.py", line 1, in f\nKeyError: 3'


def run_script(*arguments: str, flags: str) -> subprocess.CompletedProcess[str]:
    """Run ``support.failing_role`` with these flags of XLA's more."""
    path = [str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")]
    own = [flag for flag in os.environ["XLA_FLAGS"].split() if WAIT_FLAG not in flag]
    return subprocess.run(
        [sys.executable, str(TESTS / "support" / "failing_role.py"), *arguments],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, path)),
            "XLA_FLAGS": " ".join([*own, flags]),
        },
        stdout=subprocess.PIPE,
        text=True,
        timeout=LIMIT,
        check=False,
    )


@pytest.mark.parametrize(
    ("role", "target", "draft", "call"),
    [
        ("draft", 1, 1, "generate"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in [
                ("target", 1, 1, "generate"),
                ("draft", 3, 1, "generate"),
                ("draft", 1, 1, "stream"),
                ("target", 2, 2, "stream"),
            ]
        ),
    ],
)
def test_a_failure_ends_the_call_and_its_process(
    role: str, target: int, draft: int, call: str
) -> None:
    """Even where XLA would wait for the failed device for an hour."""
    found = run_script(role, str(target), str(draft), call, flags=f"{WAIT_FLAG}=3600")
    seconds, named, said = found.stdout.splitlines()
    assert float(seconds) < SOON and named == role and found.returncode == 1
    assert said == (
        f"the {role}'s program failed: ValueError: out of luck; devices still wait for it, so "
        "start a new process"
    )


@pytest.mark.slow
def test_a_role_may_be_late() -> None:
    """XLA's own limit is 20 seconds and 40 more."""
    found = run_script("target", "1", "1", "generate", "70", flags="")
    assert found.returncode == 0 and found.stdout == "no failure\n"


@pytest.mark.parametrize("call", ["generate", "stream"])
@pytest.mark.parametrize(("role", "name"), [("target", "read_prompt"), ("draft", "prepare_draft")])
def test_so_does_one_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch, role: str, name: str, call: str
) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise ValueError("out of luck\nand of time")

    monkeypatch.setattr(one_program, name, fails)
    monkeypatch.setattr(VideoLM, "tokenizer", None)
    case = Case(Shape("parallel", 5, 1, 0.5), 0)  # a gamma that nothing is compiled for
    case.pair = placed(case.pair, PLACE())
    arguments = {**case.arguments(), "config": case.shape.config}
    with pytest.raises(RoleError) as caught:
        if call == "generate":
            hj.hippo_generate(case.pair, case.inputs, **arguments)
        else:
            list(hj.stream(case.pair, case.inputs, **arguments))
    assert str(caught.value) == f"the {role}'s program failed: ValueError: out of luck"
    assert caught.value.role == role and isinstance(caught.value.__cause__, ValueError)


def test_the_users_own_errors_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    def mistaken() -> Any:
        raise hj.HippoError("score_layers is too large")

    with pytest.raises(hj.HippoError, match="score_layers is too large") as caught:
        role_watch.watched(mistaken, PLACE())
    assert type(caught.value) is hj.HippoError


def test_elsewhere_nothing_is_waited_for_or_changed() -> None:
    def fails() -> Any:
        raise KeyError("notes")

    for placement in (hj.Placement(), PLACES["one mesh"]()):
        with pytest.raises(KeyError, match="notes"):
            role_watch.watched(fails, placement)
    with pytest.raises(RoleError, match="the target and draft's program failed: KeyError"):
        role_watch.watched(fails, PLACE())


class Part:
    """A device's part of an array: not there yet, there, or spoilt."""

    def __init__(self, looks: int, error: str | None) -> None:
        self.looks, self.error = looks, error

    def is_ready(self) -> bool:
        self.looks -= 1
        return self.looks < 0

    def block_until_ready(self) -> None:
        if self.error:
            raise jax.errors.JaxRuntimeError(self.error)


LOST = "INTERNAL: the device is lost\nand gone"


@pytest.mark.parametrize(
    ("parts", "others", "role", "said"),
    [
        ([(0, None), (3, CALLBACK)], 0, "draft", "KeyError: 3"),
        ([(9**9, None), (0, LOST)], 0, "draft", "JaxRuntimeError: INTERNAL: the device is lost"),
        ([(2, LOST), (9**9, None)], 0, "target", "JaxRuntimeError: INTERNAL: the device is lost"),
        # All devices hear of a failure, one a little later than the other; or it is no one's.
        ([(0, CALLBACK), (1, LOST)], 0, "target", "KeyError: 3"),
        ([(0, LOST), (1, LOST)], 0, "target and draft", "JaxRuntimeError: INTERNAL: the device"),
        ([(0, CALLBACK), (1, CALLBACK)], 0, "target and draft", "KeyError: 3"),
        # The draft's device is another process's: its loss is an error of the target's here.
        ([(1, LOST)], 1, "target and draft", "JaxRuntimeError: INTERNAL: the device is lost"),
        ([(1, CALLBACK)], 1, "target", "KeyError: 3"),
    ],
)
def test_whose_failure_it_was(
    monkeypatch: pytest.MonkeyPatch, parts: list, others: int, role: str, said: str
) -> None:
    left: list[Any] = []
    monkeypatch.setattr(role_watch.atexit, "register", lambda _, parts: left.extend(parts))
    shards = [SimpleNamespace(device=i, data=Part(*part)) for i, part in enumerate(parts)]
    roles = dict(enumerate(["target", "draft"][: len(parts) + others]))
    with pytest.raises(RoleError) as caught:
        role_watch.wait_for(SimpleNamespace(addressable_shards=shards), roles)
    assert caught.value.role == role
    assert str(caught.value).startswith(f"the {role}'s program failed: {said}")
    assert len(left) == [looks for looks, _ in parts].count(9**9)
    assert ("start a new process" in str(caught.value)) == bool(left)
