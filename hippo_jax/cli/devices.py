"""``--devices N [M]``: over how many devices the models of a command are spread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hippo_jax.errors import HippoError

Counts = tuple[int, ...]
"""One number: devices that all models share. Two: the target's and the draft's own."""


def add_devices(parser: Any, apart: str) -> None:
    """Declare the option.

    Args:
        apart: how devices of their own are used, for the help.
    """
    parser.add_argument(
        "--devices",
        nargs="+",
        metavar=("N", "M"),
        help="N: split the models over N devices, draft and target by turns. N M: the target over N"
        f" devices and the draft over M others, at the same time, {apart} (default: one device)",
    )


def device_counts(words: Sequence[str] | None) -> Counts | None:
    """What ``--devices`` says, ``None`` for one device. ``hippo plan`` writes ``3+1``, so that is
    read too.

    Raises:
        HippoError: neither one number nor two.
    """
    if words is None:
        return None
    counts = [int(part) if part.isdecimal() else 0 for word in words for part in word.split("+")]
    if len(counts) > 2 or not all(counts):
        raise HippoError(
            f"--devices {' '.join(words)}: give one number from 1 on, or two, the target's and the "
            "draft's; other words come before --devices"
        )
    return None if counts == [1] else tuple(counts)


def ask_for_devices(counts: Counts | None) -> None:
    """Let the host be as many CPU devices, where jax works on the CPU. Call it before anything
    else of jax."""
    if counts is not None:
        from hippo_jax.benchmark.cpu_devices import ask_for_cpu_devices

        ask_for_cpu_devices(sum(counts))


def place(counts: Counts | None, *, one_program: bool) -> Any:
    """The ``Placement`` on the first devices of this process.

    Args:
        one_program: whether models on devices of their own are one program, as for ``Placement``.

    Raises:
        HippoError: there are not as many devices.
    """
    from hippo_jax.placement.placement import Placement

    if counts is None:
        return Placement()
    import jax
    import numpy as np

    from hippo_jax.architectures.sharding import TENSOR_AXIS
    from hippo_jax.benchmark.cpu_devices import FLAG

    devices, wanted = jax.local_devices(), sum(counts)
    if wanted > len(devices):
        platform = devices[0].platform
        cure = "use fewer"
        if platform == "cpu":
            cure = f"set XLA_FLAGS=--{FLAG}={wanted} in the environment"
        raise HippoError(
            f"--devices {' '.join(map(str, counts))} needs {wanted} devices and here are "
            f"{len(devices)} ({platform}); {cure}"
        )
    if len(counts) == 2:
        own, others = devices[: counts[0]], devices[counts[0] : wanted]
        return Placement.on(own, others, one_program=one_program)
    mesh = jax.sharding.Mesh(np.array(devices[:wanted]), (TENSOR_AXIS,))
    return Placement(target=mesh, draft=mesh)
