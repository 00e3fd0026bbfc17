"""What happens in a clip: three columns of coloured shapes over a patterned background.

A `Scene` is a pure function of `(split, seed, index)`, so a data set is a pair of numbers and
held-out clips are those of the other split. Everything a caption can say is an attribute drawn
independently of the others, hence the entropy of a scene is a closed formula
(`scene_entropy_bits`). What a caption never mentions (distractors, noise, exact sizes) is drawn
by the renderer from its own stream.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

FRAMES = 8
SIZE = 252
FPS = 4.0
CELL = 84
HALF = FRAMES // 2

COLUMNS = ("left", "middle", "right")
ROWS = ("top", "centre", "bottom")
COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink")
TURN_COLOURS = ("white", "black")  # nothing starts in these: a turn is no second object
SHAPES = ("disc", "ring", "bar", "pole")
MOTIONS = ("still", "left", "right", "up", "down")
EVENTS = ("none", "appears", "vanishes", "turns")
EVENT_PROBABILITIES = (0.4, 0.2, 0.2, 0.2)
PATTERNS = ("plain", "striped", "checkered", "dotted")
TONES = ("dark", "light")
FILLED_COLUMNS = ((0, 1), (0, 2), (1, 2), (0, 1, 2))
FILLED_PROBABILITIES = (0.2, 0.2, 0.2, 0.4)

TRAIN, HELD_OUT = 0, 1  # splits: disjoint seed spaces
CARD_SEED = 4242  # of the held-out clips behind the figures of the model card


@dataclass(frozen=True)
class Thing:
    """One object; every attribute is an index into the tuple of its name."""

    column: int
    row: int
    colour: int
    shape: int
    motion: int
    event: int
    turn: int  # index into TURN_COLOURS; meaningful for the event "turns" only

    @property
    def visible(self) -> tuple[bool, bool]:
        """Is it to be seen in the first and in the second half of the clip?"""
        return EVENTS[self.event] != "appears", EVENTS[self.event] != "vanishes"

    def colour_in_half(self, half: int) -> int:
        """Index into COLOURS + TURN_COLOURS."""
        turned = half == 1 and EVENTS[self.event] == "turns"
        return len(COLOURS) + self.turn if turned else self.colour


@dataclass(frozen=True)
class Scene:
    """All that a caption may say, and the key of what it never says."""

    pattern: int
    tone: int
    things: tuple[Thing, ...]
    pixel_key: tuple[int, ...]

    def in_column(self, column: int) -> Thing | None:
        """The object of a column (captioned scenes hold at most one each)."""
        return next((thing for thing in self.things if thing.column == column), None)


def sample_scene(seed: int, index: int, split: int = TRAIN) -> Scene:
    """The clip `index` of the data set `(split, seed)`: two or three objects, one a column."""
    rng = np.random.default_rng([split, seed, index, 0])
    columns = FILLED_COLUMNS[_draw(rng, FILLED_PROBABILITIES)]
    things = tuple(_sample_thing(rng, column, int(rng.integers(3))) for column in columns)
    pattern, tone = _sample_background(rng)
    return Scene(pattern, tone, things, (split, seed, index, 1))


def sample_crowded_scene(seed: int, index: int, split: int = TRAIN) -> Scene:
    """An object in most of the nine cells: dense supervision for the vision towers."""
    rng = np.random.default_rng([split, seed, index, 2])
    things = tuple(
        _sample_thing(rng, column, row)
        for row in range(3)
        for column in range(3)
        if rng.random() < 0.8
    )
    pattern, tone = _sample_background(rng)
    return Scene(pattern, tone, things, (split, seed, index, 3))


def scene_entropy_bits(number_of_things: int | None = None) -> float:
    """Entropy of what a caption says, in bits: the mean, or with a given number of objects."""
    thing = (
        math.log2(len(ROWS) * len(COLOURS) * len(SHAPES) * len(MOTIONS))
        + _entropy(EVENT_PROBABILITIES)
        + EVENT_PROBABILITIES[EVENTS.index("turns")] * math.log2(len(TURN_COLOURS))
    )
    background = math.log2(len(PATTERNS) * len(TONES))
    if number_of_things is None:
        layout = _entropy(FILLED_PROBABILITIES)
        pairs = zip(FILLED_COLUMNS, FILLED_PROBABILITIES, strict=True)
        return background + layout + thing * sum(p * len(columns) for columns, p in pairs)
    layouts = [
        p
        for columns, p in zip(FILLED_COLUMNS, FILLED_PROBABILITIES, strict=True)
        if len(columns) == number_of_things
    ]
    if not layouts:
        return background
    layout = _entropy(tuple(p / sum(layouts) for p in layouts))
    return background + layout + thing * number_of_things


def _sample_thing(rng: np.random.Generator, column: int, row: int) -> Thing:
    return Thing(
        column=column,
        row=row,
        colour=int(rng.integers(len(COLOURS))),
        shape=int(rng.integers(len(SHAPES))),
        motion=int(rng.integers(len(MOTIONS))),
        event=_draw(rng, EVENT_PROBABILITIES),
        turn=int(rng.integers(len(TURN_COLOURS))),
    )


def _sample_background(rng: np.random.Generator) -> tuple[int, int]:
    return int(rng.integers(len(PATTERNS))), int(rng.integers(len(TONES)))


def _draw(rng: np.random.Generator, probabilities: tuple[float, ...]) -> int:
    return int(np.searchsorted(np.cumsum(probabilities[:-1]), rng.random(), side="right"))


def _entropy(probabilities: tuple[float, ...]) -> float:
    return -sum(p * math.log2(p) for p in probabilities if p > 0)
