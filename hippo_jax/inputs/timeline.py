"""A constant rate for frames that carry times, and the span between two moments."""

import dataclasses
import math

import numpy as np

from hippo_jax.errors import HippoError
from hippo_jax.inputs.sampling import is_number


@dataclasses.dataclass(frozen=True)
class Timeline:
    """`shown` int64 [slots]: the ordinal of the frame on screen in each slot of 1 / `fps` seconds.

    With a constant frame rate slot k shows frame k. With a variable one `fps` is the average, and
    frames repeat or are passed over, so that slots keep the time.
    """

    fps: float
    shown: np.ndarray


def timeline(times: np.ndarray, *, tick: float, tail: float, announced_fps: float) -> Timeline:
    """Lays out frames shown from `times` (float64 [n] seconds, ascending) on.

    Times may be off by one `tick`, the resolution of the file; `tail` is how long the last frame
    lasts (0: unknown); `announced_fps` is a rate the file claims (0: none), two decimals exact.
    """
    count = len(times)
    times = times - times[0]
    if count == 1:
        return Timeline(1 / tail if tail > 0 else announced_fps or 1.0, np.zeros(1, np.int64))
    if not times[-1] > 0:
        # All frames at one moment: the times mean nothing.
        return Timeline(announced_fps or 1.0, np.arange(count))
    fps = _constant_rate(times, tick, announced_fps)
    if fps is not None:
        return Timeline(fps, np.arange(count))
    if not tail > 0:
        tail = float(np.median(np.diff(times)))
    fps = count / (float(times[-1]) + tail)
    # A frame belongs to the slot whose beginning is nearest to its time.
    shown = np.searchsorted(times, (np.arange(count) + 0.5) / fps, side="right") - 1
    return Timeline(fps, shown)


def _constant_rate(times: np.ndarray, tick: float, announced_fps: float) -> float | None:
    """The rate whose multiples the times are, within their resolution; None if there is none.

    Whole rates and those of NTSC (n * 1000 / 1001) are preferred to the measured one, which the
    rounding of times in a file makes slightly wrong: a frame count computed from it could come
    out one too low.
    """
    measured = (len(times) - 1) / float(times[-1])
    candidates = [float(round(measured)), round(measured * 1.001) / 1.001]
    candidates.sort(key=lambda rate: abs(rate - (announced_fps or measured)))
    for rate in (*candidates, measured):
        grid = np.arange(len(times)) / rate if rate > 0 else np.inf
        if np.abs(times - grid).max() <= 1.01 * tick + 1e-9:
            return rate
    return None


def span(fps: float, total: int, start: float | None, end: float | None) -> tuple[int, int]:
    """The slots (first, behind the last) that begin within [start, end) seconds.

    HippoError: a negative or unordered pair, a start behind the end of the video, or a span
    without a frame.
    """
    for name, value in (("start", start), ("end", end)):
        if value is None:
            continue
        if not (is_number(value) and math.isfinite(value) and value >= 0):
            raise HippoError(f"{name} is {value!r}; give seconds from the beginning of the video")
    if start is not None and end is not None and end <= start:
        raise HippoError(f"end {end:g} s is not after start {start:g} s; give a later end")
    # Rounding must not move a moment that names a frame exactly behind it.
    first = 0 if start is None else math.ceil(start * fps - 1e-6)
    stop = total if end is None else min(total, math.ceil(end * fps - 1e-6))
    if first >= total:
        raise HippoError(
            f"start {start:g} s is not before the end of the video ({total / fps:.2f} s); "
            "give an earlier start"
        )
    if stop <= first:
        raise HippoError(
            f"no frame begins between {start or 0:g} s and {end:g} s (at {fps:.4g} frames a "
            "second); widen the span"
        )
    return first, stop
