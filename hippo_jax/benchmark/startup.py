"""How long a newcomer waits: ``hippo generate`` in a new process, cold and warm."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from typing import Any

from hippo_jax.errors import HippoError


def measure_startup() -> dict[str, Any]:
    """Wall seconds of the embedded command with an empty compilation cache, then with a full one.

    Imports, loading, decoding the clip and printing are all inside.
    """
    with tempfile.TemporaryDirectory() as cache:
        return {name: _once(cache) for name in ("cold", "warm")}


def _once(cache: str) -> dict[str, Any]:
    begin = time.perf_counter()
    child = subprocess.run(
        [sys.executable, "-m", "hippo_jax.cli.main", "generate", "--json"],
        env={**os.environ, "JAX_COMPILATION_CACHE_DIR": cache},
        capture_output=True,
        text=True,
    )
    wall = time.perf_counter() - begin
    if child.returncode:
        raise HippoError(f"hippo generate failed: {child.stderr.strip()[-500:]}")
    return {"wall_s": wall, "seconds": json.loads(child.stdout)["seconds"]}
