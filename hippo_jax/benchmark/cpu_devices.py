"""Several CPU devices on one host, for programs over more than one device."""

from __future__ import annotations

import contextlib
import os

import jax

from hippo_jax.errors import HippoError
from hippo_jax.placement.patience import be_patient

FLAG = "xla_force_host_platform_device_count"


def ask_for_cpu_devices(count: int) -> None:
    """Let the host be ``count`` CPU devices, with time to wait for each other, unless ``XLA_FLAGS``
    says how many and how long or jax has looked for its devices already."""
    if count > 1:
        be_patient()
    if count > 1 and FLAG not in os.environ.get("XLA_FLAGS", ""):
        with contextlib.suppress(RuntimeError):  # too late
            jax.config.update("jax_num_cpu_devices", count)


def cpu_devices(count: int) -> list[jax.Device]:
    """The first CPU devices.

    Raises:
        HippoError: there are fewer, or jax works with devices of another kind.
    """
    ask_for_cpu_devices(count)
    found = jax.devices()
    if found[0].platform != "cpu":
        raise HippoError("this runs on CPU devices; set JAX_PLATFORMS=cpu in the environment")
    if len(found) < count:
        raise HippoError(
            f"{count} CPU devices are needed and there is {len(found)}; set "
            f"XLA_FLAGS=--{FLAG}={count} in the environment"
        )
    return found[:count]
