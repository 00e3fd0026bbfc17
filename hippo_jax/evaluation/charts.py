"""Pictures of an evaluation: speedups with their interval, lengths of runs, accuracy by task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from hippo_jax.benchmark.measure import where
from hippo_jax.evaluation.summary import call_times

WIDTH, MARGIN = 1200, 32  # pixels
PLOT, GAP = 240, 64  # height of a plot, room below it for its axis and the next title
BAR = 26  # height of a bar of accuracy
LABELS, NUMBERS, AXIS = 340, 150, 60  # room for names of tasks, their numbers, marks of an axis
LETTERS, SMALL = 20, 15
MOST_BARS = 120  # calls shown one by one; of more, evenly chosen ones
WHITE, INK, FAINT = (255, 255, 255), (24, 24, 27), (113, 113, 122)
BLUE, SHADE, EMPTY, RED = (29, 78, 216), (254, 226, 206), (238, 240, 243), (194, 65, 12)


def picture(summary: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Image.Image | None:
    """What there is of speed (captions) and quality (questions), one below the other; ``None``
    where there is neither."""
    captions = [row for row in rows if row["error"] is None and row["kind"] == "caption"]
    panels: list[tuple[int, Any]] = []
    speed, quality = summary["speed"], summary["quality"]
    if speed is not None and "speedup" in speed:
        panels.append((PLOT, lambda canvas, top: _speedups(canvas, top, speed, captions)))
    lengths = Counter(run for row in captions for run in row["stats"]["runs"])
    if lengths:
        schedule = summary["manifest"]["settings"]["config"]["schedule"]
        panels.append((PLOT, lambda canvas, top: _runs(canvas, top, lengths, speed, schedule)))
    if quality is not None:
        height = BAR * (len(quality["tasks"]) + 1)
        panels.append((height, lambda canvas, top: _accuracy(canvas, top, quality)))
    if not panels:
        return None
    head = MARGIN + 2 * LETTERS + 24
    height = head + sum(size + LETTERS + GAP for size, _ in panels)
    image = Image.new("RGB", (WIDTH, height), WHITE)
    canvas = ImageDraw.Draw(image)
    manifest = summary["manifest"]
    title = f"{manifest['benchmark']}, pair {manifest['pair']['name']}"
    canvas.text((MARGIN, MARGIN), title, fill=INK, font=_font(LETTERS + 4))
    said = f"{where(manifest['machine'])}, {manifest['pair']['dtype']}; {_errors(summary)}"
    canvas.text((MARGIN, MARGIN + LETTERS + 12), said, fill=FAINT, font=_font(SMALL))
    top = head
    for size, draw in panels:
        draw(canvas, top)
        top += size + LETTERS + GAP
    return image


def _errors(summary: Mapping[str, Any]) -> str:
    return f"{summary['samples']} samples, {len(summary['errors'])} errors"


def _font(size: int) -> Any:
    return ImageFont.load_default(size=size)


def _speedups(
    canvas: Any, top: int, speed: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> None:
    """A bar a call, from the smallest speedup to the largest."""
    ratios = sorted(plain / hippo for plain, hippo in call_times(rows).tolist())
    if len(ratios) > MOST_BARS:
        last = len(ratios) - 1
        ratios = [ratios[i * last // (MOST_BARS - 1)] for i in range(MOST_BARS)]
    interval = speed["speedup_interval"]
    known = "" if interval is None else f"; shaded: {interval[0]:.2f} to {interval[1]:.2f}, 95 %"
    canvas.text(
        (MARGIN, top),
        f"Speedup over plain decoding, call by call, sorted (line: together {speed['speedup']:.2f}"
        f"{known})",
        fill=INK,
        font=_font(LETTERS),
    )
    top += LETTERS + 10
    most = max([*ratios, 1.0, *(interval or [])]) * 1.05
    left, right = MARGIN + AXIS, WIDTH - MARGIN

    def y(value: float) -> float:
        return top + PLOT * (1 - value / most)

    if interval is not None:
        canvas.rectangle([left, y(interval[1]), right, y(interval[0])], fill=SHADE)
    step = (right - left) / len(ratios)
    for place, ratio in enumerate(ratios):
        x = left + place * step
        canvas.rectangle([x + 1, y(ratio), max(x + 1, x + step - 2), y(0)], fill=BLUE)
    for value in (0.0, 1.0):
        canvas.line([left, y(value), right, y(value)], fill=INK, width=2)
        canvas.text((left - 8, y(value)), f"{value:g}", fill=INK, font=_font(SMALL), anchor="rm")
    whole = y(speed["speedup"])
    canvas.line([left, whole, right, whole], fill=RED, width=2)


def _runs(
    canvas: Any, top: int, lengths: Counter[int], speed: Mapping[str, Any], schedule: str
) -> None:
    """How many runs had each length."""
    canvas.text(
        (MARGIN, top),
        f"Accepted tokens of a run ({schedule} schedule): {sum(lengths.values())} runs, "
        f"mean {speed['mat']:.2f}",
        fill=INK,
        font=_font(LETTERS),
    )
    top += LETTERS + 10
    longest, most = max(lengths), max(lengths.values())
    left, right = MARGIN + AXIS, WIDTH - MARGIN
    step = (right - left) / (longest + 1)
    every = -(-30 // max(1, int(step)))  # marks that do not touch
    for length in range(longest + 1):
        x, height = left + length * step, PLOT * lengths[length] / most
        if lengths[length]:
            canvas.rectangle([x + 1, top + PLOT - height, x + step - 2, top + PLOT], fill=BLUE)
        if length % every == 0:
            middle = (x + step / 2, top + PLOT + 6)
            canvas.text(middle, str(length), fill=FAINT, font=_font(SMALL), anchor="ma")
    canvas.line([left, top + PLOT, right, top + PLOT], fill=INK)
    canvas.text((left - 8, top), str(most), fill=FAINT, font=_font(SMALL), anchor="rt")


def _accuracy(canvas: Any, top: int, quality: Mapping[str, Any]) -> None:
    """A bar a task, and one for all."""
    canvas.text(
        (MARGIN, top), "Accuracy on multiple-choice questions", fill=INK, font=_font(LETTERS)
    )
    top += LETTERS + 10
    left, right = MARGIN + LABELS, WIDTH - MARGIN - NUMBERS
    for place, (task, one) in enumerate([*quality["tasks"].items(), ("all", quality["all"])]):
        y = top + place * BAR
        share = one["accuracy"]
        name = task if len(task) <= 40 else task[:39] + "…"
        canvas.text((left - 8, y + BAR / 2), name, fill=INK, font=_font(SMALL), anchor="rm")
        canvas.rectangle([left, y + 3, right, y + BAR - 3], fill=EMPTY)
        if share:
            end = left + (right - left) * share
            canvas.rectangle([left, y + 3, end, y + BAR - 3], fill=RED if task == "all" else BLUE)
        said = "?" if share is None else f"{100 * share:.1f} % ({one['right']}/{one['counted']})"
        canvas.text((right + 8, y + BAR / 2), said, fill=INK, font=_font(SMALL), anchor="lm")
