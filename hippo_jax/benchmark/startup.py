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

IMPORTS = 5


def measure_startup() -> dict[str, Any]:
    """Wall seconds of the embedded command with an empty compilation cache, then with a full one,
    and of ``import hippo_jax`` (``"import_s"``, the fastest of several new processes).

    Imports, loading, decoding the clip and printing are all inside of the first two.
    """
    with tempfile.TemporaryDirectory() as cache:
        found: dict[str, Any] = {name: _once(cache) for name in ("cold", "warm")}
    return {**found, "import_s": min(_import() for _ in range(IMPORTS))}


def _import() -> float:
    code = "import time; t = time.perf_counter(); import hippo_jax; print(time.perf_counter() - t)"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(child.stdout)


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
