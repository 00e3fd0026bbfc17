"""hippo_jax: speculative decoding for video language models, in JAX.

``import hippo_jax as hj`` costs next to nothing: a name is imported from its module when it is
first touched, so nothing of jax, flax or transformers is loaded before it is needed.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from hippo_jax.errors import HippoError

# Public name -> module that defines it. Keep in step with the imports above.
_HOME = {
    "HippoError": "hippo_jax.errors",
}

__all__ = ["HippoError", "__version__"]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value  # the next look-up does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
