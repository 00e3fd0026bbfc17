"""One program over two processes: the answer of one device, and what happens if one is lost."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.deadline import at_most, interruptible
from support.two_processes import LATE

import hippo_jax as hj
from hippo_jax.placement.patience import WAIT_FLAG
from hippo_jax.scheduling import processes
from hippo_jax.scheduling.faults import RoleError
from hippo_jax.scheduling.processes import joined, run_roles

TESTS = Path(__file__).parents[1]
LIMIT = 300  # seconds until a test gives up: its processes compile, perhaps beside other tests
SLEEP = f"import time; time.sleep({LIMIT})"
SOON = 20  # seconds from a loss to the error, of 60 that it may take


@pytest.fixture(autouse=True)
def childrens_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, found)))
    # Half the time to compile. The devices are few, too: not those that other tests ask for.
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=0")


def workers(task: str, word: Path, target: int = 1, draft: int = 1) -> dict[str, list[str]]:
    """Processes with so many devices that run ``support.two_processes``."""
    script = str(TESTS / "support" / "two_processes.py")
    return {
        role: ["env", f"JAX_NUM_CPU_DEVICES={count}", sys.executable, script, task, str(word)]
        for role, count in {"target": target, "draft": draft}.items()
    }


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def leave_pid(path: Path) -> str:
    """Python that writes its process id, all of it at once."""
    own = str(path)
    return (
        f"import os; open({own + '~'!r}, 'w').write(str(os.getpid())); "
        f"os.rename({own + '~'!r}, {own!r}); "
    )


def soon_after(event: Path, act: Callable[[], None]) -> list[float]:
    """Do something once a file is there; when that was stands in the list then."""
    times: list[float] = []

    def wait() -> None:
        while not event.exists():
            time.sleep(0.05)
        time.sleep(0.5)
        times.append(time.monotonic())
        act()

    threading.Thread(target=wait, daemon=True).start()
    return times


def wait_until_gone(pid: int) -> None:
    """Fails if the process lives on. (A zombie is gone: it waits for its parent to look.)"""
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return
        if state == "Z":
            return
        time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)
    raise AssertionError(f"process {pid} is still there")


# One program -----------------------------------------------------------------------------------


def check_answers(word: Path, devices: tuple[int, int], task: str = "answer") -> None:
    """Both processes know the answers that one device gives."""
    with at_most(LIMIT):
        run_roles(workers(task, word, *devices), timeout=LIMIT)
    target, draft = (json.loads((word / role).read_text()) for role in ("target", "draft"))
    assert target["devices"] == list(devices)
    assert target.pop("alone") == target["greedy"]
    assert draft.pop("alone", None) == draft.get("sampled")
    assert target == draft


def test_two_processes_give_the_answer_of_one_device(tmp_path: Path) -> None:
    """Two devices share the target in the first process, the draft has one in the second."""
    check_answers(tmp_path, (2, 1), "greedy answer")


@pytest.mark.slow
@pytest.mark.parametrize("devices", [(1, 1), (2, 1), (2, 2), (1, 2)])
def test_so_do_other_numbers_of_devices(tmp_path: Path, devices: tuple[int, int]) -> None:
    check_answers(tmp_path, devices)


@pytest.mark.slow
def test_a_slow_role_is_waited_for(tmp_path: Path) -> None:
    """Processes connect within 30 s or not at all; that is not left to the first exchange."""
    assert LATE > 30
    with at_most(LIMIT):
        run_roles(workers("late", tmp_path), timeout=LIMIT)
    assert (tmp_path / "target").read_text() == (tmp_path / "draft").read_text()


@pytest.mark.parametrize("role", ["target", pytest.param("draft", marks=pytest.mark.slow)])
def test_a_killed_process_ends_the_call(tmp_path: Path, role: str) -> None:
    commands = workers("go on", tmp_path)
    pids = {}
    for name, command in commands.items():
        pids[name] = tmp_path / f"{name}.pid"
        commands[name] = ["/bin/sh", "-c", f'echo $$ > {pids[name]}; exec "$@"', "sh", *command]
    other = {"target": "draft", "draft": "target"}[role]

    def kill() -> None:
        os.kill(int(pids[role].read_text()), signal.SIGKILL)

    killed = soon_after(tmp_path / role, kill)
    with at_most(LIMIT), pytest.raises(RoleError) as caught:
        run_roles(commands, timeout=LIMIT)
    assert time.monotonic() - killed[0] < SOON
    assert str(caught.value).startswith(f"the {role}'s process was killed by SIGKILL")
    assert caught.value.role == role
    wait_until_gone(int(pids[other].read_text()))


def test_a_process_that_raises_ends_the_call(tmp_path: Path) -> None:
    begin = time.monotonic()
    with at_most(LIMIT), pytest.raises(RoleError) as caught:
        run_roles(workers("raise", tmp_path), timeout=LIMIT)
    said = "the draft's process ended with status 1: ValueError: the draft has lost its notes"
    assert str(caught.value) == said
    assert time.monotonic() - begin < 60


def test_processes_do_not_outlive_their_parent(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    child = (
        "from hippo_jax.scheduling.processes import joined\n"
        f"with joined(): {leave_pid(pid)}{SLEEP}\n"
    )
    parent = (
        "from hippo_jax.scheduling.processes import run_roles\n"
        f"run_roles({{'target': {python(child)!r}}})\n"
    )
    with at_most(LIMIT), subprocess.Popen(python(parent)) as running:
        while not pid.exists():
            assert running.poll() is None
            time.sleep(0.05)
        running.kill()
    wait_until_gone(int(pid.read_text()))


# Processes of any kind ---------------------------------------------------------------------------


def test_what_processes_are_told_and_what_they_wrote(monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import os, sys; print(*(os.environ['HIPPO_' + name] for name in "
        "('ROLE', 'PROCESSES', 'PROCESS'))); print(os.environ['XLA_FLAGS'], file=sys.stderr)"
    )
    flags = "--xla_backend_optimization_level=0"
    found = run_roles({"target": python(code), "draft": python(code)}, timeout=LIMIT)
    assert [process.stdout for process in found.values()] == ["target 2 0\n", "draft 2 1\n"]
    assert {process.stderr for process in found.values()} == {f"{flags} {WAIT_FLAG}=3600\n"}
    monkeypatch.setenv("XLA_FLAGS", f"{WAIT_FLAG}=7")
    assert run_roles({"draft": python(code)})["draft"].stderr == f"{WAIT_FLAG}=7\n"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import sys; sys.exit(3)", "ended with status 3"),
        ("raise KeyError('notes')", "ended with status 1: KeyError: 'notes'"),
        ("import os; os.abort()", "was killed by SIGABRT"),
        (
            "import os, sys; print('F1 rendezvous.cc:161] too late\\n*** Check failure ***\\n"
            "    @ 0x7f xla::Wait()\\n\\n', file=sys.stderr, flush=True); os.kill(os.getpid(), 11)",
            "was killed by SIGSEGV: F1 rendezvous.cc:161] too late",
        ),
    ],
)
def test_how_a_process_ended(tmp_path: Path, code: str, said: str) -> None:
    pid = tmp_path / "pid"
    wait = f"import os, time\nwhile not os.path.exists({str(pid)!r}): time.sleep(0.01)\n"
    with at_most(LIMIT), pytest.raises(RoleError) as caught:
        run_roles({"target": python(wait + code), "draft": python(leave_pid(pid) + SLEEP)})
    assert str(caught.value) == f"the target's process {said}"
    assert caught.value.role == "target"
    wait_until_gone(int(pid.read_text()))


def test_a_process_that_does_not_start() -> None:
    with at_most(LIMIT), pytest.raises(RoleError, match="the draft's process did not start") as e:
        run_roles({"target": python(SLEEP), "draft": ["no such program"]})
    assert "\n" not in str(e.value)


def test_processes_that_take_too_long() -> None:
    commands = {"target": python("pass"), "draft": python(SLEEP)}
    with at_most(LIMIT), pytest.raises(hj.HippoError, match="of draft did not end within"):
        run_roles(commands, timeout=1.5)


def test_ctrl_c_ends_all_processes(tmp_path: Path) -> None:
    pids = {name: tmp_path / name for name in ("target", "draft")}
    commands = {name: python(leave_pid(path) + SLEEP) for name, path in pids.items()}
    main = threading.main_thread().ident
    assert main is not None

    def interrupt() -> None:
        while not pids["draft"].exists():
            time.sleep(0.05)
        signal.pthread_kill(main, signal.SIGINT)

    soon_after(pids["target"], interrupt)
    with interruptible(), at_most(LIMIT), pytest.raises(KeyboardInterrupt):
        run_roles(commands)
    for path in pids.values():
        wait_until_gone(int(path.read_text()))


def test_who_was_first() -> None:
    """jax aborts a process that has lost the first one; of two at a time, that was the other."""
    killed, aborted, well = (
        SimpleNamespace(running=SimpleNamespace(returncode=code)) for code in (-9, -6, 0)
    )
    for first, second in ((killed, aborted), (aborted, killed)):
        ended: queue.Queue = queue.Queue()
        for other in (well, second):
            ended.put(other)
        assert processes._first_of(first, ended) is killed
    assert processes._first_of(aborted, queue.Queue()) is aborted


def test_joined_needs_run_roles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIPPO_ROLE", "target")
    with pytest.raises(hj.HippoError, match="HIPPO_PROCESS not set; start this") as e, joined():
        pass
    assert "HIPPO_ROLE" not in str(e.value)


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("HIPPO_PROCESSES", "two", "HIPPO_PROCESSES must be a whole number, not 'two'"),
        ("HIPPO_PROCESS", "", "HIPPO_PROCESS must be a whole number, not ''"),
        ("HIPPO_PROCESS", "2", "HIPPO_PROCESS is 2; of 2 processes"),
    ],
)
def test_joined_says_what_is_no_number(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, said: str
) -> None:
    own = {"ROLE": "target", "COORDINATOR": "127.0.0.1:1", "PROCESSES": "2", "PROCESS": "0"}
    for name, text in own.items():
        monkeypatch.setenv(f"HIPPO_{name}", text)
    monkeypatch.setenv(variable, value)
    with pytest.raises(hj.HippoError) as caught, joined():
        pass
    assert str(caught.value).startswith(said) and "\n" not in str(caught.value)


def test_joined_by_hand_waits_as_long(monkeypatch: pytest.MonkeyPatch) -> None:
    own = {"ROLE": "target", "COORDINATOR": "127.0.0.1:1", "PROCESSES": "1", "PROCESS": "0"}
    for name, text in own.items():
        monkeypatch.setenv(f"HIPPO_{name}", text)
    flags = os.environ["XLA_FLAGS"]
    seen = []
    monkeypatch.setattr(
        processes.jax.distributed,
        "initialize",
        lambda *_, **__: seen.append(os.environ["XLA_FLAGS"]),
    )
    with joined():
        pass
    monkeypatch.setenv("XLA_FLAGS", f"{WAIT_FLAG}=7")
    with joined():
        pass
    assert seen == [f"{flags} {WAIT_FLAG}=3600", f"{WAIT_FLAG}=7"]
