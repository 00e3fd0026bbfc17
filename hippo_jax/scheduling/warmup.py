"""``warmup``: compile before the first request comes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from hippo_jax.errors import HippoError
from hippo_jax.inputs.prepare import prepare_inputs
from hippo_jax.inputs.video import Video
from hippo_jax.scheduling.hippo import hippo_generate

Size = tuple[int, int, int]


def warmup(
    pair: Any,
    sizes: Size | Iterable[Size],
    prompt: Any = "Describe the video.",
    *,
    fps: float = 2.0,
    batch: int = 1,
    **arguments: Any,
) -> None:
    """Compile what ``hippo_generate(pair, ...)`` needs for videos of the given sizes.

    Sizes of prompts come in buckets, so one size serves every video and text of its class: as many
    frames of that height and width, and a prompt about as long.

    Args:
        sizes: ``(frames, height, width)`` in pixels, or several of them.
        prompt: a text about as long as yours will be.
        fps: rate of the frames.
        batch: rows of a call.
        arguments: as for ``hippo_generate``: ``capacity`` (or ``max_new_tokens``), ``sampling``
            with ``key``, ``eos_token_ids``, ``config``. They are part of what is compiled, but for
            the key, and for ``max_new_tokens`` within one capacity.

    Raises:
        HippoError: sizes or arguments that do not fit.
    """
    for size in [sizes] if _is_size(sizes) or not isinstance(sizes, Iterable) else sizes:
        if not _is_size(size):
            raise HippoError(f"sizes are (frames, height, width), got {size!r}")
        assert isinstance(size, tuple)
        video = Video(np.zeros((*size, 3), np.uint8), fps=fps)
        inputs = prepare_inputs(pair, [video] * batch, [prompt] * batch)
        jax.block_until_ready(hippo_generate(pair, inputs, **arguments))


def _is_size(value: Any) -> bool:
    return (
        isinstance(value, tuple)
        and len(value) == 3
        and all(isinstance(n, int) and n > 0 for n in value)
    )
