"""Which kind of device a program is traced for: its model's, where that is known."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import jax

_PLATFORM: ContextVar[str | None] = ContextVar("platform", default=None)


def platform() -> str:
    """``"cpu"``, ``"gpu"`` or ``"tpu"``: that of ``traced_for``, else of jax's default devices."""
    return _PLATFORM.get() or jax.default_backend()


@contextmanager
def traced_for(device: jax.Device) -> Iterator[None]:
    """What is traced inside will run on devices of this kind."""
    token = _PLATFORM.set(device.platform)
    try:
        yield
    finally:
        _PLATFORM.reset(token)
