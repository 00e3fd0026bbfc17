"""A scene to pixels, and to one label per visual token.

The background carries a smooth colour ramp of fixed direction: it tells every patch where it is,
so that a vision tower with only relative positions can name cells. Noise is luma only, because
4:2:0 video destroys chroma noise and a decoded clip would look unlike a rendered one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hippo_jax.training import domain
from hippo_jax.training.domain import CELL, FRAMES, HALF, MOTIONS, PATTERNS, SHAPES, SIZE, Scene

TOKEN = 28  # pixels of one merged visual token
GROUPS = FRAMES // 2  # temporal groups of two frames
SIDE = SIZE // TOKEN
NONE = -1  # "no object here" in TokenLabels

RGB = np.array(
    [
        (215, 30, 35),  # red
        (245, 135, 25),  # orange
        (240, 220, 40),  # yellow
        (30, 160, 50),  # green
        (40, 210, 220),  # cyan
        (35, 70, 225),  # blue
        (130, 45, 185),  # purple
        (250, 125, 195),  # pink
        (252, 252, 252),  # white
        (4, 4, 4),  # black
    ],
    np.float32,
)
_STEPS = {"still": (0, 0), "left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
_GRID = np.arange(CELL, dtype=np.float32) + 0.5
_Y, _X = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)


@dataclass(frozen=True)
class TokenLabels:
    """Per merged token `[4, 9, 9]`, int8; NONE where no object covers the token."""

    colour: np.ndarray  # now: index into COLOURS + TURN_COLOURS
    shape: np.ndarray
    motion: np.ndarray
    event: np.ndarray


def render(scene: Scene) -> tuple[np.ndarray, TokenLabels]:
    """Frames uint8 `[8, 252, 252, 3]` and the labels of the 324 visual tokens."""
    rng = np.random.default_rng(scene.pixel_key)
    frames = _background(scene, rng)
    masks = _object_masks(scene, rng)
    for thing, mask in zip(scene.things, masks, strict=True):
        window = _cell_window(frames, thing.row, thing.column)
        for half in range(2):
            part = slice(half * HALF, (half + 1) * HALF)
            rgb = RGB[thing.colour_in_half(half)] * (1 + 0.06 * (2 * rng.random() - 1))
            alpha = mask[part, :, :, None]
            window[part] += alpha * (rgb - window[part])
    _distractors(scene, frames, rng)
    frames += _noise(rng)
    np.clip(frames, 0, 255, out=frames)
    return frames.astype(np.uint8), _token_labels(scene, masks)


def _cell_window(frames: np.ndarray, row: int, column: int) -> np.ndarray:
    return frames[:, row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL]


def _background(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    base = 82.0 if domain.TONES[scene.tone] == "dark" else 168.0
    ramp = 26.0 * (0.9 + 0.2 * rng.random())
    x, y = 2 * _X / SIZE - 1, 2 * _Y / SIZE - 1
    picture = np.stack([ramp * x, ramp * y, -0.5 * ramp * (x + y)], axis=-1)
    picture += base + 6 * (2 * rng.random() - 1) + _pattern(scene.pattern, rng)[..., None]
    return np.repeat(picture[None].astype(np.float32), FRAMES, axis=0)


def _pattern(pattern: int, rng: np.random.Generator) -> np.ndarray:
    period = 18 + 8 * rng.random()
    u, v = rng.random() * period, rng.random() * period
    wave_x = np.sin((_X + u) * (2 * np.pi / period))
    wave_y = np.sin((_Y + v) * (2 * np.pi / period))
    name = PATTERNS[pattern]
    if name == "striped":
        return 14 * np.clip(3 * np.sin((_X + _Y + u) * (2 * np.pi / period)), -1, 1)
    if name == "checkered":
        return 14 * np.clip(4 * wave_x * wave_y, -1, 1)
    if name == "dotted":
        return 26 * np.clip(3 * (wave_x + wave_y) - 3, 0, 1) - 5
    return np.zeros_like(_X)


def _object_masks(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Coverage float32 `[objects, 8, 84, 84]` in the object's own cell; 0 where invisible.

    Radius, speed and jitter are such that an object never leaves its cell (42 pixels either
    side of the centre), so objects meet neither each other nor a distractor.
    """
    masks = np.zeros((len(scene.things), FRAMES, CELL, CELL), np.float32)
    times = np.arange(FRAMES, dtype=np.float32) - (FRAMES - 1) / 2
    for thing, mask in zip(scene.things, masks, strict=True):
        radius = 15.5 + 3 * rng.random()
        speed = 6 + 0.6 * rng.random()
        jitter = (12 * rng.random(2) - 6).astype(np.float32)
        step_x, step_y = _STEPS[MOTIONS[thing.motion]]
        x = CELL / 2 + step_x * speed * times + (0 if step_x else jitter[0])
        y = CELL / 2 + step_y * speed * times + (0 if step_y else jitter[1])
        first, second = thing.visible
        part = slice(0 if first else HALF, FRAMES if second else HALF)
        mask[part] = shape_coverage(
            SHAPES[thing.shape], x[part].astype(np.float32), y[part].astype(np.float32), radius
        )
    return masks


