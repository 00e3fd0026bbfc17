"""Settings every test shares. They must be in place before jax is first imported."""

import os

# The tests are about numbers, not devices: on CPU unless the caller asks for something else.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Eight CPU devices, so that sharded and two-mesh code runs for real wherever the tests run.
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = (
        os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    ).strip()
# Nothing may reach out to the hub; every test brings its own small model.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
