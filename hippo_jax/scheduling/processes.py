"""A process for each role: started, watched and ended together.

One program over two processes has no exception for the loss of one: who waits in a collective for
a process that has died hears of it late (CPU: when the connection breaks, else after half an hour)
or never. ``run_roles`` watches the processes from outside and ends the others when one is lost;
``joined`` is their side of it. What a process runs is up to it, as long as all run the same::

    run_roles({"target": [sys.executable, "answer.py"], "draft": [sys.executable, "answer.py"]})

    with joined():  # answer.py, before anything else of jax
        first, second = (
            [device for device in jax.devices() if device.process_index == i] for i in (0, 1)
        )
        pair = hj.load_pair("demo", placement=hj.Placement.on(first, second, one_program=True))
        answer = hj.hippo_generate(pair, hj.prepare_inputs(pair, clip, prompt))
"""

from __future__ import annotations

import os
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import IO

import jax

from hippo_jax.errors import HippoError
from hippo_jax.placement.patience import be_patient, patient
from hippo_jax.scheduling.faults import RoleError, reason

ROLE, ADDRESS, COUNT, INDEX = "HIPPO_ROLE", "HIPPO_COORDINATOR", "HIPPO_PROCESSES", "HIPPO_PROCESS"
LIFELINE = "HIPPO_LIFELINE"  # a pipe that breaks when the parent is gone

# Between processes a CPU collective raises after half an hour
# (--xla_cpu_collective_timeout_seconds); inside one process see ``patience``.
HEARTBEAT = 50  # seconds of silence after which a process of another host is taken for lost
FAREWELL = 1.0  # seconds from a failure to the end of its process
TAIL = 1 << 16  # bytes of what a process wrote last


