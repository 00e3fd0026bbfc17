"""Settings every test shares. They must be in place before jax is first imported."""

import gc
import os
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

# The tests are about numbers, not devices: on CPU unless the caller asks for something else.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Eight CPU devices, so that sharded and two-mesh code runs for real wherever the tests run. Most of
# the ordinary tests' time is compilation: without optimisation it takes two thirds of it, and
# without the newer emitters half of that. The slow ones run long enough to want optimised programs.
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    flags = [os.environ.get("XLA_FLAGS", ""), "--xla_force_host_platform_device_count=8"]
    if not any("slow" in argument for argument in sys.argv):
        flags.append("--xla_backend_optimization_level=0")
        if version("jaxlib").startswith("0.10."):  # an unknown flag ends the process
            flags += ["--xla_cpu_use_fusion_emitters=false"]
            flags += ["--xla_cpu_parallel_codegen_split_count=1"]
    os.environ["XLA_FLAGS"] = " ".join(flags).strip()
# Nothing may reach out to the hub; every test brings its own small model.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# A compiled program takes some dozens of memory mappings, of which Linux gives a process 65,530 by
# default; the compiler aborts where there are none left. The slow suite compiles thousands.
MAPPINGS = 30_000


@pytest.fixture(autouse=True)
def _room_for_programs(request: pytest.FixtureRequest) -> Iterator[None]:
    """Forget compiled programs behind a slow test that left too many."""
    yield
    maps = Path("/proc/self/maps")
    if request.node.get_closest_marker("slow") is None or not maps.exists():
        return
    if maps.read_bytes().count(b"\n") > MAPPINGS:
        import jax

        jax.clear_caches()
        gc.collect()