def shape_coverage(shape: str, x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
    """Antialiased coverage `[frames, 84, 84]` of a shape centred on `(x, y)` in a cell."""
    dx = _GRID[None, None, :] - x[:, None, None]
    dy = _GRID[None, :, None] - y[:, None, None]
    if shape in ("bar", "pole"):
        thin = 0.38 * radius
        wide, tall = (radius, thin) if shape == "bar" else (thin, radius)
        distance = np.maximum(np.abs(dx) - wide, np.abs(dy) - tall)
    else:
        distance = np.sqrt(dx * dx + dy * dy) - radius
        if shape == "ring":
            hole = 0.58 * radius
            distance = np.maximum(distance, (hole - radius) - distance)
    return np.clip(0.5 - distance, 0, 1)


def _distractors(scene: Scene, frames: np.ndarray, rng: np.random.Generator) -> None:
    used = {(thing.row, thing.column) for thing in scene.things}
    free = [(r, c) for r in range(3) for c in range(3) if (r, c) not in used]
    order = [free[i] for i in rng.permutation(len(free))]
    flickering = min(int(rng.integers(1, 3)), len(order))
    still = int(rng.integers(2, 6))
    for row, column in order[:flickering]:
        side = 4 * int(rng.integers(6, 11))
        top, left = rng.integers(4, CELL - side - 4, size=2)
        blocks = rng.uniform(60, 190, (FRAMES, side // 4, side // 4)).astype(np.float32)
        grey = blocks.repeat(4, axis=1).repeat(4, axis=2)
        _cell_window(frames, row, column)[:, top : top + side, left : left + side] = grey[..., None]
    for row, column in order[flickering : flickering + still]:
        radius = 8 + 8 * rng.random()
        x, y = rng.uniform(radius + 2, CELL - radius - 2, 2).astype(np.float32)
        shape = SHAPES[int(rng.integers(len(SHAPES)))]
        alpha = shape_coverage(shape, np.array([x]), np.array([y]), radius)[0][..., None]
        window = _cell_window(frames, row, column)
        window += alpha * (rng.uniform(100, 150) - window)


def _noise(rng: np.random.Generator) -> np.ndarray:
    """Luma noise `[8, 252, 252, 1]`: one static field, and one more shifted every frame."""
    fields = rng.standard_normal((2, SIZE, SIZE), dtype=np.float32)
    shifts = rng.integers(0, SIZE, (FRAMES, 2))
    moving = [np.roll(fields[1], (int(a), int(b)), (0, 1)) for a, b in shifts]
    return (3.0 * fields[0] + 2.0 * np.stack(moving))[..., None]


def _token_labels(scene: Scene, masks: np.ndarray) -> TokenLabels:
    labels = np.full((4, GROUPS, SIDE, SIDE), NONE, np.int8)
    tokens = CELL // TOKEN
    cover = masks.reshape(-1, GROUPS, 2, tokens, TOKEN, tokens, TOKEN).mean((2, 4, 6))
    for thing, share in zip(scene.things, cover, strict=True):
        rows = slice(thing.row * tokens, (thing.row + 1) * tokens)
        columns = slice(thing.column * tokens, (thing.column + 1) * tokens)
        for group in range(GROUPS):
            here = share[group] > 0.07
            colour = thing.colour_in_half(int(group >= GROUPS // 2))
            values = (colour, thing.shape, thing.motion, thing.event)
            for field, value in zip(labels, values, strict=True):
                field[group, rows, columns][here] = value
    return TokenLabels(*labels)
