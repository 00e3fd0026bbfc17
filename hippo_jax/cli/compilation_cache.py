"""The persistent compilation cache of the command line.

Only the command line turns it on; as a library hippo_jax leaves jax's settings alone.
"""

import os
from pathlib import Path


def compilation_cache_directory() -> Path:
    """``JAX_COMPILATION_CACHE_DIR`` if set, else ``hippo_jax/xla`` in the user's cache folder."""
    chosen = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if chosen:
        return Path(chosen)
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches) / "hippo_jax" / "xla"


def enable_compilation_cache() -> None:
    """Keep compiled programs between runs of the command. Call it before the first compilation."""
    import jax

    jax.config.update("jax_compilation_cache_dir", str(compilation_cache_directory()))
    # Small programs count too: a newcomer waits for their sum.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
