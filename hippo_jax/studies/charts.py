"""Pictures of a study: lines over settings and bars with their numbers, one panel below another."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from PIL import Image, ImageDraw, ImageFont

WIDTH, MARGIN, BETWEEN = 1280, 32, 36  # pixels: all, around, from panel to panel
TITLE, HEADING, TEXT = 24, 18, 15  # sizes of letters
WHITE, INK, FAINT, LINE = (255, 255, 255), (24, 24, 27), (82, 82, 91), (212, 212, 216)
SPREAD = (161, 161, 170)  # of errors, seen on bars and beside them
COLOURS = (
    (29, 78, 216),
    (194, 65, 12),
    (4, 120, 87),
    (126, 34, 206),
    (161, 98, 7),
    (190, 24, 93),
    (14, 116, 144),
    (82, 82, 91),
)  # dark enough for white letters

Point = tuple[float, float, float]
"""A value, and the smallest and largest it may be."""


class Panel(Protocol):
    """A part of a picture."""

    @property
    def height(self) -> int:
        """In pixels."""

    def draw(self, image: Image.Image, top: int) -> None:
        """Onto ``image`` from the line ``top`` on."""


def font(size: int) -> Any:
    """Letters that come with Pillow."""
    return ImageFont.load_default(size=size)


def draw(title: str, subtitle: str, panels: Sequence[Panel]) -> Image.Image:
    """All panels below a title."""
    titles, said = _wrapped(title, TITLE), _wrapped(subtitle, TEXT)
    top = MARGIN + len(titles) * (TITLE + 8) + 4 + len(said) * (TEXT + 6) + 24
    height = top + sum(panel.height for panel in panels) + BETWEEN * (len(panels) - 1) + MARGIN
    image = Image.new("RGB", (WIDTH, height), WHITE)
    canvas = ImageDraw.Draw(image)
    y = MARGIN
    for line in titles:
        canvas.text((MARGIN, y), line, fill=INK, font=font(TITLE))
        y += TITLE + 8
    y += 4
    for line in said:
        canvas.text((MARGIN, y), line, fill=FAINT, font=font(TEXT))
        y += TEXT + 6
    for panel in panels:
        panel.draw(image, top)
        top += panel.height + BETWEEN
    return image


@dataclass(frozen=True)
class Lines:
    """Values over a row of settings, each series a line; the axis begins at 0 unless it is one of
    powers of two, which leaves out what is not above 0.

    Attributes:
        heading: what is shown, with its unit.
        across: what the settings are.
        settings: their names, from left to right, evenly spaced.
        series: values by name; ``None`` where there is none.
    """

    heading: str
    across: str
    settings: tuple[str, ...]
    series: Mapping[str, Sequence[Point | None]]
    powers: bool = False

    plot = 230

    @property
    def above(self) -> int:
        """Room for heading and legend."""
        return HEADING + 12 + (TEXT + 8) * len(_legend_lines(list(self.series))) + 10

    def points(self) -> list[list[Point | None]]:
        """All values that the axis can show."""
        return [
            [None if p is None or (self.powers and p[1] <= 0) else p for p in line]
            for line in self.series.values()
        ]

    @property
    def height(self) -> int:
        """In pixels."""
        return self.above + self.plot + 2 * (TEXT + 8)

    def draw(self, image: Image.Image, top: int) -> None:
        """See ``Panel``."""
        canvas, small = ImageDraw.Draw(image), font(TEXT)
        canvas.text((MARGIN, top), self.heading, fill=INK, font=font(HEADING))
        _legend(canvas, top + HEADING + 12, list(self.series))
        top, left, right = top + self.above, MARGIN + 64, WIDTH - MARGIN - 16
        bottom = top + self.plot
        shown = [point for line in self.points() for point in line if point is not None]
        most = max((point[2] for point in shown), default=1.0) or 1.0
        least = min((point[1] for point in shown), default=1.0)
        if self.powers:
            first, last = math.floor(math.log2(least)), math.ceil(math.log2(most))
            ticks = [2.0**power for power in range(first, max(last, first + 1) + 1)]
        else:
            ticks = list(marks(1.04 * most, 5))

        def y(value: float) -> float:
            if self.powers:
                return bottom - self.plot * math.log2(value / ticks[0]) / (len(ticks) - 1)
            return bottom - self.plot * value / (1.04 * most)

        for mark in ticks:
            canvas.line([left, y(mark), right, y(mark)], fill=LINE)
            canvas.text((left - 8, y(mark)), f"{mark:g}", fill=FAINT, font=small, anchor="rm")
        step = (right - left) / len(self.settings)
        places = [left + step * (i + 0.5) for i in range(len(self.settings))]
        for x, name in zip(places, self.settings, strict=True):
            canvas.text((x, bottom + 8), name, fill=FAINT, font=small, anchor="ma")
        canvas.text(
            ((left + right) / 2, bottom + TEXT + 14), self.across, fill=INK, font=small, anchor="ma"
        )
        for number, line in enumerate(self.points()):
            colour = COLOURS[number % len(COLOURS)]
            before: tuple[float, float] | None = None
            for x, point in zip(places, line, strict=True):
                if point is None:
                    before = None
                    continue
                middle, low, high = point
                if high > low:  # whiskers side by side, so that none hides another
                    beside = x + 4 * (number - (len(self.series) - 1) / 2)
                    canvas.line([beside, y(low), beside, y(high)], fill=colour, width=1)
                if before is not None:
                    canvas.line([*before, x, y(middle)], fill=colour, width=3)
                canvas.ellipse([x - 5, y(middle) - 5, x + 5, y(middle) + 5], fill=colour)
                before = x, y(middle)


@dataclass(frozen=True)
class Bar:
    """One bar: ``colour`` counts through ``COLOURS``, ``error`` is drawn to both sides."""

    name: str
    value: float | None
    error: float | None = None
    colour: int = 0


@dataclass(frozen=True)
class Bars:
    """Named bars from 0 to the right, each with its number.

    Attributes:
        heading: what is shown, with its unit.
        bars: from top to bottom.
        form: of the numbers.
        line: a value to mark on all bars, and what it is.
    """

    heading: str
    bars: tuple[Bar, ...]
    form: str = ".1f"
    line: tuple[float, str] | None = None

    bar = 26
    labels = 300
    numbers = 150

    @property
    def above(self) -> int:
        """Room for heading and the marked line's name."""
        return HEADING + 14 + (TEXT + 8 if self.line else 0)

    @property
    def height(self) -> int:
        """In pixels."""
        return self.above + len(self.bars) * (self.bar + 6)

    def draw(self, image: Image.Image, top: int) -> None:
        """See ``Panel``."""
        canvas, small = ImageDraw.Draw(image), font(TEXT)
        canvas.text((MARGIN, top), self.heading, fill=INK, font=font(HEADING))
        top += self.above
        left, right = MARGIN + self.labels, WIDTH - MARGIN - self.numbers
        ends = [bar.value + (bar.error or 0) for bar in self.bars if bar.value is not None]
        most = max([*ends, *([self.line[0]] if self.line else [])], default=1.0) or 1.0

        def x(value: float) -> float:
            return left + (right - left) * value / most

        for index, bar in enumerate(self.bars):
            upper = top + index * (self.bar + 6)
            middle = upper + self.bar / 2
            canvas.text((left - 12, middle), bar.name, fill=INK, font=small, anchor="rm")
            if bar.value is None:
                canvas.text((left + 8, middle), "?", fill=FAINT, font=small, anchor="lm")
                continue
            colour = COLOURS[bar.colour % len(COLOURS)]
            canvas.rectangle([left, upper, x(bar.value), upper + self.bar], fill=colour)
            said = format(bar.value, self.form)
            if bar.error is not None:
                low, high = x(max(0.0, bar.value - bar.error)), x(bar.value + bar.error)
                canvas.line([low, middle, high, middle], fill=SPREAD, width=3)
                said += f" ± {format(bar.error, self.form)}"
            canvas.text((right + 16, middle), said, fill=INK, font=small, anchor="lm")
        if self.line:
            place = x(self.line[0])
            bottom = top + len(self.bars) * (self.bar + 6) - 6
            canvas.line([place, top - 6, place, bottom], fill=INK, width=2)
            canvas.text((place, top - 8), self.line[1], fill=INK, font=small, anchor="md")


