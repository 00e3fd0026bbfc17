"""What is said about a scene, and what a text says: captions, questions, and the way back.

Each prompt has one phrasing, and every phrasing walks the same slots: background, left, middle,
right. Given the prompt a scene has exactly one caption, so greedy decoding has one clear mode.
Captions are joined from `(text, attribute)` pieces: the pieces with an attribute are the content
words, which only the video can tell.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from hippo_jax.training.domain import (
    COLOURS,
    COLUMNS,
    EVENTS,
    MOTIONS,
    PATTERNS,
    ROWS,
    SHAPES,
    TONES,
    TURN_COLOURS,
    Scene,
    Thing,
)

PROMPTS = ("Describe the video.", "What happens in the clip?", "Describe the video in detail.")
SLOTS = ("background", *COLUMNS)
NOTHING = "nothing"

Piece = tuple[str, str | None]  # text, and the attribute it tells if it is a content word
Slot = dict[str, str]  # attribute name -> value; {"object": "nothing"} for an empty column

_WHERE = {"left": "On the left", "middle": "In the middle", "right": "On the right"}


@dataclass(frozen=True)
class Dialogue:
    """A user's line and the answer, in pieces."""

    prompt: str
    pieces: tuple[Piece, ...]

    @property
    def answer(self) -> str:
        return "".join(text for text, _ in self.pieces)


def attributes(scene: Scene) -> dict[str, Slot]:
    """What a right and complete caption says, slot by slot."""
    slots: dict[str, Slot] = {
        "background": {"pattern": PATTERNS[scene.pattern], "tone": TONES[scene.tone]}
    }
    for index, column in enumerate(COLUMNS):
        thing = scene.in_column(index)
        slots[column] = _thing_attributes(thing) if thing else {"object": NOTHING}
    return slots


def _thing_attributes(thing: Thing) -> Slot:
    event = EVENTS[thing.event]
    return {
        "object": "something",
        "row": ROWS[thing.row],
        "colour": COLOURS[thing.colour],
        "shape": SHAPES[thing.shape],
        "motion": MOTIONS[thing.motion],
        "event": f"turns {TURN_COLOURS[thing.turn]}" if event == "turns" else event,
    }


def caption(scene: Scene, style: int = 0) -> Dialogue:
    """The caption of a scene in one of the three phrasings (the style of `PROMPTS[style]`)."""
    slots = attributes(scene)
    write = (_plain_style, _short_style, _detailed_style)[style]
    pieces = list(write(slots["background"], None))
    for column in COLUMNS:
        pieces += write(slots[column], column)
    return Dialogue(PROMPTS[style], tuple(pieces))


def _plain_style(slot: Slot, column: str | None) -> list[Piece]:
    if column is None:
        return [
            ("The background is", None),
            (f" {slot['pattern']}", "pattern"),
            (" and", None),
            (f" {slot['tone']}", "tone"),
            (".", None),
        ]
    opening: list[Piece] = [(f" {_WHERE[column]},", None)]
    if slot["object"] == NOTHING:
        return [*opening, (" nothing", "object"), (".", None)]
    return [*opening, *_noun(slot, " in the {} row"), *_verb(slot, " and"), (".", None)]


def _short_style(slot: Slot, column: str | None) -> list[Piece]:
    if column is None:
        return [
            ("A", None),
            (f" {slot['tone']}", "tone"),
            (f" {slot['pattern']}", "pattern"),
            (" background.", None),
        ]
    opening: list[Piece] = [(f" {_WHERE[column]}:", None)]
    if slot["object"] == NOTHING:
        return [*opening, (" nothing", "object"), (".", None)]
    return [*opening, *_noun(slot, " at the {}"), *_verb(slot, ", then"), (".", None)]


def _detailed_style(slot: Slot, column: str | None) -> list[Piece]:
    if column is None:
        return [
            ("The clip shows a", None),
            (f" {slot['tone']}", "tone"),
            (" background with a", None),
            (f" {slot['pattern']}", "pattern"),
            (" pattern.", None),
        ]
    opening: list[Piece] = [(f" {_WHERE[column]} there is", None)]
    if slot["object"] == NOTHING:
        return [*opening, (" nothing", "object"), (".", None)]
    noun = _noun(slot, " in the {} row of the picture")
    return [*opening, *noun, ("; it", None), *_verb(slot, " and then"), (".", None)]


def _noun(slot: Slot, place: str) -> list[Piece]:
    before, after = place.split("{}")
    article = " an" if slot["colour"][0] in "aeiou" else " a"
    return [
        (article, "object"),
        (f" {slot['colour']}", "colour"),
        (f" {slot['shape']}", "shape"),
        (before.rstrip(), None),
        (f" {slot['row']}", "row"),
        *([(after, None)] if after else []),
    ]


def _verb(slot: Slot, link: str) -> list[Piece]:
    return [*_motion(slot["motion"]), *_event(slot["event"], link)]


def _motion(motion: str) -> list[Piece]:
    if motion == "still":
        return [(" stays", "motion"), (" still", None)]
    return [(" moves", "motion"), (f" {motion}", "motion")]


