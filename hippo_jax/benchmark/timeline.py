"""A picture of who was busy when: two lanes a scheduler, one for each role, round by round."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from hippo_jax.benchmark.injected import KINDS
from hippo_jax.benchmark.intervals import Interval, Round
from hippo_jax.benchmark.measure import where
from hippo_jax.benchmark.overlap import SCHEDULERS
from hippo_jax.errors import HippoError

WIDTH, MARGIN, LABELS = 1480, 28, 74  # pixels: all, around, for the names of the lanes
LANE, GAP = 34, 6
NUMBERS, AXIS, BETWEEN = 22, 34, 26  # above the lanes, below them, from panel to panel
TITLE, HEADING, TEXT = 24, 18, 15  # sizes of letters
WHITE, INK, FAINT = (255, 255, 255), (24, 24, 27), (113, 113, 122)
IDLE, LINE = (238, 240, 243), (161, 161, 170)
BUSY = {"target": (29, 78, 216), "draft": (194, 65, 12)}
TICKS = 100  # pixels from one mark of the axis to the next, at least


@dataclass(frozen=True)
class Panel:
    """One scheduler's rounds and what to say of them."""

    heading: str
    rounds: Sequence[Round]


def overlap_picture(outcome: Mapping[str, Any]) -> Image.Image:
    """The last turn of what ``measure_overlap`` found.

    Raises:
        HippoError: the profiler showed no rounds.
    """
    panels = []
    for kind, found in outcome["kinds"].items():
        slower = max(found["target_ms"]["median"], found["draft_ms"]["median"])
        for scheduler, name in SCHEDULERS.items():
            own = found[scheduler]
            if own["timeline"]:
                taken, ratio = own["round_ms"]["median"], own["ratio"]["median"]
                says = (
                    f"{scheduler}: {name}, {KINDS[kind]}: a round {taken:.1f} ms, {ratio:.2f} "
                    f"times the slower role alone ({slower:.1f} ms); one after the other "
                    f"{found['serial_ms']['median']:.1f} ms"
                )
                panels.append(Panel(says, [_round(one) for one in own["timeline"]]))
    if not panels:
        raise HippoError("the profiler's trace does not show the rounds: there is nothing to draw")
    return timeline(
        "Who was busy when, round by round",
        f"{where(outcome['machine'])}, two CPU devices that share them; tiny pair with injected "
        f"work; bars, in ms: the last of {outcome['repeats']} turns; other figures: medians of all",
        panels,
    )


def _round(entry: Mapping[str, Mapping[str, float]]) -> Round:
    return Round(Interval(**entry["target"]), Interval(**entry["draft"]))


def timeline(title: str, subtitle: str, panels: Sequence[Panel]) -> Image.Image:
    """Draw panels below each other, all to one scale in milliseconds."""
    heights = HEADING + 10 + NUMBERS + 2 * LANE + GAP + AXIS
    top = MARGIN + TITLE + TEXT + 34
    height = top + len(panels) * (heights + BETWEEN) - BETWEEN + MARGIN
    image = Image.new("RGB", (WIDTH, height), WHITE)
    canvas = ImageDraw.Draw(image)
    canvas.text((MARGIN, MARGIN), title, fill=INK, font=_font(TITLE))
    canvas.text((MARGIN, MARGIN + TITLE + 10), subtitle, fill=FAINT, font=_font(TEXT))
    scale = Scale(max(one.end for panel in panels for one in panel.rounds))
    for index, panel in enumerate(panels):
        _draw_panel(canvas, top + index * (heights + BETWEEN), panel, scale)
    return image


@dataclass(frozen=True)
class Scale:
    """From milliseconds to pixels."""

    end: float

    def x(self, ms: float) -> int:
        """The pixel's column."""
        left = MARGIN + LABELS
        return round(left + (WIDTH - 2 * MARGIN - left) * ms / self.end)

    def marks(self) -> Iterator[float]:
        """Round numbers of milliseconds, far enough from each other to be read."""
        least = self.end * TICKS / (WIDTH - 3 * MARGIN - LABELS)
        power = 10.0 ** math.floor(math.log10(least))
        step = next(power * f for f in (1, 2, 5, 10) if power * f >= least)
        return (step * i for i in range(int(self.end / step) + 1))


def _font(size: int) -> Any:
    return ImageFont.load_default(size=size)


def _draw_panel(canvas: ImageDraw.ImageDraw, top: int, panel: Panel, scale: Scale) -> None:
    small = _font(TEXT)
    canvas.text((MARGIN, top), panel.heading, fill=INK, font=_font(HEADING))
    top += HEADING + 10 + NUMBERS
    bottom = top + 2 * LANE + GAP
    last = scale.x(panel.rounds[-1].end)
    for lane, role in enumerate(BUSY):
        upper = top + lane * (LANE + GAP)
        canvas.text((MARGIN, upper + LANE // 2), role, fill=INK, font=small, anchor="lm")
        canvas.rectangle([scale.x(0), upper, last, upper + LANE], fill=IDLE)
        for one in panel.rounds:
            interval: Interval = getattr(one, role)
            left, right = scale.x(interval.start), max(scale.x(interval.end), 1)
            canvas.rectangle([left, upper, right, upper + LANE], fill=BUSY[role])
            length = f"{interval.length:.1f}"
            if small.getlength(length) + 6 < right - left:
                middle = ((left + right) / 2, upper + LANE / 2)
                canvas.text(middle, length, fill=WHITE, font=small, anchor="mm")
    for number, one in enumerate(panel.rounds, 1):
        x = scale.x(one.start)
        canvas.line([x, top - NUMBERS, x, bottom], fill=INK)
        canvas.text((x + 4, top - NUMBERS), f"round {number}", fill=FAINT, font=small)
    canvas.line([last, top - NUMBERS, last, bottom], fill=INK)
    canvas.line([scale.x(0), bottom + 6, scale.x(scale.end), bottom + 6], fill=LINE)
    for mark in scale.marks():
        canvas.line([scale.x(mark), bottom + 6, scale.x(mark), bottom + 11], fill=LINE)
        canvas.text(
            (scale.x(mark), bottom + 12), f"{mark:g} ms", fill=FAINT, font=small, anchor="ma"
        )