def marks(end: float, most: int) -> Iterator[float]:
    """At most ``most`` + 1 round numbers from 0 to ``end``."""
    power = 10.0 ** math.floor(math.log10(end / most))
    step = next(power * f for f in (1, 2, 5, 10) if power * f * most >= end * (1 - 1e-9))
    return (step * i for i in range(int(end / step * (1 + 1e-9)) + 1))


def _legend(canvas: ImageDraw.ImageDraw, top: int, names: Sequence[str]) -> None:
    small, number = font(TEXT), 0
    for line in _legend_lines(names):
        x = float(MARGIN + 64)
        for name in line:
            canvas.ellipse([x, top + 3, x + 10, top + 13], fill=COLOURS[number % len(COLOURS)])
            canvas.text((x + 16, top), name, fill=INK, font=small)
            x += _entry(name)
            number += 1
        top += TEXT + 8


def _legend_lines(names: Sequence[str]) -> list[list[str]]:
    """Names that stand beside each other."""
    lines: list[list[str]] = [[]]
    for name in names:
        if lines[-1] and sum(map(_entry, [*lines[-1], name])) > WIDTH - 2 * MARGIN - 64:
            lines.append([])
        lines[-1].append(name)
    return lines


def _entry(name: str) -> float:
    """Pixels of a name in the legend, with its dot and the room behind it."""
    return 16 + float(font(TEXT).getlength(name)) + 28


def _wrapped(text: str, size: int) -> list[str]:
    """Lines that fit the picture."""
    letters, lines = font(size), [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if letters.getlength(longer) <= WIDTH - 2 * MARGIN:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