def _event(event: str, link: str) -> list[Piece]:
    if event == "none":
        return []
    if event.startswith("turns"):
        colour = event.split()[1]
        return [(link, "event"), (" turns", "event"), (f" {colour}", "event"), (" halfway", None)]
    return [(link, "event"), (f" {event}", "event"), (" halfway", None)]


# --- questions about one slot ------------------------------------------------------------------


def questions(scene: Scene, rng: np.random.Generator, count: int) -> list[Dialogue]:
    """`count` distinct questions about the scene, drawn by `rng`."""
    everything = all_questions(scene)
    chosen = rng.permutation(len(everything))[:count]
    return [everything[i] for i in chosen]


def all_questions(scene: Scene) -> list[Dialogue]:
    """Every question that can be asked about the scene, with its answer."""
    slots = attributes(scene)
    ground = slots["background"]
    answer: list[Piece] = [
        ("It is", None),
        (f" {ground['pattern']}", "pattern"),
        (" and", None),
        (f" {ground['tone']}", "tone"),
        (".", None),
    ]
    found = [Dialogue("How does the background look?", tuple(answer))]
    for column in COLUMNS:
        where = _WHERE[column].lower()
        found += [
            Dialogue(question.format(where), tuple(_answer(slots[column], attribute)))
            for attribute, question in _QUESTIONS.items()
        ]
    return found


_QUESTIONS = {
    "object": "What is {}?",
    "colour": "What colour is the object {}?",
    "shape": "What shape is the object {}?",
    "row": "In which row is the object {}?",
    "motion": "How does the object {} move?",
    "event": "What happens to the object {}?",
}


def _answer(slot: Slot, attribute: str) -> list[Piece]:
    if slot["object"] == NOTHING:
        return [("There is", None), (" nothing", "object"), (".", None)]
    value = slot.get(attribute, "")
    end: Piece = (".", None)
    if attribute == "object":
        article = " an" if slot["colour"][0] in "aeiou" else " a"
        return [
            ("It is", None),
            (article, "object"),
            (f" {slot['colour']}", "colour"),
            (f" {slot['shape']}", "shape"),
            end,
        ]
    if attribute == "colour":
        return [("It is", None), (f" {value}", "colour"), end]
    if attribute == "shape":
        return [("It is a", None), (f" {value}", "shape"), end]
    if attribute == "row":
        return [("It is in the", None), (f" {value}", "row"), (" row", None), end]
    if attribute == "motion":
        return [("It", None), *_motion(value), end]
    if value == "none":
        return [("It", None), (" stays", "event"), (" as it is", None), end]
    return [("It", None), *_event(value, "")[1:], end]


# --- text back to attributes ---------------------------------------------------------------------

_OPENINGS = {where.lower(): column for column, where in _WHERE.items()}
_SPLIT = re.compile(r"(?<=[.])\s+")


def parse(text: str) -> dict[str, Slot]:
    """The attributes a caption states, in any of the phrasings.

    Lenient: a slot that is not spoken of is missing from the result, and an attribute that
    cannot be read is missing from its slot. The first sentence about a slot counts.
    """
    slots: dict[str, Slot] = {}
    for sentence in _SPLIT.split(text.strip().lower()):
        column = next((c for opening, c in _OPENINGS.items() if sentence.startswith(opening)), None)
        name = column or ("background" if "background" in sentence else None)
        if name is None or name in slots:
            continue
        slots[name] = _parse_thing(sentence) if column else _parse_background(sentence)
    return slots


def _parse_background(sentence: str) -> Slot:
    words = re.findall(r"[a-z]+", sentence)
    slot: Slot = {}
    for attribute, values in (("pattern", PATTERNS), ("tone", TONES)):
        value = next((word for word in words if word in values), None)
        if value:
            slot[attribute] = value
    return slot


def _parse_thing(sentence: str) -> Slot:
    opening = next(o for o in _OPENINGS if sentence.startswith(o))
    words = re.findall(r"[a-z]+", sentence[len(opening) :])
    if NOTHING in words:
        return {"object": NOTHING}
    slot: Slot = {"object": "something", "event": "none"}
    for attribute, values in (("row", ROWS), ("colour", COLOURS), ("shape", SHAPES)):
        value = next((word for word in words if word in values), None)
        if value:
            slot[attribute] = value
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == "stays":
            slot["motion"] = "still"
        elif word == "moves" and following in MOTIONS:
            slot["motion"] = following
        elif word in ("appears", "vanishes"):
            slot["event"] = word
        elif word == "turns":
            slot["event"] = f"turns {following}"
    return slot


def corpus(seeds: int = 200) -> list[str]:
    """All texts a tokenizer must know well, in a fixed order."""
    from hippo_jax.training.domain import sample_scene

    texts: list[str] = []
    for index in range(seeds):
        scene = sample_scene(0, index)
        dialogues = [caption(scene, style) for style in range(len(PROMPTS))]
        dialogues += all_questions(scene)
        for dialogue in dialogues:
            texts += [f"user\n{dialogue.prompt}", f"assistant\n{dialogue.answer}", "system\n"]
    return texts
