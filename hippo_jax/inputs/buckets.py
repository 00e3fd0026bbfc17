"""Rounding of sizes, so that few shapes are ever compiled."""

from __future__ import annotations


def bucket(size: int, minimum: int = 16) -> int:
    """The smallest bucket that holds ``size``: sixteen steps between powers of two.

    At most one sixteenth of a bucket is padding (above ``minimum``).
    """
    if size <= minimum:
        return minimum
    step = max(1, 2 ** ((size - 1).bit_length() - 5))
    return -(-size // step) * step
