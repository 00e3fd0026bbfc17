"""What the scripts that make goldens share: torchvision, and which frames a processor samples."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np


def find_torchvision(description: str) -> list[object]:
    """Reads ``--torchvision FOLDER`` and declares the operators; keep what is returned."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--torchvision", help="folder that torchvision was installed into")
    folder = parser.parse_args().torchvision
    if folder:
        sys.path.insert(0, folder)
    return _declare_operators()


def _declare_operators() -> list[object]:
    """Declares torchvision's compiled operators as names without code."""
    import torch

    spec = find_spec("torchvision")
    if spec is None or spec.origin is None:
        raise SystemExit("torchvision is not installed; see the head of make_goldens.py")
    source = (Path(spec.origin).parent / "_meta_registrations.py").read_text()
    names = re.findall(r'register_(?:meta|fake)\("(?:torchvision::)?(\w+)"\)', source)
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in sorted({*names, "nms", "roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool"}):
        library.define(f"{name}(Tensor x) -> Tensor")
    return [library]


def sampled_frames(
    sample: Callable[..., Any],
    number: int,
    *,
    least: int = 1,
    least_count: int = 1,
    most_count: int = 199,
    beyond: int = 3,
    lengths: tuple[int, ...] = (30, 300, 3000, 200_000),
    most_frames: int = 150,
    default_rate: float = 0.0,
    refused: tuple[type[Exception], ...] = (),
) -> tuple[np.ndarray, np.ndarray]:
    """Frame indices of a processor for many lengths, rates and counts.

    Args:
        sample: ``(VideoMetadata, fps= or num_frames=) -> indices``, a processor's
            ``sample_frames``.
        number: of draws.
        least: frames of the shortest video.
        least_count, most_count: bounds of the number of frames asked for.
        beyond: by how many frames a count may exceed the video.
        lengths: videos are shorter than these, by turns.
        most_frames: videos sampled at a rate are cut to about this many sampled frames.
        default_rate: the rate of a processor that may be given neither; such draws are made then.
        refused: exceptions of draws that the processor refuses; they have no indices.

    Returns:
        float64 ``[number, 5]``, rows of (frames, source rate, rate or 0, count or 0, how many
        indices), and the indices of all rows, int32, one row behind the other.
    """
    from transformers.video_utils import VideoMetadata

    random = np.random.default_rng(0)
    rows, picked = [], []
    for case in range(number):
        total = int(random.integers(least, lengths[case % len(lengths)]))
        source = float(random.choice([4, 10, 15, 24, 24000 / 1001, 25, 29.97, 30, 59.94, 60]))
        fps = float(random.choice([0.1, 0.5, 1, 2, 3, 4, 7.5, 24])) if case % 3 else 0.0
        counted = not fps and not (default_rate and case % 2)
        most = min(total + beyond, most_count)
        count = int(random.integers(least_count, most + 1)) if counted else 0
        rate = fps or default_rate
        if rate and total / source * rate > most_frames:
            total = max(least, int(most_frames * source / rate))
        asked = {name: value for name, value in (("fps", fps), ("num_frames", count)) if value}
        try:
            indices = sample(VideoMetadata(total_num_frames=total, fps=source), **asked)
        except refused:
            indices = ()
        rows.append((total, source, fps, count, len(indices)))
        picked.append(np.asarray(indices).astype(np.int32))
    return np.array(rows, np.float64), np.concatenate(picked)
