"""One program with two roles: which of them failed, though the other still waits for it.

A device that fails leaves the program; the others wait in the next exchange, until XLA gives up and
aborts the process (CPU) or for ever. Who waits for all devices never hears of the failure. The
device that failed is done, though, and says why.
"""

from __future__ import annotations

import atexit
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import jax

from hippo_jax.placement.placement import Placement
from hippo_jax.scheduling.faults import RoleError, failing, from_callback, reason

T = TypeVar("T")

BOTH = "target and draft"
FIRST_LOOK, LATER_LOOKS = 1e-4, 1e-3  # seconds between looks at the devices, at first and at most
GRACE = 0.1  # seconds in which a failure of the whole program reaches all devices


def watched(program: Callable[[], T], placement: Placement) -> T:
    """What ``program()`` gives. Where the pair is one program with a role for each device, its
    results are computed on return, and errors name their role; elsewhere nothing is changed.

    Raises:
        RoleError: the program failed. Its role is both's where nothing tells whose part it was:
            what was no callback's and struck all devices of this process.
    """
    if not (placement.disjoint and placement.one_program):
        return program()
    assert placement.target is not None and placement.draft is not None
    meshes = {"target": placement.target, "draft": placement.draft}
    roles = {device: role for role, mesh in meshes.items() for device in mesh.devices.flat}
    with failing(BOTH):
        result = program()
    wait_for(jax.tree.leaves(result)[0], roles)
    return result


def wait_for(array: jax.Array, roles: Mapping[jax.Device, str]) -> None:
    """Wait until every device of this process has its part of ``array``.

    Args:
        array: of a program over the devices of both roles.
        roles: the role of each device, those of other processes among them.

    Raises:
        RoleError: a device failed. Others may wait for it for ever: the process then ends with
            status 1 when it would else wait for them.
    """
    waiting: dict[jax.Device, Any] = {
        shard.device: shard.data for shard in array.addressable_shards
    }
    here = {roles[device] for device in waiting}
    pause = FIRST_LOOK
    while waiting:
        failed = _take_failed(waiting)
        if failed:
            time.sleep(GRACE)
            failed |= _take_failed(waiting)
            atexit.register(_leave, list(waiting.values()))
            raise _blame(failed, roles, alone=len(here) == 1, left=bool(waiting))
        time.sleep(pause)
        pause = min(2 * pause, LATER_LOOKS)


def _take_failed(waiting: dict[jax.Device, Any]) -> dict[jax.Device, Exception]:
    """Take out of ``waiting`` who is done; what those of them say that failed."""
    failed = {}
    for device in [device for device, part in waiting.items() if part.is_ready()]:
        try:
            waiting.pop(device).block_until_ready()
        except Exception as error:
            failed[device] = error
    return failed


def _blame(
    failed: Mapping[jax.Device, Exception],
    roles: Mapping[jax.Device, str],
    *,
    alone: bool,
    left: bool,
) -> RoleError:
    """``alone``: the other role is another process's, and its end is an error here too."""
    own = {device: error for device, error in failed.items() if from_callback(error)}
    guilty = {roles[device] for device in own or failed}
    told = len(guilty) == 1 and bool(own or not alone)
    cause = next(iter((own or failed).values()))
    said = f"program failed: {reason(cause)}"
    if left:
        said += "; devices still wait for it, so start a new process"
    error = RoleError(guilty.pop() if told else BOTH, said)
    error.__cause__ = cause
    return error


def _leave(parts: Iterable[Any]) -> None:
    """At the end of the process, which else waits for devices that wait for a failed one."""
    if all(part.is_ready() for part in parts):
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
