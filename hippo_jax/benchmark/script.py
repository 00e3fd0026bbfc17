"""Texts that models are made to say: with random weights the acceptance of a draft is replayed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Script:
    """What target and draft say, whatever their weights compute.

    Entry p is the token that the model says behind an input token at rotary (temporal) position p.
    A draft's token is accepted where both agree: ``draft[p] == target[p]``.

    Attributes:
        target: int32 ``[P]``.
        draft: int32 ``[P]``.
    """

    target: np.ndarray
    draft: np.ndarray
