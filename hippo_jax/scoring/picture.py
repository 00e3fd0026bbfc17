"""``token_picture``: the frames as the model saw them, kept tokens bright and the others dim."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from hippo_jax.errors import HippoError
from hippo_jax.inputs.model_inputs import ModelInputs
from hippo_jax.inputs.prepare import target_and_draft
from hippo_jax.inputs.protocol import Processor

SMALLEST_CELL = 16  # pixels of a token's side: below that nobody sees which it is
# Small videos are drawn larger up to this many pixels, large ones smaller down to this many.
ENOUGH_PIXELS = 2_000_000
MOST_PIXELS = 16_000_000
DIM = 0.3  # brightness of what was pruned
GREY = (0.299, 0.587, 0.114)  # Rec. 601 luma
BACKGROUND, INK, FAINT_INK, LINE = (24, 24, 27), (244, 244, 245), (161, 161, 170), (250, 204, 21)
MARGIN, GAP = 16, 12
TITLE_SIZE, LABEL_SIZE = 20, 14


@dataclass(frozen=True)
class Frame:
    """One temporal unit of a video, or an image.

    Attributes:
        name: what it is called in the picture.
        pixels: uint8 ``[H, W, 3]``, the first raw frame of the unit as resized for the model.
        first: ordinal of its first visual token within the row.
        grid: visual tokens a column and a line of it.
    """

    name: str
    pixels: np.ndarray
    first: int
    grid: tuple[int, int]


def seen_frames(model: Any, inputs: ModelInputs, row: int = 0) -> list[Frame]:
    """The frames of one row, made again from the pixels that the model was fed.

    Args:
        model: a ``VideoLM`` or ``ModelPair`` with files, which say how pixels were normalised.

    Raises:
        HippoError: no such row, a row without visual tokens, a model without files.
    """
    target, _ = target_and_draft(model)
    if not 0 <= row < inputs.batch:
        raise HippoError(f"there is no row {row} in a batch of {inputs.batch}")
    if target.source is None:
        raise HippoError("this model was made without files, so its pixels have no colours")
    table = inputs.table
    lines = np.flatnonzero(np.asarray(table.valid) & (np.asarray(table.row) == row))
    if inputs.vision is None or not len(lines):
        raise HippoError(f"row {row} has no visual tokens, so there is nothing to show")
    processor: Processor = target.family.processor(target.source)
    raw = np.asarray(inputs.vision.pixels)
    columns = ("video", "frame", "frames", "height", "width")
    named = {name: np.asarray(getattr(table, name))[lines] for name in columns}
    several = bool(named["video"].max() > 0)
    frames: list[Frame] = []
    at = images = 0
    while at < len(lines):
        video, unit, units, height, width = (int(named[name][at]) for name in columns)
        if video < 0:
            images += 1
            name = f"image {images}"
        else:
            name = f"unit {unit + 1} of {units}"
            name = f"video {video + 1}, {name}" if several else name
        seen = processor.seen_frame(raw, int(lines[at]), height, width)
        frames.append(Frame(name, _whole_tokens(seen, height, width), at, (height, width)))
        at += height * width
    return frames


def cell_size(frames: list[Frame], tokens: int) -> int:
    """Pixels of a token's side in the picture: whole multiples of its own, unless that is too
    much."""
    own = frames[0].pixels.shape[0] // frames[0].grid[0]
    least = own * -(-SMALLEST_CELL // own)
    if tokens * least**2 > MOST_PIXELS:
        return max(SMALLEST_CELL, math.isqrt(MOST_PIXELS // tokens))
    room = math.isqrt(ENOUGH_PIXELS // tokens) // own * own
    return max(least, min(room, 4 * own))


def token_picture(
    model: Any,
    inputs: ModelInputs,
    kept_indices: Any = None,
    row: int = 0,
    title: str | None = None,
) -> Image.Image:
    """Every frame of one row: kept tokens bright and framed, pruned ones dim and grey.

    Args:
        model: what ``inputs`` were prepared for.
        kept_indices: int ``[B, K]`` as in ``SpeculationStats``: ordinals within the row, negative
            ones ignored. ``None``: all tokens.
        title: a line above the frames; by default how many tokens there are and are kept.

    Raises:
        HippoError: as ``seen_frames``, and indices that do not belong to the row.
    """
    frames = seen_frames(model, inputs, row)
    kept = _kept(kept_indices, inputs, row)
    whole = kept_indices is None
    if title is None:
        title = f"{kept.size} visual tokens"
        title = title if whole else f"{kept.sum()} of {title} kept"
    cell = cell_size(frames, kept.size)
    drawn, labels = [], []
    for frame in frames:
        own = kept[frame.first : frame.first + math.prod(frame.grid)].reshape(frame.grid)
        drawn.append(_draw(frame.pixels, own, cell))
        labels.append(frame.name if whole else f"{frame.name}: {own.sum()} of {own.size} kept")
    return _sheet(drawn, labels, title)


def _whole_tokens(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    """A frame of which each of ``height x width`` tokens covers whole pixels: where they do not,
    the next larger size that they divide."""
    side = max(-(-frame.shape[0] // height), -(-frame.shape[1] // width))
    if frame.shape[0] == side * height and frame.shape[1] == side * width:
        return frame
    size = (width * side, height * side)
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC))


def _kept(kept_indices: Any, inputs: ModelInputs, row: int) -> np.ndarray:
    """Which visual tokens of the row are kept, bool ``[n]``."""
    count = int(inputs.visual_tokens[row])
    if kept_indices is None:
        return np.ones(count, bool)
    given = np.asarray(kept_indices)
    if given.ndim != 2 or len(given) != inputs.batch or given.dtype.kind not in "iu":
        raise HippoError(
            f"kept_indices must be whole numbers [{inputs.batch}, K], got {given.dtype} with shape "
            f"{given.shape}"
        )
    own = given[row][given[row] >= 0]
    if own.size and own.max() >= count:
        raise HippoError(
            f"kept_indices name token {own.max()}, but row {row} has {count}; the inputs are others"
        )
    kept = np.zeros(count, bool)
    kept[own] = True
    return kept


def _draw(pixels: np.ndarray, kept: np.ndarray, cell: int) -> Image.Image:
    """One frame; ``kept`` bool ``[h, w]``."""
    height, width = kept.shape
    own = pixels.shape[0] // height
    bright = kept.repeat(own, axis=0).repeat(own, axis=1)[..., None]
    dim = (pixels @ np.array(GREY) * DIM).astype(np.uint8)[..., None]
    image = Image.fromarray(np.where(bright, pixels, dim))
    # Whole multiples show every pixel as it was.
    how = Image.Resampling.NEAREST if cell % own == 0 else Image.Resampling.LANCZOS
    image = image.resize((width * cell, height * cell), how)
    if kept.all():
        return image
    canvas, thick = ImageDraw.Draw(image), max(1, cell // 24)
    around = np.pad(kept, 1)
    for y, x in np.argwhere(kept):
        left, top = x * cell, y * cell
        right, bottom = left + cell - 1, top + cell - 1
        sides = {
            (y, x + 1): (left, top, right, top + thick - 1),
            (y + 2, x + 1): (left, bottom - thick + 1, right, bottom),
            (y + 1, x): (left, top, left + thick - 1, bottom),
            (y + 1, x + 2): (right - thick + 1, top, right, bottom),
        }
        for neighbour, line in sides.items():
            if not around[neighbour]:  # kept neighbours share one outline
                canvas.rectangle([int(place) for place in line], fill=LINE)
    return image


def _sheet(drawn: list[Image.Image], labels: list[str], title: str) -> Image.Image:
    """Frames in lines, each under its label, below the title."""
    heading, small = ImageFont.load_default(size=TITLE_SIZE), ImageFont.load_default(LABEL_SIZE)
    label_height, title_height = LABEL_SIZE + 8, TITLE_SIZE + 16
    slot_width = max(
        *(image.width for image in drawn), *(math.ceil(small.getlength(text)) for text in labels)
    )
    slot_height = max(image.height for image in drawn) + label_height
    columns = _columns(len(drawn), slot_width + GAP, slot_height + GAP)
    lines = -(-len(drawn) // columns)
    width = max(columns * (slot_width + GAP) - GAP, math.ceil(heading.getlength(title)))
    height = title_height + lines * (slot_height + GAP) - GAP
    sheet = Image.new("RGB", (width + 2 * MARGIN, height + 2 * MARGIN), BACKGROUND)
    canvas = ImageDraw.Draw(sheet)
    canvas.text((MARGIN, MARGIN), title, fill=INK, font=heading)
    for index, (image, label) in enumerate(zip(drawn, labels, strict=True)):
        left = MARGIN + index % columns * (slot_width + GAP)
        top = MARGIN + title_height + index // columns * (slot_height + GAP)
        canvas.text((left, top), label, fill=FAINT_INK, font=small)
        sheet.paste(image, (left, top + label_height))
    return sheet


def _columns(count: int, width: int, height: int) -> int:
    """Frames a line: few holes, and nearly the shape of a screen (16 to 10)."""

    def badness(columns: int) -> float:
        lines = -(-count // columns)
        empty = 1 - count / (columns * lines)
        return abs(math.log(columns * width / (lines * height) / 1.6)) + 2 * empty

    return min(range(1, count + 1), key=badness)
