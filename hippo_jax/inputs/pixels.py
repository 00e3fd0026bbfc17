"""Pixels of all videos and images of a batch in one array."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hippo_jax.errors import HippoError
from hippo_jax.inputs.model_inputs import Media


def stack_pixels(media: Sequence[Media], rows: int, patch_dim: int) -> np.ndarray:
    """Patches of all media behind each other, padded with zeros: float32 ``[rows, patch_dim]``.

    Raises:
        HippoError: patches of another size, or pixels that are not finite.
    """
    for item in media:
        if item.pixels.shape[1:] != (patch_dim,):
            raise HippoError(
                f"a {item.kind} has patches of shape {item.pixels.shape[1:]}, the vision tower "
                f"takes {patch_dim} numbers; processor and model do not belong together"
            )
        if not np.isfinite(item.pixels).all():
            raise HippoError(f"a {item.kind} has pixels that are not finite; check its source")
    pixels = np.zeros((rows, patch_dim), np.float32)
    given = np.concatenate([item.pixels for item in media])
    pixels[: len(given)] = given
    return pixels