class _Process:
    """One role's process. What it writes goes to files: nobody needs to read along."""

    def __init__(
        self,
        role: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        lifeline: int,
        files: tuple[IO[bytes], IO[bytes]],
    ) -> None:
        self.role = role
        self.out, self.err = files
        try:
            self.running = subprocess.Popen(
                list(command),
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=self.out,
                stderr=self.err,
                pass_fds=(lifeline,),
                start_new_session=True,  # Ctrl-C is the parent's; and its own children end with it
            )
        except OSError as error:
            raise RoleError(role, f"process did not start: {reason(error)}") from error

    def end(self) -> None:
        """Kill it, if it still runs, and its children. A milder signal may go unheard: Python
        handles none while it waits in a collective."""
        if self.running.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self.running.pid, signal.SIGKILL)
        self.running.wait()

    def finished(self) -> subprocess.CompletedProcess[str]:
        """What is left of it."""
        texts = []
        for file in (self.out, self.err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
        return subprocess.CompletedProcess(self.running.args, self.running.returncode, *texts)

    def failure(self) -> RoleError:
        """How it ended, and its last words."""
        status = self.running.returncode
        how = f"ended with status {status}" if status > 0 else f"was killed by {_signal(-status)}"
        size = self.err.seek(0, os.SEEK_END)
        self.err.seek(max(0, size - TAIL))
        last = _last_line(self.err.read().decode(errors="replace"))
        return RoleError(self.role, f"process {how}" + (f": {last}" if last else ""))


def run_roles(
    commands: Mapping[str, Sequence[str]], *, timeout: float | None = None
) -> dict[str, subprocess.CompletedProcess[str]]:
    """Run a process for each role on this machine, until all have ended.

    Their environment is this process's, and tells ``joined`` where they meet. XLA's limit on how
    long a CPU collective may wait for a device of the same process is raised to an hour, unless
    ``XLA_FLAGS`` sets it.

    Args:
        commands: program and arguments of each role's process, by its name.
        timeout: seconds after which all of them are ended.

    Returns:
        What each one wrote.

    Raises:
        RoleError: a process did not start, was killed or ended with another status than 0. The
            others are ended first. ``KeyboardInterrupt`` ends all of them too.
        HippoError: the time is up.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    address = f"127.0.0.1:{_free_port()}"
    ended: queue.Queue[_Process] = queue.Queue()
    with ExitStack() as stack:
        lifeline, ours = os.pipe()
        stack.callback(os.close, ours)
        stack.callback(os.close, lifeline)
        processes: dict[str, _Process] = {}
        for index, (role, command) in enumerate(commands.items()):
            environment = {
                **os.environ,
                "XLA_FLAGS": patient(os.environ.get("XLA_FLAGS", "")),
                ROLE: role,
                ADDRESS: address,
                COUNT: str(len(commands)),
                INDEX: str(index),
                LIFELINE: str(lifeline),
            }
            out, err = (stack.enter_context(tempfile.TemporaryFile()) for _ in range(2))
            processes[role] = _Process(role, command, environment, lifeline, (out, err))
            stack.callback(processes[role].end)
        for process in processes.values():
            threading.Thread(target=_watch, args=(process, ended), daemon=True).start()
        running = set(processes)
        while running:
            try:
                process = ended.get(timeout=_time_left(deadline))
            except queue.Empty:
                if deadline is not None and time.monotonic() >= deadline:
                    names = " and ".join(sorted(running))
                    message = f"the processes of {names} did not end within {timeout:g} s"
                    raise HippoError(message) from None
                continue
            running.discard(process.role)
            if process.running.returncode:
                raise _first_of(process, ended).failure()
        return {role: process.finished() for role, process in processes.items()}


def _watch(process: _Process, ended: queue.Queue[_Process]) -> None:
    process.running.wait()
    ended.put(process)


def _first_of(process: _Process, ended: queue.Queue[_Process]) -> _Process:
    """Of processes that failed at almost the same time, the one that failed first."""
    failed = [process]
    while not ended.empty():
        other = ended.get()
        if other.running.returncode:
            failed.append(other)
    # jax aborts a process when it has lost the one that coordinates.
    return min(failed, key=lambda p: p.running.returncode == -signal.SIGABRT)


def _time_left(deadline: float | None) -> float:
    """Seconds to wait; short ones, so that Ctrl-C gets through everywhere."""
    return 0.5 if deadline is None else min(0.5, max(0.0, deadline - time.monotonic()))


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _last_line(text: str) -> str:
    """The last line that says something: native stack traces stand behind it."""
    lines = [line.strip() for line in text.splitlines()]
    said = [line for line in lines if line and not line.startswith(("@ ", "*** "))]
    return said[-1][:300] if said else ""


@contextmanager
def joined() -> Iterator[str]:
    """Make this process one of several that run the same program; gives the name of its role.

    For processes that ``run_roles`` started; on several hosts start them with these environment
    variables: ``HIPPO_COORDINATOR`` (``host:port`` of the first process), ``HIPPO_PROCESSES`` (how
    many), ``HIPPO_PROCESS`` (which one, from 0), ``HIPPO_ROLE`` (its name). Enter it before jax
    computes anything. It raises XLA's limit on waiting for late CPU devices as ``run_roles`` does.

    An exception inside ends the process at once, with status 1 and the exception's own line as the
    last of its standard error: jax would wait for the others to end too, which wait for this one.

    Raises:
        HippoError: variables are missing, or no numbers.
    """
    missing = [name for name in (ROLE, ADDRESS, COUNT, INDEX) if name not in os.environ]
    if missing:
        raise HippoError(f"{', '.join(missing)} not set; start this process with run_roles")
    role, count, index = os.environ[ROLE], _number(COUNT), _number(INDEX)
    if not 0 <= index < count:
        raise HippoError(f"{INDEX} is {index}; of {count} processes ({COUNT}) the first one is 0")
    if LIFELINE in os.environ:
        _follow_parent(int(os.environ[LIFELINE]))
    be_patient()
    try:
        # jax would keep SIGTERM to itself, as a hint to store checkpoints.
        jax.config.update("jax_enable_preemption_service", False)
        jax.distributed.initialize(
            os.environ[ADDRESS], count, index, heartbeat_timeout_seconds=HEARTBEAT
        )
        yield role
    except BaseException as error:
        if isinstance(error, SystemExit) and not error.code:
            raise
        traceback.print_exc()
        print(reason(error), file=sys.stderr, flush=True)
        sys.stdout.flush()
        # The others fail as soon as this process is gone. The parent is to see who was first.
        time.sleep(FAREWELL)
        os._exit(1)


def _number(name: str) -> int:
    try:
        return int(os.environ[name])
    except ValueError:
        raise HippoError(f"{name} must be a whole number, not {os.environ[name]!r}") from None


def _follow_parent(lifeline: int) -> None:
    """End this process when its parent is gone, whatever it waits for."""

    def follow() -> None:
        os.read(lifeline, 1)
        os._exit(1)

    threading.Thread(target=follow, name="hippo lifeline", daemon=True).start()
