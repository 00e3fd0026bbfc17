"""How long the CPU devices of one process wait for each other.

By default XLA aborts the process when a device comes to a collective more than 60 seconds after the
first one. In one program with two roles the draft waits that long for the target's prefill.
"""

import os

WAIT_FLAG, WAIT_SECONDS = "--xla_cpu_collective_call_terminate_timeout_seconds", 3600


def patient(flags: str) -> str:
    """XLA's flags with an hour's wait for late devices, unless they say how long."""
    return flags if WAIT_FLAG in flags else f"{flags} {WAIT_FLAG}={WAIT_SECONDS}".strip()


def be_patient() -> None:
    """Let this process's devices wait for each other for an hour, unless ``XLA_FLAGS`` says how
    long. Too late, and of no use, once jax has looked for its devices."""
    os.environ["XLA_FLAGS"] = patient(os.environ.get("XLA_FLAGS", ""))
