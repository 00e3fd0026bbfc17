"""Which role failed, in one line."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax

from hippo_jax.errors import HippoError

# Results that are remembered: those of the rounds between a failure and the host's look at it.
REMEMBERED = 16


class RoleError(HippoError):
    """One role's part of a generation failed; where it was an exception, it is ``__cause__``.

    Attributes:
        role: ``"target"`` or ``"draft"``, ``"target and draft"`` where one program does both and
            nothing tells whose part it was, or what the process was called.
    """

    def __init__(self, role: str, said: str) -> None:
        super().__init__(f"the {role}'s {said}")
        self.role = role


def reason(error: BaseException) -> str:
    """An error's own line. An error of a callback comes as the text of a whole traceback."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    frames = [index for index, line in enumerate(lines) if line.startswith("  File ")]
    if frames:  # the exception stands behind the last frame and its (indented) source
        behind = [line for line in lines[frames[-1] + 1 :] if not line.startswith(" ")]
        lines = behind or lines
    line = lines[0] if lines else ""
    named = line if frames else f"{type(error).__name__}: {line}".removesuffix(": ")
    return named.strip()[:300]


def from_callback(error: BaseException) -> bool:
    """Whether a program's error is an exception of a callback, so of the very device it is on."""
    return "Traceback (most recent call last)" in str(error)


@contextmanager
def failing(role: str) -> Iterator[None]:
    """Turn errors into a ``RoleError``; errors of the user's stay as they are."""
    try:
        yield
    except HippoError:
        raise
    except Exception as error:
        raise RoleError(role, f"program failed: {reason(error)}") from error


class Trail:
    """What the programs of two roles gave, in an order in which each depends on none behind it.

    Programs run behind the host's back, and one that fails spoils whatever is computed from its
    results, on both meshes. The host notices at some later look, at either role; the first spoilt
    result says where it began.
    """

    def __init__(self) -> None:
        self._results: deque[tuple[str, jax.Array]] = deque(maxlen=REMEMBERED)

    def note(self, role: str, result: Any) -> None:
        """Remember the first array of what a program gave. It must not be donated."""
        for leaf in jax.tree.leaves(result)[:1]:
            self._results.append((role, leaf))

    @contextmanager
    def of(self, role: str) -> Iterator[None]:
        """Turn errors into a ``RoleError`` that names the role that failed: ``role``, unless what
        was remembered says otherwise. Errors of the user's stay as they are."""
        try:
            yield
        except HippoError:
            raise
        except Exception as error:
            found, cause = self._first() or (role, error)
            raise RoleError(found, f"program failed: {reason(cause)}") from cause

    def _first(self) -> tuple[str, Exception] | None:
        for role, array in list(self._results):
            if array.is_deleted():
                continue
            try:
                array.block_until_ready()
            except Exception as error:
                return role, error
        return None
